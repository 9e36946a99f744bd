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
        if x.shape[-1:] != (self.in_features,):
            raise ArgumentError("x", f"has the shape {tuple(x.shape)}", f"give (..., {self.in_features})")
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
        given = {name: state_dict[prefix + name] for name in (*_REQUIRED, *_OPTIONAL) if prefix + name in state_dict}
        if given.keys() >= set(_REQUIRED):
            arrays = {name: tensor.detach().cpu().numpy().copy() for name, tensor in given.items()}
            try:
                words = arrays.pop("words")
                words = words.view(np.uint32) if words.dtype == np.int32 else words
                quantized = bool(arrays.pop("quantized"))
                packed = PackedBlocks(self._matrix.shape, arrays.pop("leaves"), words, quantized, **arrays)
            except ArgumentError as error:
                error_msgs.append(f"{prefix.rstrip('.') or 'HLinear'}: {error}")
                return
            self._set(HMatrix(packed))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


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
    rows = x.detach().reshape(-1, x.shape[-1])
    if rows.dtype not in (torch.float32, torch.float64):
        rows = rows.float()
    return torch.from_numpy(apply(rows.numpy())).reshape(*x.shape[:-1], size)
