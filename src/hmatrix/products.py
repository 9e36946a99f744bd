"""From any vector or batch that a user gives to the contiguous arrays that a kernel takes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from hmatrix._validation import FloatArray, as_floating
from hmatrix.errors import ArgumentError


def check_columns(x: npt.NDArray[Any], shape: tuple[int, int]) -> None:
    """Raise ArgumentError unless x is a matrix ``(n, batch)`` for a matrix ``(m, n)`` of `shape`."""
    if x.ndim != 2 or x.shape[0] != shape[1]:
        mend = f"give ({shape[1]},) or ({shape[1]}, batch) for a matrix of shape {shape}"
        raise ArgumentError("x", f"has the shape {x.shape}", mend)


def vector_product(
    x: npt.NDArray[Any],
    dtype: np.dtype[Any],
    shape: tuple[int, int],
    multiply: Callable[[FloatArray, FloatArray], None],
) -> FloatArray:
    """Multiply a vector ``(n,)``."""
    if x.shape != (shape[1],):
        raise ArgumentError("x", f"has the shape {x.shape}", f"give ({shape[1]},) for a matrix of shape {shape}")
    y = np.empty(shape[0], dtype)
    if x.dtype == dtype and x.flags.c_contiguous:
        multiply(x, y)
        return y
    multiply(np.ascontiguousarray(as_floating("x", x), dtype), y)
    return y.astype(np.result_type(dtype, x.dtype), copy=False)


def batch_product(
    x: npt.NDArray[Any],
    dtype: np.dtype[Any],
    shape: tuple[int, int],
    multiply: Callable[[FloatArray, FloatArray], None],
) -> FloatArray:
    """Multiply the rows of ``(batch, n)``; what is not contiguous or of another type is copied."""
    if x.ndim != 2 or x.shape[1] != shape[1]:
        raise ArgumentError(
            "x", f"has the shape {x.shape}, a sample a row", f"give (batch, {shape[1]}) for a matrix of shape {shape}"
        )
    y = np.empty((len(x), shape[0]), dtype)
    if x.dtype == dtype and x.flags.c_contiguous:
        multiply(x, y)
        return y
    multiply(np.ascontiguousarray(as_floating("x", x), dtype), y)
    return y.astype(np.result_type(dtype, x.dtype), copy=False)
