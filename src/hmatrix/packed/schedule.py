"""The panels of a product, made of a table of leaves, and the check that the leaves cover the matrix."""

from collections import defaultdict
from itertools import pairwise

import numpy as np

from hmatrix._support.typing import FloatArray, Floats64, IndexArray
from hmatrix.codes.precision import Precision
from hmatrix.errors import ArgumentError
from hmatrix.packed.panels import PANEL_HEIGHT, Panel, Run, Schedule, Stage

DENSE = -1
"""Rank of a dense leaf in a table of leaves."""

LONGEST_RUN = 1 << 14
"""Columns of a run of integer codes at most, so that its sums stay within 32 bits."""

MOST_STRIPS = 10**8
"""Matrices cut into more strips of leaves than this are refused: only a hostile file holds one."""

MOST_ROWS = 1 << 26
"""Taller matrices are refused: their panels need no data where the rank is 0, but memory all the same."""

FIRST, END, LEFT, RIGHT, RANK, PRECISION, GROUP = range(7)
"""Columns of a table of leaves."""


def build_schedule(shape: tuple[int, int], leaves: IndexArray, *, quantized: bool = False) -> Schedule:
    """Return the schedule of a matrix that is the sum of its leaves, which are checked to cover it.

    Parameters
    ----------
    shape
        Shape of the matrix, ``(m, n)``.
    leaves
        int32 ``(leaves, 7)``: first and end row, first and end column, the rank or `DENSE`, the
        precision, and the columns that share a scale, 0 for all.
    quantized
        Whether activations are int8.

    Raises
    ------
    ArgumentError
        If a leaf lies outside the matrix, or the leaves leave a gap, or have precisions that do not
        go together.
    """
    _check_leaves(shape, leaves)
    ranks = leaves[:, RANK].clip(min=0).astype(np.int64)
    intermediate = int(ranks.sum())
    if intermediate + max(shape) > np.iinfo(np.int32).max:
        raise ArgumentError("leaves", f"have {intermediate} ranks in all", "stay below 2^31")
    if shape[0] > MOST_ROWS:
        raise ArgumentError("shape", f"has {shape[0]} rows", f"give at most {MOST_ROWS}")
    cutter = _Cutter(shape[1], leaves, quantized)
    far, starts = _far_stage(shape[1], leaves, cutter)
    near = _near_stage(shape, leaves, starts, cutter, far.panels[-1].end if far.panels else 0)
    return Schedule(far, near, starts, intermediate, cutter.segments())


def least_words(shape: tuple[int, int], leaves: IndexArray) -> float:
    """Return the least number of words of the data, which shows a hostile table before its schedule is made.

    Raises
    ------
    ArgumentError
        If a leaf lies outside the matrix.
    """
    _check_leaves(shape, leaves)
    rows, columns = ((leaves[:, end] - leaves[:, first]).astype(float) for first, end in ((FIRST, END), (LEFT, RIGHT)))
    ranks = leaves[:, RANK].astype(float)
    precisions = leaves[:, PRECISION]
    per_word = np.array([precision.per_word for precision in Precision])[precisions]
    per_block = np.array([precision.words(1) for precision in Precision])[precisions]
    groups = np.where(leaves[:, GROUP] == 0, LONGEST_RUN, leaves[:, GROUP]).clip(max=LONGEST_RUN)

    def words(length: Floats64) -> FloatArray:
        counts: FloatArray = per_block * np.ceil(length / per_word) + np.where(
            precisions >= Precision.INT8, np.ceil(length / groups), 0
        )
        return counts

    dense = rows * words(columns)
    return float(np.where(ranks == DENSE, dense, rows * words(ranks) + ranks * words(columns)).sum())


def _check_leaves(shape: tuple[int, int], leaves: IndexArray) -> None:
    if leaves.ndim != 2 or leaves.shape[1] != GROUP + 1 or not len(leaves):
        raise ArgumentError("leaves", f"have the shape {leaves.shape}", "give one row of seven numbers for each leaf")
    for side, size, first, end in (("row", shape[0], FIRST, END), ("column", shape[1], LEFT, RIGHT)):
        wrong = (leaves[:, first] < 0) | (leaves[:, first] >= leaves[:, end]) | (leaves[:, end] > size)
        if wrong.any():
            raise ArgumentError("leaves", f"leaf {np.argmax(wrong)} has a bad {side} range", f"stay within 0 to {size}")
    if (leaves[:, RANK] < DENSE).any():
        raise ArgumentError("leaves", f"have a rank of {leaves[:, RANK].min()}", f"give ranks, or {DENSE} for dense")
    precisions = leaves[:, PRECISION]
    if precisions.min() < 0 or precisions.max() >= len(Precision):
        raise ArgumentError("leaves", "have an unknown precision", "give numbers of hmatrix.Precision")
    if len(set((precisions == Precision.FLOAT64).tolist())) != 1:
        raise ArgumentError("leaves", "mix float64 with other precisions", "give all of them float64, or none")
    if leaves[:, GROUP].min() < 0:
        raise ArgumentError("leaves", f"have a group of {leaves[:, GROUP].min()}", "give columns, or 0 for all")


