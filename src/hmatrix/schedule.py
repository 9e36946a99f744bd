"""The order in which a packed matrix is streamed.

The product ``y = A x`` has two stages, both made of *panels*. A panel is a matrix of at most
`PANEL_HEIGHT` rows, stored column by column, whose columns meet contiguous *runs* of a source vector:

1. ``t = V^T x``. The factors V of all low-rank leaves with the same columns are stacked, so that those
   columns of x are read once.
2. ``y = [D, U] [x; t]``. Between two neighbouring row boundaries of the partition the leaves are always
   the same; their dense rows D and their factors U stand side by side, so that each entry of y is
   written once, and by one panel.

All panels follow each other in one array in the order in which they are read.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hmatrix._validation import IndexArray
from hmatrix.errors import ArgumentError

PANEL_HEIGHT = 64
"""Rows of a panel: four AVX-512 registers of float32, the tile that a batch is multiplied with."""

DENSE = -1
"""Rank of a dense leaf in a table of leaves."""

MOST_STRIPS = 10**8
"""Partitions cut into more strips of leaves than this are refused: only a hostile file holds one."""

Offsets: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Panel:
    """At most `PANEL_HEIGHT` rows of a stage.

    Parameters
    ----------
    target, height
        First entry of the target vector, and how many there are.
    offset
        Where the panel begins in the array of data.
    runs
        First entry in the source vector, and length, of each run that its columns meet, in order.
    leaves
        Number of the leaf that each run's columns come from; none in the first stage, where the rows
        of a panel may come from several leaves.
    """

    target: int
    height: int
    offset: int
    runs: tuple[tuple[int, int], ...]
    leaves: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """Number of columns."""
        return sum(length for _, length in self.runs)

    @property
    def end(self) -> int:
        """Where the panel ends in the array of data."""
        return self.offset + self.height * self.width


@dataclass(frozen=True)
class Stage:
    """Panels in the order in which they are streamed."""

    panels: tuple[Panel, ...]

    @cached_property
    def tables(self) -> tuple[Offsets, IndexArray, IndexArray]:
        """What the kernel is told of the stage.

        Returns
        -------
        offsets
            int64 ``(panels,)``: where each panel begins in the data.
        panels
            int32 ``(panels, 4)``: target, height, first run, number of runs.
        runs
            int32 ``(runs, 2)``: source and length; runs that adjoin in the source are made one.
        """
        rows: list[tuple[int, int, int, int]] = []
        runs: list[list[int]] = []
        for panel in self.panels:
            first = len(runs)
            for source, length in panel.runs:
                if len(runs) > first and sum(runs[-1]) == source:
                    runs[-1][1] += length
                else:
                    runs.append([source, length])
            rows.append((panel.target, panel.height, first, len(runs) - first))
        return (
            np.array([panel.offset for panel in self.panels], dtype=np.int64),
            np.array(rows, dtype=np.int32).reshape(-1, 4),
            np.array(runs, dtype=np.int32).reshape(-1, 2),
        )


@dataclass(frozen=True)
class Schedule:
    """Both stages of a product.

    Parameters
    ----------
    far
        ``t = V^T x``: the source is x, the target t.
    near
        ``y = [D, U] [x; t]``: the source is x followed by t, the target y.
    starts
        For each leaf, where its part of t begins; -1 for dense leaves and those of rank 0.
    intermediate
        Entries of t.
    """

    far: Stage
    near: Stage
    starts: tuple[int, ...]
    intermediate: int

    @property
    def elements(self) -> int:
        """Entries of the array of data."""
        return self.near.panels[-1].end

    @property
    def nbytes(self) -> int:
        """Bytes of the tables that the kernel reads beside the data."""
        return sum(table.nbytes for stage in (self.far, self.near) for table in stage.tables)


def build_schedule(shape: tuple[int, int], leaves: IndexArray) -> Schedule:
    """Return the schedule of a partition, which is checked to be one.

    Parameters
    ----------
    shape
        Of the matrix, ``(m, n)``.
    leaves
        int32 ``(leaves, 5)``: first and end row, first and end column, and the rank or `DENSE`.

    Raises
    ------
    ArgumentError
        If a leaf lies outside the matrix, or the leaves overlap or leave a gap.
    """
    _check_bounds(shape, leaves)
    far, starts = _far_stage(leaves)
    intermediate = int(leaves[:, 4].clip(min=0).sum(dtype=np.int64))
    if intermediate + max(shape) > np.iinfo(np.int32).max:
        raise ArgumentError("leaves", f"have {intermediate} ranks in all", "stay below 2^31")
    offset = far.panels[-1].end if far.panels else 0
    return Schedule(far, _near_stage(shape, leaves, starts, offset), starts, intermediate)


def _check_bounds(shape: tuple[int, int], leaves: IndexArray) -> None:
    if leaves.ndim != 2 or leaves.shape[1] != 5 or not len(leaves):
        raise ArgumentError("leaves", f"have the shape {leaves.shape}", "give one row of five numbers for each leaf")
    for side, size, first, end in (("row", shape[0], 0, 1), ("column", shape[1], 2, 3)):
        wrong = (leaves[:, first] < 0) | (leaves[:, first] >= leaves[:, end]) | (leaves[:, end] > size)
        if wrong.any():
            raise ArgumentError("leaves", f"leaf {np.argmax(wrong)} has a bad {side} range", f"stay within 0 to {size}")
    if (leaves[:, 4] < DENSE).any():
        raise ArgumentError(
            "leaves", f"have a rank of {leaves[:, 4].min()}", f"give ranks, or {DENSE} for dense leaves"
        )


def _heights(total: int) -> list[tuple[int, int]]:
    """Cut `total` rows into panels: pairs of first row and height."""
    return [(first, min(PANEL_HEIGHT, total - first)) for first in range(0, total, PANEL_HEIGHT)]


def _far_stage(leaves: IndexArray) -> tuple[Stage, tuple[int, ...]]:
    """Return the first stage, and where the part of each leaf begins in t."""
    stacks: dict[tuple[int, int], list[int]] = defaultdict(list)
    for leaf, (_, _, first, end, rank) in enumerate(leaves.tolist()):
        if rank > 0:
            stacks[first, end].append(leaf)
    panels: list[Panel] = []
    starts = [-1] * len(leaves)
    target = offset = 0
    for first, end in sorted(stacks):
        members = stacks[first, end]
        base = target
        for leaf in members:
            starts[leaf] = target
            target += int(leaves[leaf, 4])
        for row, height in _heights(target - base):
            panels.append(Panel(base + row, height, offset, ((first, end - first),)))
            offset = panels[-1].end
    return Stage(tuple(panels)), tuple(starts)


def _near_stage(shape: tuple[int, int], leaves: IndexArray, starts: tuple[int, ...], offset: int) -> Stage:
    """Return the second stage; `offset` is where its data begin."""
    m, n = shape
    boundaries = np.unique(leaves[:, :2])
    first, end = (np.searchsorted(boundaries, leaves[:, side]) for side in (0, 1))
    if int((end - first).sum()) > MOST_STRIPS:
        raise ArgumentError("leaves", "cut the matrix into too many pieces", "use clusters that nest")
    strips: list[list[int]] = [[] for _ in boundaries[1:]]
    for leaf in np.argsort(leaves[:, 2], kind="stable").tolist():
        for strip in range(first[leaf], end[leaf]):
            strips[strip].append(leaf)
    panels: list[Panel] = []
    if boundaries[0] != 0 or boundaries[-1] != m:
        raise ArgumentError("leaves", f"cover rows {boundaries[0]} to {boundaries[-1]}", f"cover all of 0 to {m}")
    for row, stop, members in zip(boundaries[:-1].tolist(), boundaries[1:].tolist(), strips, strict=True):
        edges = leaves[members, 2:4]
        if not members or edges[0, 0] != 0 or edges[-1, 1] != n or (edges[:-1, 1] != edges[1:, 0]).any():
            raise ArgumentError("leaves", f"overlap or leave a gap in rows {row} to {stop}", "give a partition")
        dense = [k for k in members if leaves[k, 4] == DENSE]
        low_rank = [k for k in members if leaves[k, 4] > 0]
        runs = [(int(leaves[k, 2]), int(leaves[k, 3] - leaves[k, 2])) for k in dense]
        runs += [(n + starts[k], int(leaves[k, 4])) for k in low_rank]
        for first_row, height in _heights(stop - row):
            panels.append(Panel(row + first_row, height, offset, tuple(runs), (*dense, *low_rank)))
            offset = panels[-1].end
    return Stage(tuple(panels))
