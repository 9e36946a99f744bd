"""The weight of a layer as a module that holds an H-matrix in packed form."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.compiler import is_compiling, is_dynamo_compiling, is_exporting

from hmatrix.codes.precision import Precision
from hmatrix.errors import ArgumentError, NetworkError
from hmatrix.lowrank.factors import LowRank
from hmatrix.matrix import HMatrix, TransposedHMatrix, as_hmatrix
from hmatrix.nn.ops import standard
from hmatrix.nn.ops.operator import linear, product, rows_of
from hmatrix.nn.ops.prepared import PackedTensors, Prepared, prepared_of, remember
from hmatrix.nn.ops.tangents import is_differentiated_forward, unpacked, with_tangent
from hmatrix.packed.packing import PackedLeaf

_REQUIRED = ("leaves", "words", "quantized")
_OPTIONAL = ("row_permutation", "column_permutation")


class HWeight(nn.Module):
    """An H-matrix A as the weight of layers; several layers may share one.

    The state dict holds the packed form, so that loading one replaces the whole structure: a weight of the
    same shape may be given another partition and other precisions. On the CPU products are the kernel's;
    on other devices torch multiplies the same words. The words may be changed in place; other buffers, once
    changed, are checked and prepared anew at the next product.

    Parameters
    ----------
    matrix
        A, ``(m, n)``; its coefficients are shared, not copied, but for those of a transpose.

    Raises
    ------
    ArgumentError
        If it is no H-matrix, or the transpose of one with integer codes.

    Examples
    --------
    >>> weight = hnn.HWeight(hm.quantize(np.eye(8), "int8"))
    >>> first, second = hnn.HLinear(weight), hnn.HLinear(weight)
    >>> first.weight is second.weight
    True
    >>> torch.equal(first(torch.ones(8)), torch.ones(8))
    True
    """

    words: Tensor
    leaves: Tensor
    quantized: Tensor
    row_permutation: Tensor | None
    column_permutation: Tensor | None

    def __init__(self, matrix: HMatrix | TransposedHMatrix) -> None:
        super().__init__()
        matrix = as_hmatrix("matrix", matrix)
        self.shape = matrix.shape
        self._known: tuple[Tensor, Prepared] | None = None
        self._take(PackedTensors.of(matrix), matrix)

    @classmethod
    def skeleton(cls, shape: tuple[int, int]) -> Self:
        """Make a weight ``(m, n)`` of zeros that takes no memory, to load a state dict of any structure into."""
        m, n = shape
        zero = LowRank(np.zeros((m, 0), np.float32), np.zeros((n, 0), np.float32))
        return cls(HMatrix.from_leaves(shape, [PackedLeaf(slice(0, m), slice(0, n), zero)]))

    @classmethod
    def expecting(cls, shape: tuple[int, int], tensors: PackedTensors) -> Self:
        """Make a weight ``(m, n)`` of tensors on the meta device, in whose places others are put one by one."""
        weight = cls.skeleton(shape)
        for name, tensor in tensors._asdict().items():
            weight.register_buffer(name, tensor)
        weight._known = None
        return weight

    @property
    def matrix(self) -> HMatrix:
        """The matrix ``(m, n)``; on the CPU it shares the coefficients.

        Raises
        ------
        NetworkError
            If the weight is on the meta device.
        ArgumentError
            If its buffers were changed, and are no packed matrix any more.
        """
        if self.words.is_meta:
            raise NetworkError("HWeight", "is on the meta device", "load a state dict first, with assign=True")
        if self.words.is_cpu:
            return self.prepared().matrix
        return self.tensors.matrix(self.shape)

    @property
    def tensors(self) -> PackedTensors:
        """The packed form: the buffers themselves."""
        return PackedTensors(self.words, self.leaves, self.quantized, self.row_permutation, self.column_permutation)

    @property
    def dtype(self) -> torch.dtype:
        """Type in which products are computed."""
        return torch.float64 if self.words.dtype == torch.float64 else torch.float32

    @property
    def device(self) -> torch.device:
        """Device of the coefficients."""
        return self.words.device

    def multiply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return ``x A^T + bias``.

        Parameters
        ----------
        x
            ``(..., n)``.
        bias
            ``(m,)``.

        Returns
        -------
        Tensor
            ``(..., m)``: for x of half precision in its type, or in that of autocast; computed in float32.

        Raises
        ------
        ArgumentError
            If x has another shape or is not of real numbers.
        """
        known = self._known
        if known is not None and not is_dynamo_compiling() and (shortcut := known[1].shortcut) is not None:
            y = shortcut(x, bias, self._buffers)
            if y is not None:
                return y
        return self._multiply_anything(x, bias)

    def _multiply_anything(self, x: Tensor, bias: Tensor | None) -> Tensor:
        m, n = self.shape
        if is_differentiated_forward() and (dual := self._multiply_dual(x, bias)) is not None:
            return dual
        if x.is_complex():
            came = f"has the type {str(x.dtype).removeprefix('torch.')}"
            raise ArgumentError("x", came, "give real numbers, preferably in float32")
        floats = x if x.dtype in (torch.float32, torch.float64) else x.float()
        if torch.onnx.is_in_onnx_export():
            y = standard.multiply(*self._for_export(), floats)
            y = y if bias is None else y + bias
        elif is_compiling() and not is_exporting() and self._is_product_alone(x):
            y = product(floats, bias, self.words, m, n)
        else:
            y = linear(floats, bias, False, *self.tensors, m, n)
        if x.dtype in (torch.float16, torch.bfloat16):
            return y.to(x.dtype)
        device = x.device.type
        if x.dtype == torch.float32 and device != "meta" and torch.is_autocast_enabled(device):
            return y.to(torch.get_autocast_dtype(device))
        return y

    def _multiply_dual(self, x: Tensor, bias: Tensor | None) -> Tensor | None:
        """Multiply in forward-mode differentiation: a tangent of x or of the bias is mapped as these are."""
        x, tangent = unpacked(x)
        bias, added = (None, None) if bias is None else unpacked(bias)
        if tangent is None and added is None:
            return None
        product = self.multiply(torch.zeros_like(x) if tangent is None else tangent, added)
        return with_tangent(self.multiply(x, bias), product)

    def _is_product_alone(self, x: Tensor) -> bool:
        """Whether a compiler needs nothing but the product on the CPU, of tensors that tell whether they changed."""
        tracked = self._known is not None and self._known[1].tracked
        return tracked and x.is_cpu and self.words.is_cpu and not torch.is_grad_enabled()

    def rows(self, indices: Tensor) -> Tensor:
        """Return rows ``(..., n)`` of A; only they are decoded, and the factors V of low-rank leaves.

        Parameters
        ----------
        indices
            Integers ``(...)``.

        Raises
        ------
        ArgumentError
            If an index is out of range; on devices other than the CPU, torch tells.
        """
        if torch.onnx.is_in_onnx_export():
            return standard.rows(*self._for_export(), indices)
        result: Tensor = rows_of(indices, *self.tensors, *self.shape)
        return result

    def _for_export(self) -> tuple[Tensor, Prepared]:
        """Return the words and their prepared product: exporters put tensors without data in their place."""
        if self._known is None:
            raise NetworkError("HWeight", "was not prepared before the export", "call the network once, then export it")
        return self._known

    def extra_repr(self) -> str:
        """Describe the weight in the printed network."""
        m, n = self.shape
        if self.words.is_meta:
            return f"shape={self.shape}, on the meta device"
        return f"shape=({m}, {n}), storage={self.matrix.storage().ratio:.1%}"

    def prepared(self) -> Prepared:
        """Return the product that is prepared for the buffers as they are now.

        Raises
        ------
        ArgumentError
            If they are no packed matrix.
        """
        prepared = prepared_of(*self.tensors, self.shape)
        self._known = self.words, prepared
        return prepared

    def _take(self, tensors: PackedTensors, matrix: HMatrix) -> None:
        """Make tensors the buffers; `matrix` is theirs."""
        for name, tensor in tensors._asdict().items():
            self.register_buffer(name, tensor)
        prepared = Prepared(tensors, self.shape, matrix)
        remember(tensors.words, prepared)
        self._known = tensors.words, prepared

    def _prepare_if_possible(self) -> None:
        """Prepare for new buffers; an error in them is raised when they are used."""
        self._known = None
        if type(self.words) is Tensor and not self.words.is_meta:
            with suppress(ArgumentError):
                self.prepared()

    def __getstate__(self) -> dict[str, Any]:
        # The prepared product views the tensors of this weight: a copy prepares its own.
        return {**self.__dict__, "_known": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._prepare_if_possible()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow moves, and changes of type between float32 and float64 where all coefficients are such."""
        wanted = fn(torch.empty(0, dtype=self.dtype)).dtype
        wanted = torch.float64 if wanted == torch.float64 else torch.float32
        if wanted != self.dtype and not self.words.is_meta:
            matrix = self.matrix
            if all(leaf.precision <= Precision.FLOAT32 for leaf in matrix.leaves()):
                device = self.device
                converted = matrix.astype(str(wanted).removeprefix("torch."))
                tensors = PackedTensors.of(converted)
                self._take(tensors if device.type == "cpu" else tensors.copied(device), converted)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._known is None or self._known[0] is not self.words:
            self._prepare_if_possible()
        return self

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        keys = {prefix + name: name for name in (*_REQUIRED, *_OPTIONAL)}
        given = {name: state_dict[key] for key, name in keys.items() if key in state_dict}
        if any(name not in given for name in _REQUIRED):
            # The parts of a matrix mean nothing without each other: none is taken.
            missing_keys += [key for key, name in keys.items() if name not in given and self._buffers[name] is not None]
            return
        try:
            parts: list[Any] = [given.get(name) for name in PackedTensors._fields]
            tensors = PackedTensors(*parts)
            matrix = tensors.matrix(self.shape)
            if not local_metadata.get("assign_to_params_buffers", False):
                if self.words.is_meta:
                    raise ArgumentError("weight", "is on the meta device", "load with assign=True")
                tensors = tensors.copied(self.device)
                matrix = tensors.matrix(self.shape)
            self._take(tensors, matrix)
        except ArgumentError as error:
            subject = "words" if error.subject == "data" else error.subject
            error_msgs.append(f"{prefix.rstrip('.') or 'HWeight'}: {subject}: {error.came}; {error.mend}")
            return
        rest = {key: value for key, value in state_dict.items() if key not in keys}
        super()._load_from_state_dict(rest, prefix, local_metadata, strict, [], unexpected_keys, error_msgs)
