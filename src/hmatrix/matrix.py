"""The hierarchical matrix."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from hmatrix._support.ranges import largest_of
from hmatrix._support.typing import FloatArray, IndexArray
from hmatrix.codes.precision import Activations, Precision
from hmatrix.errors import ArgumentError
from hmatrix.lowrank.factors import LowRank
from hmatrix.packed.kernels import Product, prepare
from hmatrix.packed.outliers import with_outliers_apart
from hmatrix.packed.packed_blocks import PackedBlocks
from hmatrix.packed.packing import PackedLeaf, pack
from hmatrix.packed.products import Operator, Products
from hmatrix.packed.schedule import DENSE, GROUP, PRECISION, RANK
from hmatrix.packed.storage import Storage


@dataclass(frozen=True, eq=False)
class Leaf:
    """A block, whose entries add to those of leaves that overlap with it; it is unpacked when it is read.

    Parameters
    ----------
    rows, columns
        Ranges of tree positions.
    rank
        Rank of a low-rank leaf; ``None`` for a dense one.
    precision
        Precision of its coefficients.

    Examples
    --------
    >>> H = hm.build(np.random.default_rng(0).standard_normal((200, 200)), truncation=hm.Truncation(max_rank=5))
    >>> leaf = next(leaf for leaf in H.leaves() if leaf.rank is not None)
    >>> leaf.rank, leaf.block.V.shape[0] == leaf.columns.stop - leaf.columns.start
    (5, True)
    """

    rows: slice
    columns: slice
    rank: int | None
    precision: Precision
    _packed: PackedBlocks = field(repr=False)
    _number: int = field(repr=False)

    @property
    def block(self) -> FloatArray | LowRank:
        """The dense block ``(m, n)``, or the low-rank factors; a copy, decoded."""
        return self._packed.block(self._number)


class HMatrix(Operator):
    """A matrix that is the sum of its leaves, which are dense or of low rank.

    ``H @ x``, ``H.T @ y`` and ``y @ H`` work as for an array: x is ``(n,)`` or ``(n, batch)``. `apply` has the
    layout of a layer. ``np.asarray(H)`` is the dense array. Products are computed in the type of the coefficients
    and returned in the type that NumPy gives to a product of the two. An H-matrix never changes.

    Parameters
    ----------
    packed
        Its leaves in packed form.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> weight, x = rng.standard_normal((150, 100)), rng.standard_normal(100)
    >>> H = hm.build(weight, truncation=hm.Truncation(rtol=1e-6))
    >>> np.allclose(H @ x, weight @ x), np.allclose(H.T @ (H @ x), weight.T @ (weight @ x))
    (True, True)
    >>> H.astype("int8").storage().ratio < 0.4
    True
    """

    def __init__(self, packed: PackedBlocks) -> None:
        self._packed = packed

    @classmethod
    def from_leaves(
        cls,
        shape: tuple[int, int],
        leaves: Sequence[PackedLeaf],
        row_permutation: IndexArray | None = None,
        column_permutation: IndexArray | None = None,
        *,
        activations: Activations | str = Activations.EXACT,
    ) -> Self:
        """Make an H-matrix of leaves that cover it; see `hmatrix.packed.packing.pack`."""
        quantized = Activations.of(activations) is Activations.INT8
        return cls(pack(shape, leaves, row_permutation, column_permutation, quantized=quantized))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, ``(m, n)``."""
        return self._packed.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type in which products are computed: float64 for coefficients of float64, else float32."""
        return self._packed.dtype

    @property
    def activations(self) -> Activations:
        """Treatment of a product's input where it meets integer codes."""
        return Activations.INT8 if self._packed.quantized else Activations.EXACT

    def leaves(self) -> Iterator[Leaf]:
        """Iterate over the leaves in tree order."""
        for number, (first, end, left, right, rank, precision, _) in enumerate(self._packed.leaves.tolist()):
            kind = None if rank == DENSE else rank
            yield Leaf(slice(first, end), slice(left, right), kind, Precision(precision), self._packed, number)

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
        packed = self._packed
        near = packed.dense_words * packed.data.itemsize
        return Storage(
            near_field=near,
            far_field=packed.data.nbytes - near,
            index=packed.index_nbytes,
            uncompressed=self.shape[0] * self.shape[1] * self.dtype.itemsize,
        )

    def to_dense(self) -> FloatArray:
        """Return the matrix as an array ``(m, n)``."""
        m, n = self.shape
        tree_order = np.zeros((m, n), self.dtype)
        for leaf in self.leaves():
            block = leaf.block
            tree_order[leaf.rows, leaf.columns] += block.to_dense() if isinstance(block, LowRank) else block
        rows, columns = self._packed.row_permutation, self._packed.column_permutation
        matrix = np.empty_like(tree_order)
        matrix[np.ix_(np.arange(m) if rows is None else rows, np.arange(n) if columns is None else columns)] = (
            tree_order
        )
        return matrix

    def astype(
        self,
        precision: Precision | npt.DTypeLike,
        *,
        activations: Activations | str | None = None,
        group: int = 0,
    ) -> "HMatrix":
        """Return the matrix with all its leaves in another precision.

        Parameters
        ----------
        precision
            ``"float64"``, ``"float32"``, ``"bfloat16"``, ``"int8"``, ``"int4"``, ``"lloyd4"``, ``"trellis4"``,
            ``"trellis4p"``, ``"trellis3"``, ``"int2"``, ``"trellis2"``, ``"int1"`` or ``"trellis1"``.
        activations
            Treatment of a product's input where it meets integer codes: ``"exact"`` or ``"int8"``; ``None`` keeps the
            matrix's own.
        group
            Columns of a dense leaf, and of the factors U and V^T, that share a scale; 0 is all. For
            integer precisions.

        Raises
        ------
        ArgumentError
            If an argument cannot be used.
        """
        wanted = Precision.of(precision)
        how = self.activations if activations is None else Activations.of(activations)
        group = wanted.group(group)
        packed = self._packed
        same = (packed.leaves[:, PRECISION] == wanted).all() and (packed.leaves[:, GROUP] == group).all()
        if same and how is self.activations:
            return self
        blocks = [leaf.block for leaf in self.leaves()]
        if wanted is not Precision.of(self.dtype):
            wanted.check_holds("matrix", max(map(_largest, blocks), default=0.0))
        leaves = [
            part
            for leaf, block in zip(self.leaves(), blocks, strict=True)
            for part in with_outliers_apart(PackedLeaf(leaf.rows, leaf.columns, block, wanted, group))
        ]
        return HMatrix.from_leaves(
            self.shape, leaves, packed.row_permutation, packed.column_permutation, activations=how
        )

    @property
    def T(self) -> "TransposedHMatrix":
        """The transpose; it shares the coefficients."""
        return TransposedHMatrix(self)

    @cached_property
    def _product(self) -> Product:
        """The prepared product, made when it is first used."""
        return prepare(self._packed)

    @cached_property
    def _products(self) -> Products:
        return Products(self.shape, self.dtype, self._product.multiply, self._product.multiply_batch)

    @cached_property
    def _transposed_products(self) -> Products:
        product = self._product
        return Products(self.shape[::-1], self.dtype, product.multiply_transposed, product.multiply_transposed_batch)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._packed,)

    def __repr__(self) -> str:
        ranks = self._packed.leaves[:, RANK]
        counts = {
            "dense": int((ranks == DENSE).sum()),
            f"of low rank (at most {ranks.max()})": int((ranks > 0).sum()),
            "zero": int((ranks == 0).sum()),
        }
        leaves = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        precisions = (
            Precision(number).name.lower() for number in np.unique(self._packed.leaves[ranks != 0, PRECISION])
        )
        return (
            f"HMatrix(shape={self.shape}, dtype={self.dtype}, leaves: {leaves}, "
            f"stored in: {', '.join(precisions) or 'nothing'}, storage: {self.storage().ratio:.1%} of dense)"
        )


