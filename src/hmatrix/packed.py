"""The packed form: what the kernel streams is what the file and the state dict hold."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hmatrix._validation import FloatArray, IndexArray, check_shape
from hmatrix.errors import ArgumentError
from hmatrix.lowrank import LowRank
from hmatrix.schedule import DENSE, Panel, Schedule, Stage, build_schedule


@dataclass(frozen=True, eq=False)
class PackedLeaf:
    """A leaf to be packed.

    Parameters
    ----------
    rows, columns
        Ranges of tree positions.
    block
        The dense block ``(m, n)``, or its low-rank factors.
    """

    rows: slice
    columns: slice
    block: FloatArray | LowRank

    @property
    def rank(self) -> int:
        """Rank of the factors, or `DENSE`."""
        return self.block.rank if isinstance(self.block, LowRank) else DENSE


@dataclass(frozen=True, eq=False)
class PackedBlocks:
    """All blocks of an H-matrix in flat arrays, checked once and for all.

    Parameters
    ----------
    shape
        Of the matrix, ``(m, n)``.
    leaves
        int32 ``(leaves, 5)``: first and end row, first and end column in tree order, and the rank, -1
        for a dense leaf. They are a partition of the matrix.
    data
        float32 or float64: the panels of the schedule, one after the other.
    row_permutation, column_permutation
        ``permutation[tree position] = original index``, int32; ``None`` where the two are the same.

    Raises
    ------
    ArgumentError
        If anything does not fit: types, sizes, a partition with gaps or overlaps, an index array that
        is no permutation, or data that are not finite.
    """

    shape: tuple[int, int]
    leaves: IndexArray
    data: FloatArray
    row_permutation: IndexArray | None = None
    column_permutation: IndexArray | None = None

    def __post_init__(self) -> None:
        check_shape("shape", self.shape)
        if max(self.shape) > np.iinfo(np.int32).max:
            raise ArgumentError("shape", f"got {self.shape}", "stay below 2^31 rows and columns")
        if self.leaves.dtype != np.int32:
            raise ArgumentError("leaves", f"have the type {self.leaves.dtype}", "give int32")
        if self.data.dtype not in (np.float32, np.float64):
            raise ArgumentError("data", f"have the type {self.data.dtype}", "give float32 or float64")
        expected = self.schedule.elements
        if self.data.shape != (expected,) or not self.data.flags.c_contiguous:
            raise ArgumentError("data", f"have the shape {self.data.shape}", f"give ({expected},), contiguous")
        if not np.isfinite(self.data).all():
            raise ArgumentError("data", "have NaN or infinity in them", "give finite numbers")
        for name, size, permutation in (
            ("row_permutation", self.shape[0], self.row_permutation),
            ("column_permutation", self.shape[1], self.column_permutation),
        ):
            if permutation is not None:
                _check_permutation(name, permutation, size)

    @cached_property
    def schedule(self) -> Schedule:
        """The order in which `data` are streamed."""
        return build_schedule(self.shape, self.leaves)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the entries."""
        return self.data.dtype

    @property
    def index_nbytes(self) -> int:
        """Bytes of all that the product needs beside the coefficients."""
        permutations = [p.nbytes for p in (self.row_permutation, self.column_permutation) if p is not None]
        return self.leaves.nbytes + self.schedule.nbytes + sum(permutations)

    def panel(self, panel: Panel) -> FloatArray:
        """View a panel of the schedule as a matrix ``(height, width)``."""
        return _matrix(self.data, panel)

    def dense(self, leaf: int) -> FloatArray:
        """Return the block ``(m, n)`` of a dense leaf."""
        return self._near_columns(leaf)

    def low_rank(self, leaf: int) -> LowRank:
        """Return the factors of a low-rank leaf."""
        _, _, left, right, rank = self.leaves[leaf].tolist()
        U, V = self._near_columns(leaf), np.empty((right - left, rank), self.dtype)
        start = self.schedule.starts[leaf]
        for panel, rows, part in _overlaps(self.schedule.far, start, start + rank):
            V[:, part] = self.panel(panel)[rows].T
        return LowRank(U, V)

    def _near_columns(self, leaf: int) -> FloatArray:
        """Return what the second stage holds of a leaf: the dense block, or the factor U."""
        first, end, left, right, rank = self.leaves[leaf].tolist()
        block = np.empty((end - first, right - left if rank == DENSE else rank), self.dtype)
        for panel, rows, part in _overlaps(self.schedule.near, first, end):
            if leaf in panel.leaves:
                block[part] = self.panel(panel)[rows, _columns(panel, leaf)]
        return block


