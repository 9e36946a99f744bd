"""The packed form, made of leaves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hmatrix._support.checks import as_array
from hmatrix._support.memory import aligned
from hmatrix._support.typing import AnyArray, Codes, FloatArray, Floats32, IndexArray
from hmatrix.codes.encoding import Encoded, encode
from hmatrix.codes.precision import Precision, to_words
from hmatrix.errors import ArgumentError
from hmatrix.lowrank.factors import LowRank
from hmatrix.packed.packed_blocks import PackedBlocks, overlaps, panel_words
from hmatrix.packed.panels import Run, Stage
from hmatrix.packed.schedule import (
    DENSE,
    GROUP,
    LONGEST_RUN,
    PRECISION,
    build_schedule,
)


@dataclass(frozen=True, eq=False)
class EncodedLowRank:
    """The block ``U @ Vt`` in integer codes.

    Parameters
    ----------
    U
        ``(m, k)``.
    Vt
        ``(k, n)``.
    """

    U: Encoded
    Vt: Encoded

    @property
    def rank(self) -> int:
        """Columns of U."""
        return self.U.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the block."""
        return self.U.shape[0], self.Vt.shape[1]


@dataclass(frozen=True, eq=False)
class PackedLeaf:
    """A leaf to be packed.

    Parameters
    ----------
    rows, columns
        Ranges of tree positions.
    block
        The dense block ``(m, n)``, or its low-rank factors; or either of them, encoded already.
    precision
        Precision of its coefficients as they are stored; ``None`` is that of the block's own type, or of its codes.
    group
        Columns of the block, or of U and of V^T, that share a scale; 0 is all. For integer precisions.
    """

    rows: slice
    columns: slice
    block: FloatArray | LowRank | Encoded | EncodedLowRank
    precision: Precision | None = None
    group: int = 0

    @property
    def stored(self) -> Precision:
        """The precision in which coefficients are stored."""
        if self.precision is not None:
            return self.precision
        block = self.block
        some = block.U if isinstance(block, LowRank | EncodedLowRank) else block
        return some.precision if isinstance(some, Encoded) else Precision.of(some.dtype)

    @property
    def rank(self) -> int:
        """Rank of the factors, or `DENSE`."""
        return self.block.rank if isinstance(self.block, LowRank | EncodedLowRank) else DENSE


def pack(
    shape: tuple[int, int],
    leaves: Sequence[PackedLeaf],
    row_permutation: IndexArray | None = None,
    column_permutation: IndexArray | None = None,
    *,
    quantized: bool = False,
) -> PackedBlocks:
    """Pack leaves whose sum is the matrix; permutations that change nothing are dropped.

    Parameters
    ----------
    shape
        Shape of the matrix, ``(m, n)``.
    leaves
        The leaves, in tree order; they cover the matrix, and may overlap.
    row_permutation, column_permutation
        ``permutation[tree position] = original index``.
    quantized
        Whether the product quantises activations to int8 where they meet integer codes.

    Raises
    ------
    ArgumentError
        If the leaves leave a gap, have another shape than they say, or have NaN or infinity in them.
    """
    table = np.array([_row(leaf) for leaf in leaves], dtype=np.int32).reshape(-1, GROUP + 1)
    schedule = build_schedule(shape, table, quantized=quantized)
    is_double = bool((table[:, PRECISION] == Precision.FLOAT64).any())
    data = aligned(np.empty(schedule.words, np.float64 if is_double else np.uint32))
    for number, leaf in enumerate(leaves):
        block = leaf.block
        near: FloatArray | Encoded
        far: FloatArray | Encoded | None = None
        if isinstance(block, LowRank):
            U, V = _balanced(block) if leaf.stored.is_integer else (block.U, block.V)
            near, far = U, V.T
        elif isinstance(block, EncodedLowRank):
            near, far = block.U, block.Vt
        else:
            near = block
        if far is not None:
            _write(data, schedule.far, schedule.starts[number], _Coefficients(far, leaf), None)
        _write(data, schedule.near, leaf.rows.start, _Coefficients(near, leaf), number)
    rows, columns = _unless_identity(row_permutation), _unless_identity(column_permutation)
    return PackedBlocks(shape, table, data, quantized, rows, columns, known=schedule)


class _Coefficients:
    """A matrix ``(m, n)`` of a leaf as words, encoded once."""

    def __init__(self, matrix: FloatArray | Encoded, leaf: PackedLeaf) -> None:
        self._group = min(leaf.group or LONGEST_RUN, LONGEST_RUN)
        self._units: AnyArray
        if isinstance(matrix, Encoded):
            self.rows = matrix.shape[0]
            self._units, self._scales = _checked(matrix, leaf, self._group)
            return
        matrix = as_array("leaf", matrix)
        self.rows = len(matrix)
        floats = np.dtype(np.float64 if leaf.stored is Precision.FLOAT64 else np.float32)
        with np.errstate(over="ignore"):
            finite = np.isfinite(matrix.astype(floats, copy=False)).all()
        if not finite:
            raise ArgumentError("leaf", f"has NaN or infinity in it, as {floats}", "give finite numbers")
        self._units = matrix
        if leaf.stored.is_integer:
            encoded = encode(matrix, leaf.stored, self._group)
            self._units, self._scales = encoded.codes, encoded.scales

    def words(self, run: Run, rows: slice) -> Iterator[AnyArray]:
        """Iterate over words of some rows in a run, ``(rows, words)``: scales where a group begins, then columns."""
        if run.begins:
            yield self._scales[rows, run.column // self._group, None].copy().view(np.uint32)
        yield to_words(self._units[rows, run.column : run.column + run.length], run.precision)


def _checked(matrix: Encoded, leaf: PackedLeaf, group: int) -> tuple[Codes, Floats32]:
    """Return the codes and scales of an encoded matrix, which must agree with the leaf."""
    m, n = matrix.shape
    expected = (m, -(-n // group))
    if matrix.precision is not leaf.stored or matrix.scales.shape != expected:
        came = f"has codes of {matrix.precision.name.lower()} with scales of shape {matrix.scales.shape}"
        raise ArgumentError("leaf", came, f"give {leaf.stored.name.lower()} with scales of shape {expected}")
    if not np.isfinite(matrix.scales).all() or matrix.codes.max(initial=0) >= 2**matrix.precision.bits:
        raise ArgumentError("leaf", "has scales that are not finite, or codes too large", "give what encode returns")
    return matrix.codes, matrix.scales


def _write(data: AnyArray, stage: Stage, first: int, coefficients: _Coefficients, leaf: int | None) -> None:
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
