"""H-matrices whose coefficients are trained, and packed again in the same partition, ranks and precisions."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from hmatrix.errors import ArgumentError, NetworkError
from hmatrix.matrix import HMatrix
from hmatrix.nn.layers.trainable_factor import TrainableFactor
from hmatrix.nn.layers.weight import HWeight
from hmatrix.nn.ops import batched
from hmatrix.nn.ops.modes import outside_modes
from hmatrix.nn.ops.prepared import PackedTensors, Prepared, prepared_of
from hmatrix.nn.ops.rows import Far, Near, select_rows

Module = TypeVar("Module", bound=nn.Module)


def trainable(module: Module, *, dense: bool = False) -> Module:
    """Give all H-matrices of a network coefficients that are parameters, in place.

    Weights that layers share stay shared. Without training, the network's outputs are the same, but for rounding.

    Parameters
    ----------
    module
        A network, a layer, or a weight.
    dense
        Whether products decode the whole matrix first: faster where it meets many vectors, as in convolutions.
        Activations are exact then.

    Returns
    -------
    nn.Module
        The module itself; for a weight alone, its `TrainableWeight`.

    Raises
    ------
    ArgumentError
        If there is no H-matrix in it.

    Examples
    --------
    >>> layer = hnn.HLinear(hm.quantize(np.eye(8), "int4"))
    >>> sum(parameter.numel() for parameter in hnn.trainable(layer).parameters()) > 64
    True
    """
    return _replaced(module, HWeight, partial(TrainableWeight, dense=dense))


def freeze(module: Module) -> Module:
    """Pack the weights that `trainable` made: coefficients are rounded to their precisions, as they were in training.

    Parameters
    ----------
    module
        A network, a layer, or a weight.

    Returns
    -------
    nn.Module
        The module itself; for a weight alone, its `HWeight`. Without training, the packed matrices have the
        same bits as before.

    Raises
    ------
    ArgumentError
        If nothing in it is trainable, or coefficients are not finite.

    Examples
    --------
    >>> layer = hnn.trainable(hnn.HLinear(hm.quantize(np.eye(8), "int4")))
    >>> type(layer.weight).__name__, type(hnn.freeze(layer).weight).__name__
    ('TrainableWeight', 'HWeight')
    """
    return _replaced(module, TrainableWeight, TrainableWeight.frozen)


class TrainableWeight(nn.Module):
    """An H-matrix with parameters, in the place of an `HWeight`.

    Parameters
    ----------
    weight
        The H-matrix to begin with; it is not changed.
    dense
        See `trainable`.

    Attributes
    ----------
    factors
        For each group of leaves of equal shape and precision, a list of `TrainableFactor`: the dense blocks,
        or the factors V^T and U.

    Examples
    --------
    >>> weight = hnn.TrainableWeight(hnn.HWeight(hm.quantize(np.eye(8), "int4")))
    >>> weight.multiply(torch.ones(8)).requires_grad
    True
    """

    words: Tensor
    leaves: Tensor
    quantized: Tensor
    row_permutation: Tensor | None
    column_permutation: Tensor | None

    def __init__(self, weight: HWeight, *, dense: bool = False) -> None:
        super().__init__()
        self.shape = weight.shape
        self._dense = dense
        if weight.words.is_meta:
            raise NetworkError("HWeight", "is on the meta device", "load a state dict first, with assign=True")
        for name, buffer in weight.tensors.copied(weight.device)._asdict().items():
            self.register_buffer(name, buffer)
        structure = self._prepared().structure
        coefficients = batched.coefficients_of(structure, self.words)
        self.factors = nn.ModuleList(
            nn.ModuleList(TrainableFactor(factor, quantized=structure.quantized) for factor in factors)
            for factors in coefficients
        )

    @property
    def matrix(self) -> HMatrix:
        """The matrix ``(m, n)`` as it would be packed now.

        Raises
        ------
        ArgumentError
            If coefficients are not finite.
        """
        return self._packed().matrix(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Type in which products are computed."""
        doubles = (tensor.dtype == torch.float64 for tensor in (self.words, *self.factors.parameters()))
        return torch.float64 if any(doubles) else torch.float32

    @property
    def device(self) -> torch.device:
        """Device of the coefficients."""
        return self.words.device

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return ``x A^T + bias``, ``(..., m)``, for x ``(..., n)``; see `HWeight.multiply`.

        Raises
        ------
        ArgumentError
            If x has another shape.
        """
        m, n = self.shape
        if x.shape[-1:] != (n,):
            raise ArgumentError("x", f"has the shape {tuple(x.shape)}", f"give (..., {n})")
        flat = x.reshape(-1, n).to(self.dtype)
        # The products are float32, or float64, under autocast, too.
        with torch.autocast(x.device.type, enabled=False):
            if self._dense:
                y = nn.functional.linear(flat, self.to_dense(), None if bias is None else bias.to(self.dtype))
            else:
                products = [[factor.multiply for factor in factors] for factors in self._factors()]
                y = batched.multiply(self._prepared().structure, products, flat)
                y = y if bias is None else y + bias
        y = y.reshape(*x.shape[:-1], m)
        return y.to(x.dtype) if x.dtype in (torch.float16, torch.bfloat16) else y

    def rows(self, indices: Tensor) -> Tensor:
        """Return rows ``(..., n)`` of A; see `HWeight.rows`."""
        prepared = self._prepared()
        near: list[Near] = [partial(_row_values, factors[-1]) for factors in self._factors()]
        far: list[Far | None] = [factors[0].values if len(factors) == 2 else None for factors in self._factors()]
        return select_rows(prepared.structure, prepared.row_tables, near, far, indices)

    def to_dense(self) -> Tensor:
        """Return the matrix ``(m, n)`` as it is rounded, with straight-through gradients."""
        values = ([factor.values() for factor in factors] for factors in self._factors())
        blocks = [factors[0] if len(factors) == 1 else factors[1] @ factors[0] for factors in values]
        zeros = torch.zeros(self.shape, dtype=self.dtype, device=self.device)
        return batched.assemble(self._prepared().structure, blocks, zeros)

    def frozen(self) -> HWeight:
        """Return the packed weight, on the same device."""
        return HWeight(self.matrix).to(self.device)

    def extra_repr(self) -> str:
        """Describe the weight in the printed network."""
        return f"shape={self.shape}"

    def _factors(self) -> list[list[TrainableFactor]]:
        groups = [cast("nn.ModuleList", group) for group in self.factors]
        return [[cast("TrainableFactor", factor) for factor in group] for group in groups]

    def _prepared(self) -> Prepared:
        return prepared_of(*self._tensors(), self.shape)

    def _tensors(self) -> PackedTensors:
        return PackedTensors(self.words, self.leaves, self.quantized, self.row_permutation, self.column_permutation)

    @torch.no_grad()
    def _packed(self) -> PackedTensors:
        tensors = self._tensors()
        with outside_modes():
            words = tensors.words.clone()
        for group, factors in zip(self._prepared().structure.groups, self._factors(), strict=True):
            for stack, factor in zip(group.factors, factors, strict=True):
                stack.store(words, factor.coefficients())
        return tensors._replace(words=words)


def _row_values(factor: TrainableFactor, leaf: Tensor, row: Tensor) -> Tensor:
    return factor.values()[leaf, row]


def _replaced(module: Module, kind: type[nn.Module], replace: Callable[[Any], nn.Module]) -> Module:
    """Replace all modules of a kind inside a module, or that module itself; those that are shared stay so."""
    replacements = {part: replace(part) for part in module.modules() if isinstance(part, kind)}
    if not replacements:
        raise ArgumentError("module", f"has no {kind.__name__} in it", f"give a network with a {kind.__name__}")
    if module in replacements:
        return cast("Module", replacements[module])
    for parent in list(module.modules()):
        for name, child in parent._modules.items():
            if child in replacements:
                parent._modules[name] = replacements[child]
    return module
