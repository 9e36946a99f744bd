"""From any vector or batch that a user gives to the contiguous arrays that a kernel takes."""

from collections.abc import Callable
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

from hmatrix._validation import FloatArray, as_floating
from hmatrix.errors import ArgumentError

Multiply: TypeAlias = Callable[[FloatArray, FloatArray], None]
"""Sets its second argument to the product with its first."""


class Products:
    """The products with one matrix.

    Parameters
    ----------
    shape
        Of the matrix, ``(m, n)``.
    dtype
        Of what the kernel takes and gives.
    vector
        Multiplies ``(n,)`` to ``(m,)``, contiguous arrays of that type.
    batch
        Multiplies ``(batch, n)`` to ``(batch, m)``.
    """

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], vector: Multiply, batch: Multiply) -> None:
        self._shape, self._dtype, self._multiply, self._multiply_batch = shape, dtype, vector, batch
        self._rows, self._entries = shape[0], shape[1:]

    def takes(self, x: npt.ArrayLike) -> TypeGuard[FloatArray]:
        """Whether the kernel takes x as it is, as a vector ``(n,)``: small products have no time for more questions."""
        return type(x) is np.ndarray and x.shape == self._entries and x.dtype == self._dtype and x.flags.c_contiguous

    def matmul(self, x: npt.ArrayLike) -> FloatArray:
        """Multiply the matrix with ``(n,)`` or ``(n, batch)``, as ``@`` does.

        Raises
        ------
        ArgumentError
            If x has another shape or is not of real numbers.
        """
        x = np.asarray(x)
        if x.ndim == 1:
            return self.apply(x)
        m, n = self._shape
        if x.ndim != 2 or x.shape[0] != n:
            mend = f"give ({n},) or ({n}, batch) for a matrix of shape {(m, n)}"
            raise ArgumentError("x", f"has the shape {x.shape}", mend)
        return self._product(x.T, (x.shape[1], m), self._multiply_batch).T

    def apply(self, x: npt.ArrayLike) -> FloatArray:
        """Multiply ``(n,)`` or the rows of ``(batch, n)``, as a layer does.

        Raises
        ------
        ArgumentError
            If x has another shape or is not of real numbers.
        """
        if self.takes(x):
            y = np.empty(self._rows, self._dtype)
            self._multiply(x, y)
            return y
        x = np.asarray(x)
        if x.ndim == 1:
            return self._vector(x)
        m, n = self._shape
        if x.ndim != 2 or x.shape[1] != n:
            mend = f"give (batch, {n}) for a matrix of shape {(m, n)}"
            raise ArgumentError("x", f"has the shape {x.shape}, a sample a row", mend)
        return self._product(x, (len(x), m), self._multiply_batch)

    def _vector(self, x: npt.NDArray[Any]) -> FloatArray:
        m, n = self._shape
        if x.shape != (n,):
            raise ArgumentError("x", f"has the shape {x.shape}", f"give ({n},) for a matrix of shape {(m, n)}")
        return self._product(x, (m,), self._multiply)

    def _product(self, x: npt.NDArray[Any], shape: tuple[int, ...], multiply: Multiply) -> FloatArray:
        """Return the product, of `shape`; an x that is not contiguous or of another type is copied."""
        y = np.empty(shape, self._dtype)
        if x.dtype == self._dtype and x.flags.c_contiguous:
            multiply(x, y)
            return y
        multiply(np.ascontiguousarray(as_floating("x", x), self._dtype), y)
        return y.astype(np.result_type(self._dtype, x.dtype), copy=False)