class _Cutter:
    """Cuts columns into runs: at groups with common scales, and at segments of the quantised source.

    Runs of a trellis must not be cut within a word: they meet segments of their own, which may overlap others.
    """

    def __init__(self, n: int, leaves: IndexArray, quantized: bool) -> None:
        self._segments: dict[tuple[int, int], int] = {}
        self._edges = np.empty(0, np.int64)
        self._quantized = quantized
        if quantized:
            is_cut = np.array([p.is_integer and p.trellis is None for p in Precision])[leaves[:, PRECISION]]
            codes = leaves[is_cut & (leaves[:, RANK] != 0)]
            edges = {edge for leaf in codes.tolist() for edge in _edges(leaf[LEFT], leaf[RIGHT], leaf[GROUP])}
            self._edges = np.array(sorted(edges), dtype=np.int64)
        self._n = n

    def runs(self, source: int, length: int, leaf: int, precision: Precision, group: int) -> tuple[Run, ...]:
        """Return the runs of `length` columns that meet the source from `source` on."""
        if not precision.is_integer:
            return (Run(source, length, leaf, 0, precision),)
        groups = set(_edges(source, source + length, group))
        edges = set(groups)
        if self._quantized and source < self._n and precision.trellis is None:
            edges |= set(
                self._edges[np.searchsorted(self._edges, source) : np.searchsorted(self._edges, source + length)]
            )
        ordered = sorted(int(edge) for edge in edges)
        return tuple(
            Run(
                first,
                end - first,
                leaf,
                first - source,
                precision,
                self._segment(first, end),
                first in groups,
                end in groups,
            )
            for first, end in pairwise(ordered)
        )

    def _segment(self, first: int, end: int) -> int:
        """Return the number of the segment ``first:end``, a new one where it is not known."""
        if not self._quantized:
            return -1
        return self._segments.setdefault((first, end), len(self._segments))

    def segments(self) -> IndexArray:
        """Return first entry and length of each segment, in order of their numbers."""
        table = [(first, end - first) for first, end in self._segments]
        return np.array(table, dtype=np.int32).reshape(-1, 2)


def _edges(first: int, end: int, group: int) -> list[int]:
    """Return where groups of columns begin, and the end of the last one."""
    return [*range(first, end, min(group or LONGEST_RUN, LONGEST_RUN)), end]


def _heights(total: int) -> list[tuple[int, int]]:
    """Cut `total` rows into panels: pairs of first row and height."""
    return [(first, min(PANEL_HEIGHT, total - first)) for first in range(0, total, PANEL_HEIGHT)]


def _far_stage(n: int, leaves: IndexArray, cutter: _Cutter) -> tuple[Stage, tuple[int, ...]]:
    """Return the first stage, and where the part of each leaf begins in t."""
    stacks: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for leaf, row in enumerate(leaves.tolist()):
        if row[RANK] > 0:
            stacks[row[LEFT], row[RIGHT], row[PRECISION], row[GROUP]].append(leaf)
    panels: list[Panel] = []
    starts = [-1] * len(leaves)
    target = offset = 0
    for left, right, precision, group in sorted(stacks):
        members = stacks[left, right, precision, group]
        runs = cutter.runs(left, right - left, members[0], Precision(precision), group)
        base = target
        for leaf in members:
            starts[leaf] = target
            target += int(leaves[leaf, RANK])
        for row, height in _heights(target - base):
            panels.append(Panel(base + row, height, offset, runs))
            offset = panels[-1].end
    return Stage(tuple(panels), n), tuple(starts)


def _near_stage(
    shape: tuple[int, int], leaves: IndexArray, starts: tuple[int, ...], cutter: _Cutter, offset: int
) -> Stage:
    """Return the second stage; `offset` is where its data begin."""
    m, n = shape
    boundaries = np.unique(leaves[:, : END + 1])
    if boundaries[0] != 0 or boundaries[-1] != m:
        raise ArgumentError("leaves", f"cover rows {boundaries[0]} to {boundaries[-1]}", f"cover all of 0 to {m}")
    first, end = (np.searchsorted(boundaries, leaves[:, side]) for side in (FIRST, END))
    if int((end - first).sum()) > MOST_STRIPS:
        raise ArgumentError("leaves", "cut the matrix into too many strips", "use clusters that nest")
    strips: list[list[int]] = [[] for _ in boundaries[1:]]
    for leaf in np.argsort(leaves[:, LEFT], kind="stable").tolist():
        for strip in range(first[leaf], end[leaf]):
            strips[strip].append(leaf)
    panels: list[Panel] = []
    for row, stop, members in zip(boundaries[:-1].tolist(), boundaries[1:].tolist(), strips, strict=True):
        edges = leaves[members, LEFT : RIGHT + 1]
        reached = np.maximum.accumulate(edges[:, 1])
        if not members or edges[0, 0] != 0 or reached[-1] != n or (edges[1:, 0] > reached[:-1]).any():
            mend = "cover all of the matrix, with a leaf of rank 0 where it is zero"
            raise ArgumentError("leaves", f"leave a gap in rows {row} to {stop}", mend)
        # Dense leaves first: those that adjoin become one run.
        runs: list[Run] = []
        for dense in (True, False):
            for leaf in members:
                _, _, left, right, rank, precision, group = leaves[leaf].tolist()
                if dense and rank == DENSE:
                    runs += cutter.runs(left, right - left, leaf, Precision(precision), group)
                elif not dense and rank > 0:
                    runs += cutter.runs(n + starts[leaf], rank, leaf, Precision(precision), group)
        for first_row, height in _heights(stop - row):
            panels.append(Panel(row + first_row, height, offset, tuple(runs)))
            offset = panels[-1].end
    return Stage(tuple(panels), n)
