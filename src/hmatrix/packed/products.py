"""Products of any vector or batch that a user gives, by kernels that take contiguous arrays."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

from hmatrix._support.checks import as_array, as_floating
from hmatrix._support.typing import AnyArray, FloatArray
from hmatrix.errors import ArgumentError

Multiply: TypeAlias = Callable[[FloatArray, FloatArray], None]
"""Function that sets its second argument to the product with its first."""


class Products:
    """The products with one matrix.

    Parameters
    ----------
    shape
        Shape of the matrix, ``(m, n)``.
    dtype
        Type of the arrays that the kernel takes and gives.
    vector
        Function that multiplies ``(n,)`` to ``(m,)``, contiguous arrays of that type.
    batch
        Function that multiplies ``(batch, n)`` to ``(batch, m)``.
    """

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], vector: Multiply, batch: Multiply) -> None:
        self._shape, self._dtype, self._multiply, self._multiply_batch = shape, dtype, vector, batch
        self._rows, self._entries = shape[0], shape[1:]

    def takes(self, x: npt.ArrayLike) -> TypeGuard[FloatArray]:
        """Whether the kernel takes x as it is, as a vector ``(n,)``: small products have no time for more questions."""
        return type(x) is np.ndarray and x.dtype is self._dtype and x.shape == self._entries and x.flags.c_contiguous

    def multiply(
        self, x: npt.ArrayLike, *, samples_are_columns: bool = False, named: tuple[int, int] | None = None
    ) -> FloatArray:
        """Multiply ``(n,)``, rows of ``(batch, n)`` as a layer does, or columns of ``(n, batch)`` as ``@`` does.

        Parameters
        ----------
        x
            The vector or batch.
        samples_are_columns
            Whether a batch is ``(n, batch)``.
        named
            The shape that a message names, where the user sees the matrix transposed.

        Raises
        ------
        ArgumentError
            If x has another shape or is not of real numbers.
        """
        if self.takes(x):
            y = np.empty(self._rows, self._dtype)
            self._multiply(x, y)
            return y
        if isinstance(x, Operator):
            raise ArgumentError("x", f"is a {type(x).__name__}", "give an array; H.to_dense() is one")
        x = as_array("x", x)
        m, n = self._shape
        if x.ndim == 2 and x.shape[0 if samples_are_columns else 1] == n:
            samples = x.T if samples_are_columns else x
            product = self._product(samples, (len(samples), m), self._multiply_batch)
            return product.T if samples_are_columns else product
        if x.shape != (n,):
            mend = f"give ({n},) or {f'({n}, batch)' if samples_are_columns else f'(batch, {n})'}"
            raise ArgumentError("x", f"has the shape {x.shape}", f"{mend} for a matrix of shape {named or (m, n)}")
        return self._product(x, (m,), self._multiply)

    def _product(self, x: AnyArray, shape: tuple[int, ...], multiply: Multiply) -> FloatArray:
        """Return the product, of `shape`; an x that is not contiguous or of another type is copied."""
        y = np.empty(shape, self._dtype)
        if x.dtype == self._dtype and x.flags.c_contiguous:
            multiply(x, y)
            return y
        multiply(np.ascontiguousarray(as_floating("x", x), self._dtype), y)
        return y.astype(np.result_type(self._dtype, x.dtype), copy=False)


class Operator(ABC):
    """The operators of Python, NumPy and SciPy, for a matrix that knows its products."""

    # NumPy arrays on the left must leave the product to us.
    __array_ufunc__ = None

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    @property
    @abstractmethod
    def _products(self) -> Products:
        """The products with the matrix."""

    @property
    @abstractmethod
    def _transposed_products(self) -> Products:
        """The products with its transpose."""

    @abstractmethod
    def to_dense(self) -> FloatArray:
        """Return the matrix as an array."""

    @property
    def ndim(self) -> int:
        """Always 2."""
        return 2

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> FloatArray:
        if copy is False:
            raise ArgumentError("copy", "is False", "leave it out: a dense array has to be made")
        dense = self.to_dense()
        return dense if dtype is None else dense.astype(dtype, copy=False)

    def __matmul__(self, x: npt.ArrayLike) -> FloatArray:
        return self._products.multiply(x, samples_are_columns=True)

    def __rmatmul__(self, x: npt.ArrayLike) -> FloatArray:
        return self._transposed_products.multiply(x, named=self.shape)

    def apply(self, x: npt.ArrayLike) -> FloatArray:
        """Return the product in the layout of a layer.

        Parameters
        ----------
        x
            ``(batch, n)`` or ``(n,)`` for a matrix A of shape ``(m, n)``.

        Returns
        -------
        ndarray
            ``x @ A.T``: ``(batch, m)``, or ``(m,)``.

        Raises
        ------
        ArgumentError
            If x has another shape or is not of real numbers.
        """
        return self._products.multiply(x)

    def matvec(self, x: npt.ArrayLike) -> FloatArray:
        """Return ``A @ x``; the name that `scipy.sparse.linalg.aslinearoperator` asks for, as the next three are."""
        return self @ x

    def matmat(self, X: npt.ArrayLike) -> FloatArray:
        """Return ``A @ X``."""
        return self @ X

    def rmatvec(self, y: npt.ArrayLike) -> FloatArray:
        """Return ``A.T @ y``."""
        return self._transposed_products.multiply(y, samples_are_columns=True)

    def rmatmat(self, Y: npt.ArrayLike) -> FloatArray:
        """Return ``A.T @ Y``."""
        return self.rmatvec(Y)
