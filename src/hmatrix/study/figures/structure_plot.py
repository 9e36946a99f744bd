"""Figure 1: the blocks of one H-matrix, dense ones red, low-rank ones green with their rank."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hmatrix.packed.schedule import DENSE
from hmatrix.study.config.settings import Method
from hmatrix.study.figures.drawing import INCH, INK, LOOKS, megabytes, new_figure, save, style, text_width
from hmatrix.study.measure.records import Record

Leaf = tuple[int, int, int, int, int]

DENSE_COLOUR, LOW_RANK_COLOUR = "#A3161F", "#BFE3B4"
"""Far apart in luminance too, so that the figure survives a black and white printer."""

SIDE = 6.0
"""Longer side of the matrix on paper, in inches."""

LARGEST, SMALLEST = 15.0, 2.0
"""Sizes of a rank's text in points; smaller text is left out."""

_SHOWN_RANK = 30

SHARP = 300
"""Dots per inch: ranks in small blocks need more than lines do."""


def structure_figure(record: Record) -> Figure:
    """Return Figure 1 for one record, rows and columns in tree order.

    Parameters
    ----------
    record
        Any method; the uncompressed layer is one dense block.
    """
    storage = record.storage
    subtitle = (
        f"{record.rows} × {record.columns}, {_count(len(record.leaves))}, "
        f"{megabytes(storage.total)} ({100 * storage.ratio:.1f} % of {megabytes(storage.uncompressed)}), "
        f"relative error {record.relative_error:.3f}"
    )
    return blocks_figure((record.rows, record.columns), record.leaves, _title(record), subtitle)


def blocks_figure(shape: tuple[int, int], blocks: Sequence[Leaf], title: str, subtitle: str) -> Figure:
    """Return a figure of the blocks of a matrix, rows and columns in tree order.

    Parameters
    ----------
    shape
        Shape of the matrix.
    blocks
        First and last row and column of each leaf, the latter excluded, and its rank, or `DENSE`.
    title, subtitle
        Above it.
    """
    rows, columns = shape
    # A strip is drawn wider than it is, or its blocks would vanish.
    aspect = min(max(columns / rows, 1 / 3), 3.0)
    width, height = (SIDE, SIDE / aspect) if aspect >= 1 else (SIDE * aspect, SIDE)
    left, right, top, bottom = 0.75, 0.35, 0.95, 0.6
    total = max(left + width + right, 6.4), top + height + bottom
    low_rank = [leaf for leaf in blocks if leaf[4] != DENSE]
    dense = [leaf for leaf in blocks if leaf[4] == DENSE]
    with style():
        figure = new_figure(*total, title, subtitle)
        axes = figure.add_axes((left / total[0], bottom / total[1], width / total[0], height / total[1]))
        axes.set(xlim=(0, columns), ylim=(rows, 0), aspect="auto")
        axes.set(xlabel="column (tree order)", ylabel="row (tree order)")
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set(visible=True, color=INK)
        points = width * INCH / columns, height * INCH / rows
        for leaves, colour in ((low_rank, LOW_RANK_COLOUR), (dense, DENSE_COLOUR)):
            axes.add_collection(_rectangles(leaves, colour, points), autolim=False)
        _write_ranks(axes, low_rank, points)
        kinds = (
            (low_rank, LOW_RANK_COLOUR, f"{_count(len(low_rank), 'low-rank')}, rank written in"),
            (dense, DENSE_COLOUR, _count(len(dense), "dense")),
        )
        figure.legend(
            handles=[Patch(fc=colour, ec=INK, linewidth=0.5, label=label) for leaves, colour, label in kinds if leaves],
            loc="lower left",
            bbox_to_anchor=(left / total[0], (bottom + height + 0.05) / total[1]),
            borderaxespad=0.0,
            borderpad=0.0,
            ncols=2,
            handlelength=1.2,
            handleheight=1.0,
        )
    return figure


def plot_structure(record: Record, stem: Path) -> list[Path]:
    """Write Figure 1 as ``<stem>.png`` and ``<stem>.svg``, and return their paths."""
    return save(structure_figure(record), stem, SHARP)


def structure_record(records: Sequence[Record]) -> Record | None:
    """Return the record to show: the SVD H-matrix of the rank nearest to `_SHOWN_RANK`, or the first other H-matrix."""
    candidates = [record for record in records if record.method not in (Method.DENSE, Method.GLOBAL_SVD)]
    methods = [record.method for record in candidates]
    method = Method.SVD if Method.SVD in methods else next(iter(methods), None)
    shown = [record for record in candidates if record.method is method]
    return min(shown, key=lambda record: abs((record.rank or 0) - _SHOWN_RANK), default=None)


def _title(record: Record) -> str:
    # The rank of a global SVD's record is that of the H-matrix whose storage it may use.
    own = record.method is Method.GLOBAL_SVD
    rank = max((leaf[4] for leaf in record.leaves), default=DENSE) if own else record.rank
    name = f"{record.network} {record.layer}: {LOOKS[record.method].label}"
    return name if rank in (None, DENSE) else f"{name}, rank {rank}"


def _count(count: int, kind: str = "") -> str:
    return f"{count} {kind}{' ' if kind else ''}{'block' if count == 1 else 'blocks'}"


def _rectangles(leaves: Sequence[Leaf], colour: str, points: tuple[float, float]) -> PolyCollection:
    r0, r1, c0, c1, _ = np.array(leaves, dtype=np.float64).reshape(-1, 5).T
    vertices = np.stack([np.stack(p, axis=-1) for p in ((c0, r0), (c1, r0), (c1, r1), (c0, r1))], axis=1)
    narrowest = min((min((c[3] - c[2]) * points[0], (c[1] - c[0]) * points[1]) for c in leaves), default=1.0)
    # Edges must not swallow the blocks of a fine partition.
    return PolyCollection(
        list(vertices), facecolors=colour, edgecolors=INK, linewidths=min(0.6, max(0.04 * narrowest, 0.05))
    )


def _write_ranks(axes: Axes, leaves: Sequence[Leaf], points: tuple[float, float]) -> None:
    for r0, r1, c0, c1, rank in leaves:
        text = str(rank)
        width, height = (c1 - c0) * points[0], (r1 - r0) * points[1]
        size = min(0.6 * height, 0.78 * width / text_width(text, 1.0), LARGEST)
        if size >= SMALLEST:
            axes.text((c0 + c1) / 2, (r0 + r1) / 2, text, fontsize=size, ha="center", va="center_baseline", color=INK)