def pack(
    shape: tuple[int, int],
    leaves: Sequence[PackedLeaf],
    row_permutation: IndexArray | None = None,
    column_permutation: IndexArray | None = None,
) -> PackedBlocks:
    """Pack the leaves of a partition; permutations that change nothing are dropped.

    Parameters
    ----------
    shape
        Of the matrix, ``(m, n)``.
    leaves
        The leaves, in tree order; float32 or float64, the same for all.
    row_permutation, column_permutation
        ``permutation[tree position] = original index``.

    Raises
    ------
    ArgumentError
        If the leaves are no partition, or differ in type or shape from what they say.
    """
    table = np.array([_row(leaf) for leaf in leaves], dtype=np.int32).reshape(-1, 5)
    schedule = build_schedule(shape, table)
    blocks = [leaf.block for leaf in leaves]
    dtypes = {array.dtype for block in blocks for array in _arrays(block)}
    if len(dtypes) != 1:
        raise ArgumentError("leaves", f"have the types {sorted(map(str, dtypes))}", "give all of them one type")
    data = np.empty(schedule.elements, dtypes.pop())
    for leaf, block in enumerate(blocks):
        first, end, start = int(table[leaf, 0]), int(table[leaf, 1]), schedule.starts[leaf]
        left = block.U if isinstance(block, LowRank) else block
        for panel, rows, part in _overlaps(schedule.near, first, end):
            if leaf in panel.leaves:
                _matrix(data, panel)[rows, _columns(panel, leaf)] = left[part]
        if isinstance(block, LowRank):
            for panel, rows, part in _overlaps(schedule.far, start, start + block.rank):
                _matrix(data, panel)[rows] = block.V[:, part].T
    return PackedBlocks(shape, table, data, _unless_identity(row_permutation), _unless_identity(column_permutation))


def _row(leaf: PackedLeaf) -> tuple[int, int, int, int, int]:
    expected = (leaf.rows.stop - leaf.rows.start, leaf.columns.stop - leaf.columns.start)
    if leaf.block.shape != expected:
        raise ArgumentError("leaf", f"has a block of shape {leaf.block.shape}", f"give {expected}, as its ranges say")
    return leaf.rows.start, leaf.rows.stop, leaf.columns.start, leaf.columns.stop, leaf.rank


def _arrays(block: FloatArray | LowRank) -> tuple[FloatArray, ...]:
    return (block.U, block.V) if isinstance(block, LowRank) else (block,)


def _matrix(data: FloatArray, panel: Panel) -> FloatArray:
    """View a panel in the data as a matrix ``(height, width)``."""
    return data[panel.offset : panel.end].reshape(panel.width, panel.height).T


def _columns(panel: Panel, leaf: int) -> slice:
    """Return the columns of a panel that belong to `leaf`."""
    position = panel.leaves.index(leaf)
    start = sum(length for _, length in panel.runs[:position])
    return slice(start, start + panel.runs[position][1])


def _overlaps(stage: Stage, first: int, end: int) -> Iterator[tuple[Panel, slice, slice]]:
    """Iterate over the panels with rows in ``first:end``; also give those rows in the panel, and in the range."""
    number = max(bisect_right(stage.panels, first, key=lambda panel: panel.target) - 1, 0)
    while first < end and number < len(stage.panels) and (panel := stage.panels[number]).target < end:
        number += 1
        start, stop = max(first, panel.target), min(end, panel.target + panel.height)
        yield panel, slice(start - panel.target, stop - panel.target), slice(start - first, stop - first)


def _unless_identity(permutation: IndexArray | None) -> IndexArray | None:
    if permutation is None or np.array_equal(permutation, np.arange(len(permutation))):
        return None
    return permutation


def _check_permutation(name: str, permutation: IndexArray, size: int) -> None:
    if permutation.dtype != np.int32 or permutation.shape != (size,):
        raise ArgumentError(name, f"is {permutation.dtype} {permutation.shape}", f"give int32 ({size},)")
    if permutation.min() < 0 or permutation.max() >= size or (np.bincount(permutation, minlength=size) != 1).any():
        raise ArgumentError(name, "is no permutation", f"give each of 0 to {size - 1} once")
