"""A linear layer whose weight is an H-matrix."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from hmatrix.errors import ArgumentError, NetworkError
from hmatrix.matrix import HMatrix, TransposedHMatrix
from hmatrix.packed import PackedBlocks
from hmatrix.precision import Precision

_REQUIRED = ("leaves", "words", "quantized")
_OPTIONAL = ("row_permutation", "column_permutation")
_TYPES = {"words": (torch.int32, torch.float64), "quantized": (torch.bool,)}
"""Types of the buffers; int32 of all others."""


class HLinear(nn.Module):
    """``y = x A^T + b`` with an H-matrix A, for inference on the CPU.

    The state dict holds the packed form, so that loading one replaces the whole structure: a layer of
    the same shape may be given another partition and other precisions. Gradients reach the input and the
    bias, not A; where activations are int8, that of the input is taken as if they were exact.

    Parameters
    ----------
    matrix
        A, ``(out, in)``.
    bias
        ``(out,)``, or ``None``.

    Raises
    ------
    ArgumentError
        If the bias does not fit.
    """

    leaves: Tensor
    words: Tensor
    quantized: Tensor
    row_permutation: Tensor | None
    column_permutation: Tensor | None

    def __init__(self, matrix: HMatrix, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = matrix.shape
        if bias is not None and bias.shape != (self.out_features,):
            raise ArgumentError("bias", f"has the shape {tuple(bias.shape)}", f"give ({self.out_features},)")
        dtype = torch.from_numpy(np.empty(0, matrix.dtype)).dtype
        self.bias = None if bias is None else nn.Parameter(bias.detach().to(dtype, copy=True))
        self._set(matrix)

    @classmethod
    def from_matrix(cls, matrix: HMatrix, bias: Tensor | None = None) -> Self:
        """Make a layer of an H-matrix ``(out, in)`` and a bias ``(out,)``."""
        return cls(matrix, bias)

    @classmethod
    def from_linear(cls, linear: nn.Linear, matrix: HMatrix) -> Self:
        """Make a layer that takes the place of `linear`: its weight replaced by `matrix`, its bias kept.

        Raises
        ------
        ArgumentError
            If the shapes differ.
        """
        if matrix.shape != tuple(linear.weight.shape):
            raise ArgumentError(
                "matrix", f"has the shape {matrix.shape}", f"give {tuple(linear.weight.shape)}, as the layer has"
            )
        return cls(matrix, linear.bias).train(linear.training)

    @property
    def matrix(self) -> HMatrix:
        """The weight ``(out, in)``."""
        return self._matrix

    def forward(self, x: Tensor) -> Tensor:
        """Multiply ``(..., in)`` to ``(..., out)``."""
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            # The product is not torch's own, so that a trace would hold its result as a constant.
            raise NetworkError("HLinear", "cannot be traced", "trace the network before its layer is replaced")
        if x.shape[-1:] != (self.in_features,):
            raise ArgumentError("x", f"has the shape {tuple(x.shape)}", f"give (..., {self.in_features})")
        if x.is_complex():
            came = f"has the type {str(x.dtype).removeprefix('torch.')}"
            raise ArgumentError("x", came, "give real numbers, preferably in float32")
        if torch.is_grad_enabled() and x.requires_grad:
            y: Tensor = _Product.apply(x, self._matrix)
        else:
            y = _multiply(x, self._matrix.apply, self.out_features)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """Describe the layer in the printed network."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"storage={self._matrix.storage().ratio:.1%}"
        )

    def _set(self, matrix: HMatrix) -> None:
        """Take `matrix` as the weight; the buffers share its memory."""
        packed = matrix.pack()
        self._matrix = matrix
        self.register_buffer("leaves", torch.from_numpy(packed.leaves))
        # int32, since not everything in torch knows unsigned words.
        words = packed.data if packed.data.dtype == np.float64 else packed.data.view(np.int32)
        self.register_buffer("words", torch.from_numpy(words))
        self.register_buffer("quantized", torch.tensor(packed.quantized))
        for name in _OPTIONAL:
            array = getattr(packed, name)
            self.register_buffer(name, None if array is None else torch.from_numpy(array))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        # A copy holds the coefficients once, as the layer does.
        self._set(self._matrix)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow changes of type, where all coefficients are floating-point; the CPU is the only device."""
        matrix = self._matrix
        moved = fn(torch.empty(0, dtype=torch.from_numpy(np.empty(0, matrix.dtype)).dtype))
        if moved.device.type != "cpu" or moved.dtype not in (torch.float32, torch.float64):
            raise NetworkError(
                "HLinear", f"cannot be moved to {moved.device}, {moved.dtype}", "keep it on the CPU in float"
            )
        if all(leaf.precision <= Precision.FLOAT32 for leaf in matrix.leaves()):
            matrix = matrix.astype(moved.numpy().dtype)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._set(matrix)
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
        missing = [prefix + name for name in _REQUIRED if name not in given]
        if given and missing:
            # The parts of a matrix mean nothing without each other: none is taken, nor the bias beside them.
            missing_keys += missing
            return
        if given:
            try:
                self._set(_from_state(self._matrix.shape, given))
            except ArgumentError as error:
                subject = "words" if error.subject == "data" else error.subject
                error_msgs.append(f"{prefix.rstrip('.') or 'HLinear'}: {subject}: {error.came}; {error.mend}")
                return
            state_dict = {key: value for key, value in state_dict.items() if key not in keys}
        not_found: list[str] = []
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, not_found, unexpected_keys, error_msgs
        )
        missing_keys += [key for key in not_found if not given or key not in keys]


def _from_state(shape: tuple[int, int], tensors: dict[str, Any]) -> HMatrix:
    """Make an H-matrix of copies of the buffers of a state dict."""
    arrays: dict[str, Any] = {}
    for name, tensor in tensors.items():
        types = _TYPES.get(name, (torch.int32,))
        if not isinstance(tensor, Tensor) or tensor.dtype not in types or tensor.is_meta:
            came = f"{tensor.dtype} on {tensor.device}" if isinstance(tensor, Tensor) else type(tensor).__name__
            expected = " or ".join(str(dtype) for dtype in types)
            raise ArgumentError(name, f"got {came}", f"give a tensor of {expected}, as a state dict of HLinear has")
        arrays[name] = tensor.detach().cpu().numpy().copy()
    words, quantized = arrays.pop("words"), arrays.pop("quantized")
    if quantized.shape != ():
        raise ArgumentError("quantized", f"has the shape {quantized.shape}", "give a single truth value")
    data = words.view(np.uint32) if words.dtype == np.int32 else words
    return HMatrix(PackedBlocks(shape, arrays.pop("leaves"), data, bool(quantized), **arrays))


class _Product(torch.autograd.Function):
    """The product, differentiable in the input as often as one likes: its derivative is the transposed product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: HMatrix | TransposedHMatrix) -> Tensor:
        ctx.matrix = matrix
        return _multiply(x, matrix.apply, matrix.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Product.apply(gradients[0], ctx.matrix.T), None


def _multiply(x: Tensor, apply: Callable[[Any], Any], size: int) -> Tensor:
    """Apply a product to the last dimension."""
    # Each call into torch costs about as much as a thousand coefficients: no needless ones.
    x = x.detach()
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()
    if x.dim() <= 2:
        return torch.from_numpy(apply(x.numpy()))
    return torch.from_numpy(apply(x.reshape(-1, x.shape[-1]).numpy())).reshape(*x.shape[:-1], size)
