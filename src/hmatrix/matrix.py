"""The hierarchical matrix."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from hmatrix._validation import FloatArray, as_floating
from hmatrix.errors import ArgumentError
from hmatrix.kernels import Product, prepare
from hmatrix.lowrank import LowRank
from hmatrix.packed import PackedBlocks, PackedLeaf, pack
from hmatrix.schedule import DENSE


@dataclass(frozen=True)
class Storage:
    """Bytes of a matrix by part.

    Parameters
    ----------
    near_field, far_field
        Bytes of the dense leaves, and of the factors of the low-rank ones.
    index
        Bytes of everything else that the product needs: the table of leaves, the schedule, permutations.
    uncompressed
        Bytes of the dense matrix in the same precision.
    """

    near_field: int
    far_field: int
    index: int
    uncompressed: int

    @property
    def total(self) -> int:
        """All bytes that the product needs."""
        return self.near_field + self.far_field + self.index

    @property
    def ratio(self) -> float:
        """`total` as a fraction of `uncompressed`."""
        return self.total / self.uncompressed


@dataclass(frozen=True, eq=False)
class Leaf:
    """A leaf of the partition; its coefficients are unpacked when they are asked for.

    Parameters
    ----------
    rows, columns
        Ranges of tree positions.
    rank
        Of a low-rank leaf; ``None`` for a dense one.
    """

    rows: slice
    columns: slice
    rank: int | None
    _packed: PackedBlocks
    _number: int

    @property
    def block(self) -> FloatArray | LowRank:
        """The dense block ``(m, n)``, or the low-rank factors; a copy."""
        return self._packed.dense(self._number) if self.rank is None else self._packed.low_rank(self._number)


class HMatrix:
    """A matrix whose leaves are dense or of low rank.

    ``H @ x`` and ``H.T @ y`` work as for an array: x is ``(n,)`` or ``(n, batch)``. `apply` has the
    layout of a layer. Products are computed in the type of the coefficients and returned in the type
    that NumPy gives to a product of the two. An H-matrix never changes.

    Parameters
    ----------
    packed
        Its leaves in packed form.
    """

    # NumPy arrays on the left must leave the product to us.
    __array_ufunc__ = None

    def __init__(self, packed: PackedBlocks) -> None:
        self._packed = packed

    @classmethod
    def from_leaves(
        cls,
        shape: tuple[int, int],
        leaves: list[PackedLeaf],
        row_permutation: npt.NDArray[np.int32] | None = None,
        column_permutation: npt.NDArray[np.int32] | None = None,
    ) -> Self:
        """Make an H-matrix of leaves that partition it; see `hmatrix.packed.pack`."""
        return cls(pack(shape, leaves, row_permutation, column_permutation))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, ``(m, n)``."""
        return self._packed.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the coefficients."""
        return self._packed.dtype

    @property
    def ndim(self) -> int:
        """Always 2."""
        return 2

    def leaves(self) -> Iterator[Leaf]:
        """Iterate over the leaves in tree order."""
        for number, (first, end, left, right, rank) in enumerate(self._packed.leaves.tolist()):
            yield Leaf(slice(first, end), slice(left, right), None if rank == DENSE else rank, self._packed, number)

    @property
    def far_field(self) -> tuple[Leaf, ...]:
        """The low-rank leaves."""
        return tuple(leaf for leaf in self.leaves() if leaf.rank is not None)

    @property
    def near_field(self) -> tuple[Leaf, ...]:
        """The dense leaves."""
        return tuple(leaf for leaf in self.leaves() if leaf.rank is None)

    def pack(self) -> PackedBlocks:
        """Return the packed form, which is shared and must not be changed."""
        return self._packed

    def storage(self) -> Storage:
        """Return the bytes by part."""
        table = self._packed.leaves.astype(np.int64)
        rows, columns, ranks = table[:, 1] - table[:, 0], table[:, 3] - table[:, 2], table[:, 4]
        dense = ranks == DENSE
        size = self.dtype.itemsize
        return Storage(
            near_field=int((rows * columns)[dense].sum()) * size,
            far_field=int(((rows + columns) * ranks)[~dense].sum()) * size,
            index=self._packed.index_nbytes,
            uncompressed=self.shape[0] * self.shape[1] * size,
        )

    def to_dense(self) -> FloatArray:
        """Return the matrix as an array ``(m, n)``."""
        m, n = self.shape
        tree_order = np.empty((m, n), self.dtype)
        for leaf in self.leaves():
            block = leaf.block
            tree_order[leaf.rows, leaf.columns] = block.to_dense() if isinstance(block, LowRank) else block
        rows, columns = self._packed.row_permutation, self._packed.column_permutation
        matrix = np.empty_like(tree_order)
        matrix[np.ix_(np.arange(m) if rows is None else rows, np.arange(n) if columns is None else columns)] = (
            tree_order
        )
        return matrix

    def astype(self, dtype: npt.DTypeLike) -> "HMatrix":
        """Return the matrix with coefficients in float32 or float64; itself where they are so already."""
        wanted = np.dtype(dtype)
        if wanted not in (np.float32, np.float64):
            raise ArgumentError("dtype", f"got {wanted}", "give float32 or float64")
        if wanted == self.dtype:
            return self
        packed = self._packed
        data = packed.data.astype(wanted)
        return HMatrix(
            PackedBlocks(packed.shape, packed.leaves, data, packed.row_permutation, packed.column_permutation)
        )

    @property
    def T(self) -> "TransposedHMatrix":
        """The transpose; it shares the coefficients."""
        return TransposedHMatrix(self)

    def __matmul__(self, x: npt.ArrayLike) -> FloatArray:
        x = np.asarray(x)
        if x.ndim == 1:
            return _vector_product(x, self.dtype, self.shape, self._product.multiply)
        return _batch_product(x.T, self.dtype, self.shape, self._product.multiply_batch).T

    def apply(self, x: npt.ArrayLike) -> FloatArray:
        """Return the product in the layout of a layer.

        Parameters
        ----------
        x
            ``(batch, n)``, or ``(n,)``.

        Returns
        -------
        ndarray
            ``x @ A.T``: ``(batch, m)``, or ``(m,)``.

        Raises
        ------
        ArgumentError
            If x has another shape or is not of real numbers.
        """
        x = np.asarray(x)
        if x.ndim == 1:
            return self @ x
        return _batch_product(x, self.dtype, self.shape, self._product.multiply_batch)

    @cached_property
    def _product(self) -> Product:
        """What multiplies: prepared when it is first used."""
        return prepare(self._packed)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._packed,)

    def __repr__(self) -> str:
        ranks = self._packed.leaves[:, 4]
        low = int(np.count_nonzero(ranks != DENSE))
        return (
            f"HMatrix(shape={self.shape}, dtype={self.dtype}, leaves: {len(ranks) - low} dense and {low} of low rank "
            f"(at most {max(int(ranks.max()), 0)}), "
            f"storage: {self.storage().ratio:.1%} of dense)"
        )


class TransposedHMatrix:
    """The transpose of an H-matrix, sharing its coefficients."""

    __array_ufunc__ = None

    def __init__(self, matrix: HMatrix) -> None:
        self._matrix = matrix

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, ``(n, m)`` for the transpose of ``(m, n)``."""
        m, n = self._matrix.shape
        return n, m

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the coefficients."""
        return self._matrix.dtype

    @property
    def T(self) -> HMatrix:
        """The H-matrix itself."""
        return self._matrix

    def to_dense(self) -> FloatArray:
        """Return the matrix as an array ``(n, m)``."""
        return self._matrix.to_dense().T

    def __matmul__(self, x: npt.ArrayLike) -> FloatArray:
        x = np.asarray(x)
        product = self._matrix._product
        if x.ndim == 1:
            return _vector_product(x, self.dtype, self.shape, product.multiply_transposed)
        return _batch_product(x.T, self.dtype, self.shape, product.multiply_transposed_batch).T

    def apply(self, x: npt.ArrayLike) -> FloatArray:
        """Return ``x @ A``, ``(batch, n)`` for x ``(batch, m)``, A being the matrix that this is the transpose of."""
        x = np.asarray(x)
        if x.ndim == 1:
            return self @ x
        return _batch_product(x, self.dtype, self.shape, self._matrix._product.multiply_transposed_batch)

    def __repr__(self) -> str:
        return f"{self._matrix!r}.T"


def _vector_product(
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
    x = as_floating("x", x)
    multiply(np.ascontiguousarray(x, dtype), y)
    return y.astype(np.result_type(dtype, x.dtype), copy=False)


def _batch_product(
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
    x = as_floating("x", x)
    y = np.empty((len(x), shape[0]), dtype)
    multiply(np.ascontiguousarray(x, dtype), y)
    return y.astype(np.result_type(dtype, x.dtype), copy=False)
