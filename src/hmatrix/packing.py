"""From the leaves of a partition to their packed form."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hmatrix._validation import FloatArray, IndexArray
from hmatrix.errors import ArgumentError
from hmatrix.lowrank import LowRank
from hmatrix.packed import PackedBlocks, overlaps, panel_words
from hmatrix.panels import Run, Stage
from hmatrix.precision import Precision, encode, to_words
from hmatrix.schedule import (
    DENSE,
    GROUP,
    LONGEST_RUN,
    PRECISION,
    build_schedule,
)


@dataclass(frozen=True, eq=False)
class PackedLeaf:
    """A leaf to be packed.

    Parameters
    ----------
    rows, columns
        Ranges of tree positions.
    block
        The dense block ``(m, n)``, or its low-rank factors.
    precision
        Of its coefficients as they are stored; ``None`` is that of the block's own type.
    group
        Columns of the block, or of U and of V^T, that share a scale; 0 is all. For integer precisions.
    """

    rows: slice
    columns: slice
    block: FloatArray | LowRank
    precision: Precision | None = None
    group: int = 0

    @property
    def stored(self) -> Precision:
        """The precision in which coefficients are stored."""
        if self.precision is not None:
            return self.precision
        return Precision.of(self.block.U.dtype if isinstance(self.block, LowRank) else self.block.dtype)

    @property
    def rank(self) -> int:
        """Rank of the factors, or `DENSE`."""
        return self.block.rank if isinstance(self.block, LowRank) else DENSE


def pack(
    shape: tuple[int, int],
    leaves: Sequence[PackedLeaf],
    row_permutation: IndexArray | None = None,
    column_permutation: IndexArray | None = None,
    *,
    quantized: bool = False,
) -> PackedBlocks:
    """Pack the leaves of a partition; permutations that change nothing are dropped.

    Parameters
    ----------
    shape
        Of the matrix, ``(m, n)``.
    leaves
        The leaves, in tree order.
    row_permutation, column_permutation
        ``permutation[tree position] = original index``.
    quantized
        Whether the product quantises activations to int8 where they meet integer codes.

    Raises
    ------
    ArgumentError
        If the leaves are no partition, have another shape than they say, or have NaN or infinity in them.
    """
    table = np.array([_row(leaf) for leaf in leaves], dtype=np.int32).reshape(-1, GROUP + 1)
    schedule = build_schedule(shape, table, quantized=quantized)
    is_double = bool((table[:, PRECISION] == Precision.FLOAT64).any())
    data = np.empty(schedule.words, np.float64 if is_double else np.uint32)
    for number, leaf in enumerate(leaves):
        block = leaf.block
        if isinstance(block, LowRank):
            U, V = _balanced(block) if leaf.stored.is_integer else (block.U, block.V)
            start = schedule.starts[number]
            _write(data, schedule.far, start, _Coefficients(V.T, leaf), None)
        else:
            U = block
        _write(data, schedule.near, leaf.rows.start, _Coefficients(U, leaf), number)
    rows, columns = _unless_identity(row_permutation), _unless_identity(column_permutation)
    return PackedBlocks(shape, table, data, quantized, rows, columns)


class _Coefficients:
    """A matrix ``(m, n)`` of a leaf as words, encoded once."""

    def __init__(self, matrix: FloatArray, leaf: PackedLeaf) -> None:
        self.rows = len(matrix)
        floats = np.dtype(np.float64 if leaf.stored is Precision.FLOAT64 else np.float32)
        with np.errstate(over="ignore"):
            finite = np.isfinite(matrix.astype(floats, copy=False)).all()
        if not finite:
            raise ArgumentError("leaf", f"has NaN or infinity in it, as {floats}", "give finite numbers")
        self._group = min(leaf.group or LONGEST_RUN, LONGEST_RUN)
        self._units: npt.NDArray[Any] = matrix
        if leaf.stored.is_integer:
            encoded = encode(matrix, leaf.stored, self._group)
            self._units, self._scales = encoded.codes, encoded.scales

    def words(self, run: Run, rows: slice) -> Iterator[npt.NDArray[Any]]:
        """Iterate over what a run holds of some rows, ``(rows, words)``: scales where a group begins, then columns."""
        if run.begins:
            yield self._scales[rows, run.column // self._group, None].copy().view(np.uint32)
        yield to_words(self._units[rows, run.column : run.column + run.length], run.precision)


def _write(data: npt.NDArray[Any], stage: Stage, first: int, coefficients: _Coefficients, leaf: int | None) -> None:
    """Write rows of a stage, from target `first` on; those of one leaf alone if it is named."""
    for panel, rows, part in overlaps(stage, first, first + coefficients.rows):
        words = panel_words(data, panel)
        column = 0
        for run in panel.runs:
            if leaf is None or run.leaf == leaf:
                for piece in coefficients.words(run, part):
                    words[rows, column : column + piece.shape[1]] = piece
                    column += piece.shape[1]
            else:
                column += run.words()


def _balanced(block: LowRank) -> tuple[FloatArray, FloatArray]:
    """Return factors of the same product, the columns of U of norm 1: the rows of V^T have scales of their own."""
    norms = np.linalg.norm(block.U.astype(np.float64), axis=0).astype(block.U.dtype)
    norms[norms == 0] = 1
    return block.U / norms, block.V * norms


def _row(leaf: PackedLeaf) -> tuple[int, ...]:
    expected = (leaf.rows.stop - leaf.rows.start, leaf.columns.stop - leaf.columns.start)
    if leaf.block.shape != expected:
        raise ArgumentError("leaf", f"has a block of shape {leaf.block.shape}", f"give {expected}, as its ranges say")
    return (
        leaf.rows.start,
        leaf.rows.stop,
        leaf.columns.start,
        leaf.columns.stop,
        leaf.rank,
        leaf.stored,
        leaf.group,
    )


def _unless_identity(permutation: IndexArray | None) -> IndexArray | None:
    if permutation is None or np.array_equal(permutation, np.arange(len(permutation))):
        return None
    return permutation
