"""The order in which a packed matrix is streamed.

The product ``y = A x`` has two stages, both made of *panels*. A panel is a matrix of at most
`PANEL_HEIGHT` rows whose columns meet contiguous *runs* of a source vector:

1. ``t = V^T x``. The factors V of all low-rank leaves with the same columns are stacked, so that those
   columns of x are read once.
2. ``y = [D, U] [x; t]``. Between two neighbouring row boundaries of the leaves, the leaves are always
   the same; their dense rows D and their factors U stand side by side, so that each entry of y is
   written once, and by one panel.

Coefficients are stored in *words* of 32 bits (64 for float64), one column of words after the other. A
word holds the entries of one row in 1 (float32) to 32 (int1) neighbouring columns, so that panels of
all precisions are loaded in the same way; of trellis3 three that follow each other hold 32, of trellis4p two 16.
The last words of a run are filled up with zeros, and a run of integer codes is preceded by the scales of its rows
wherever a new group of columns begins.

With int8 activations the source is cut into *segments*, each quantised with a scale of its own. No run of integer codes
crosses the border of a segment; runs of a trellis meet segments of their own.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hmatrix._support.typing import IndexArray, Integers64
from hmatrix.codes.precision import Precision

PANEL_HEIGHT = 64
"""Rows of a panel: four AVX-512 registers of words, the tile that a batch is multiplied with."""


@dataclass(frozen=True)
class Run:
    """Columns of a panel that meet neighbouring entries of the source.

    Parameters
    ----------
    source, length
        First entry of the source vector, and the number of entries.
    leaf
        Number of the leaf that the columns come from; in the first stage one of the stacked leaves.
    column
        Number of the first of them within the leaf's factor or block.
    precision
        Precision of the coefficients.
    segment
        Number of the segment of the source, with int8 activations and integer codes; else -1.
    begins, ends
        Whether a group of columns with common scales begins and ends here; for integer codes only.
    """

    source: int
    length: int
    leaf: int
    column: int
    precision: Precision
    segment: int = -1
    begins: bool = False
    ends: bool = False

    def words(self) -> int:
        """Return the number of columns of words, with one for the scales."""
        return int(self.precision.words(self.length)) + self.begins


@dataclass(frozen=True)
class Panel:
    """At most `PANEL_HEIGHT` rows of a stage.

    Parameters
    ----------
    target, height
        First entry of the target vector, and the number of entries.
    offset
        Beginning of the panel in the array of words.
    runs
        Its columns, in order.
    """

    target: int
    height: int
    offset: int
    runs: tuple[Run, ...]

    @cached_property
    def width(self) -> int:
        """Number of columns of words."""
        return sum(run.words() for run in self.runs)

    @property
    def end(self) -> int:
        """End of the panel in the array of words."""
        return self.offset + self.height * self.width


@dataclass(frozen=True)
class Stage:
    """Panels in the order in which they are streamed.

    Parameters
    ----------
    panels
        The panels.
    columns
        Entries of the source that lie in x; all others lie in t.
    """

    panels: tuple[Panel, ...]
    columns: int

    @cached_property
    def tables(self) -> tuple[Integers64, IndexArray, IndexArray]:
        """Tables of the stage for the kernel.

        Returns
        -------
        offsets
            int64 ``(panels,)``: where each panel begins in the data.
        panels
            int32 ``(panels, 4)``: target, height, first run, number of runs.
        runs
            int32 ``(runs, 4)``: source, length, segment, and flags: the precision, 16 where a group
            begins, 32 where it ends. Runs of float32 and float64 that adjoin in x, or in t, are made one.
        """
        rows: list[tuple[int, int, int, int]] = []
        runs: list[list[int]] = []
        for panel in self.panels:
            first = len(runs)
            for run in panel.runs:
                flags = run.precision | 16 * run.begins | 32 * run.ends
                floats = run.precision <= Precision.FLOAT32 and run.source != self.columns
                if floats and len(runs) > first and sum(runs[-1][:2]) == run.source and runs[-1][3] == flags:
                    runs[-1][1] += run.length
                else:
                    runs.append([run.source, run.length, run.segment, flags])
            rows.append((panel.target, panel.height, first, len(runs) - first))
        return (
            np.array([panel.offset for panel in self.panels], dtype=np.int64),
            np.array(rows, dtype=np.int32).reshape(-1, 4),
            np.array(runs, dtype=np.int32).reshape(-1, 4),
        )


@dataclass(frozen=True, eq=False)
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
    segments
        int32 ``(segments, 2)``: first entry in the source, x followed by t, and length.
    """

    far: Stage
    near: Stage
    starts: tuple[int, ...]
    intermediate: int
    segments: IndexArray

    @property
    def words(self) -> int:
        """Words of the array of data."""
        return self.near.panels[-1].end

    @property
    def nbytes(self) -> int:
        """Bytes of the tables that the kernel reads beside the data."""
        tables = [table.nbytes for stage in (self.far, self.near) for table in stage.tables]
        return self.segments.nbytes + sum(tables)
