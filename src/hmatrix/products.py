"""From any vector or batch that a user gives to the contiguous arrays that a kernel takes."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hmatrix._validation import FloatArray, as_floating
from hmatrix.errors import ArgumentError

Multiply: TypeAlias = Callable[[FloatArray, FloatArray], None]
"""Sets its second argument to the product with its first."""


def matmul(
    x: npt.ArrayLike, dtype: np.dtype[Any], shape: tuple[int, int], multiply: Multiply, multiply_batch: Multiply
) -> FloatArray:
    """Multiply a matrix ``(m, n)`` of `shape` with ``(n,)`` or ``(n, batch)``, as ``@`` does.

    Raises
    ------
    ArgumentError
        If x has another shape or is not of real numbers.
    """
    x = np.asarray(x)
    if x.ndim == 1:
        return _vector(x, dtype, shape, multiply)
    if x.ndim != 2 or x.shape[0] != shape[1]:
        mend = f"give ({shape[1]},) or ({shape[1]}, batch) for a matrix of shape {shape}"
        raise ArgumentError("x", f"has the shape {x.shape}", mend)
    return _product(x.T, dtype, (x.shape[1], shape[0]), multiply_batch).T


def apply(
    x: npt.ArrayLike, dtype: np.dtype[Any], shape: tuple[int, int], multiply: Multiply, multiply_batch: Multiply
) -> FloatArray:
    """Multiply ``(n,)`` or the rows of ``(batch, n)`` with a matrix ``(m, n)`` of `shape`, as a layer does.

    Raises
    ------
    ArgumentError
        If x has another shape or is not of real numbers.
    """
    x = np.asarray(x)
    if x.ndim == 1:
        return _vector(x, dtype, shape, multiply)
    if x.ndim != 2 or x.shape[1] != shape[1]:
        raise ArgumentError(
            "x", f"has the shape {x.shape}, a sample a row", f"give (batch, {shape[1]}) for a matrix of shape {shape}"
        )
    return _product(x, dtype, (len(x), shape[0]), multiply_batch)


def _vector(x: npt.NDArray[Any], dtype: np.dtype[Any], shape: tuple[int, int], multiply: Multiply) -> FloatArray:
    if x.shape != (shape[1],):
        raise ArgumentError("x", f"has the shape {x.shape}", f"give ({shape[1]},) for a matrix of shape {shape}")
    return _product(x, dtype, (shape[0],), multiply)


def _product(x: npt.NDArray[Any], dtype: np.dtype[Any], shape: tuple[int, ...], multiply: Multiply) -> FloatArray:
    """Return the product, of `shape`; an x that is not contiguous or of another type is copied."""
    y = np.empty(shape, dtype)
    if x.dtype == dtype and x.flags.c_contiguous:
        multiply(x, y)
        return y
    multiply(np.ascontiguousarray(as_floating("x", x), dtype), y)
    return y.astype(np.result_type(dtype, x.dtype), copy=False)