class TransposedHMatrix(Operator):
    """The transpose of an H-matrix, sharing its coefficients.

    Examples
    --------
    >>> weight = np.random.default_rng(0).standard_normal((30, 20)).astype(np.float32)
    >>> H = hm.quantize(weight, "float32")
    >>> H.T.shape, np.array_equal(H.T.to_dense(), weight.T)
    ((20, 30), True)
    """

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

    def to_hmatrix(self) -> HMatrix:
        """Return an H-matrix of its own, with the same coefficients.

        Raises
        ------
        ArgumentError
            If coefficients are integer codes: their scales belong to rows, and those of the transpose to columns.
        """
        matrix, packed = self._matrix, self._matrix.pack()
        leaves = []
        for leaf in matrix.leaves():
            block = leaf.block
            if leaf.precision.is_integer and leaf.rank != 0:
                came = f"is the transpose of {leaf.precision.name.lower()} codes, whose scales belong to rows"
                raise ArgumentError("matrix", came, "give H.astype('float32').T, or round the transposed weight anew")
            turned = LowRank(block.V, block.U) if isinstance(block, LowRank) else np.ascontiguousarray(block.T)
            leaves.append(PackedLeaf(leaf.columns, leaf.rows, turned, leaf.precision))
        return HMatrix.from_leaves(
            self.shape, leaves, packed.column_permutation, packed.row_permutation, activations=matrix.activations
        )

    @property
    def _products(self) -> Products:
        return self._matrix._transposed_products

    @property
    def _transposed_products(self) -> Products:
        return self._matrix._products

    def __repr__(self) -> str:
        return f"{self._matrix!r}.T"


def as_hmatrix(name: str, matrix: object) -> HMatrix:
    """Return an H-matrix as it is, or a transposed one as an H-matrix of its own.

    Raises
    ------
    ArgumentError
        If it is neither, or a transpose of integer codes.
    """
    if isinstance(matrix, TransposedHMatrix):
        return matrix.to_hmatrix()
    if not isinstance(matrix, HMatrix):
        mend = "give an H-matrix, as hmatrix.build, hmatrix.allocate and hmatrix.quantize make them"
        raise ArgumentError(name, f"is a {type(matrix).__name__}", mend)
    return matrix


def _largest(block: FloatArray | LowRank) -> float:
    """Return the largest magnitude of a block, or of that of its factors whose entries are smaller."""
    return min(map(largest_of, (block.U, block.V))) if isinstance(block, LowRank) else largest_of(block)
