"""The frontier as a figure: what is lost, and the error, against storage."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from hmatrix.study.figures.drawing import GREY, INK, Look, legend, new_figure, save, style
from studies.allocator.competitors import Contender
from studies.allocator.frontier_records import FrontierRecord
from studies.allocator.frontier_table import error, lost_interval, lost_points

HEIGHT = 4.9
LEFT, RIGHT, TOP, BOTTOM, GAP = 0.75, 0.2, 1.05, 0.6, 0.75
"""Inches of paper, of the margins of the axes, and between two panels."""

PANEL, LONE_PANEL = 4.4, 5.5
"""Inches of each of two panels, and of one that has the legend above it for itself."""

LOOKS: Mapping[Contender, Look] = MappingProxyType(
    {
        Contender.ALLOCATOR: Look("allocator", "#0072B2", "o", 5.0, True, ()),
        Contender.ALLOCATOR_UNBIASED: Look("allocator, unbiased", "#004166", "d", 5.0, True, (3, 1)),
        Contender.ALLOCATOR_INT8: Look("allocator, int8 activations", "#56B4E9", "o", 7.0, False, (4, 1.6)),
        Contender.SVD: Look("global SVD", "#6B6B6B", "D", 4.4, False, (2.4, 1.2)),
        Contender.SVD_INT4: Look("global SVD, int4", "#D55E00", "s", 4.6, False, (4, 1, 1, 1)),
        Contender.PUBLISHED: Look("H-matrix of fixed rank", "#009E73", "^", 5.0, True, (1.2, 1.2)),
        Contender.BLAST: Look("BLAST", "#CC79A7", "v", 5.0, True, (6, 1.5, 1.2, 1.5)),
        Contender.INT8: Look("int8", INK, "P", 7.0, True, (1, 1)),
        Contender.INT4: Look("int4", INK, "X", 7.0, True, (1, 1)),
        Contender.INT2: Look("int2", INK, "*", 9.0, True, (1, 1)),
    }
)

_LINEAR = 1.0
"""Points of accuracy below which the axis is linear."""

_LOSSES = (-2, -1, -0.5, 0, 0.5, 1, 2, 5, 10, 20, 50, 100)
_STORAGES = (3, 5, 7, 10, 12.5, 25, 50, 100)


def frontier_figure(records: Sequence[FrontierRecord]) -> Figure:
    """Return the figure: error against storage, and top-1 lost where it was measured; one layer's records."""
    first = records[0]
    measured = first.accuracy is not None
    panels: list[tuple[str, Callable[[FrontierRecord], float | None]]] = [
        ("relative error of the output" if measured else "relative error of the weight", error)
    ]
    if measured:
        panels.insert(0, ("top-1 lost / points", lost_points))
    panel = PANEL if measured else LONE_PANEL
    width = LEFT + RIGHT + len(panels) * panel + (len(panels) - 1) * GAP
    with style():
        figure = new_figure(
            width,
            HEIGHT,
            f"{'Lost' if measured else 'Error'} against storage: {first.network} {first.layer}",
            f"{first.rows} × {first.columns}, lower left is better" + (", bars: paired 95 % interval" * measured),
        )
        for i, (label, value) in enumerate(panels):
            left = (LEFT + i * (panel + GAP)) / width
            size = (panel / width, (HEIGHT - TOP - BOTTOM) / HEIGHT)
            axes = figure.add_axes((left, BOTTOM / HEIGHT, *size))
            axes.set_ylabel(label)
            axes.set_xlabel("storage / % of float32")
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(FixedLocator(_STORAGES))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(_plain))
            _draw(axes, records, value)
            if value is lost_points:
                axes.set_yscale("symlog", linthresh=_LINEAR, linscale=0.6)
                axes.yaxis.set_major_locator(FixedLocator(_LOSSES))
                axes.yaxis.set_minor_locator(NullLocator())
                axes.yaxis.set_major_formatter(FuncFormatter(_plain))
                axes.axhline(0.0, color=INK, linewidth=0.8, zorder=1.8)
            else:
                axes.set_yscale("log")
        legend(figure, figure.axes[0], LEFT, TOP)
    return figure


def plot_frontier(records: Sequence[FrontierRecord], stem: Path) -> list[Path]:
    """Write the figure as ``<stem>.png`` and ``<stem>.svg``; return their paths."""
    return save(frontier_figure(records), stem)


def _draw(axes: Axes, records: Sequence[FrontierRecord], value: Callable[[FrontierRecord], float | None]) -> None:
    for contender, look in LOOKS.items():
        # A plain precision has one size; where the budget is larger it is the same matrix again.
        points: dict[int, tuple[float, FrontierRecord]] = {}
        for record in records:
            found = value(record)
            # An error of zero has no place on a logarithmic axis.
            if record.contender is contender and found is not None and (found > 0 or value is lost_points):
                points.setdefault(record.nbytes, (found, record))
        if not points:
            continue
        x = [100 * nbytes / records[0].dense_bytes for nbytes in sorted(points)]
        axes.plot(x, [points[nbytes][0] for nbytes in sorted(points)], **look.line)
        if value is lost_points and contender is Contender.ALLOCATOR:
            ends = [lost_interval(points[nbytes][1]) for nbytes in sorted(points)]
            for at, interval in zip(x, ends, strict=True):
                if interval is not None:
                    axes.vlines(at, *interval, color=GREY, linewidth=0.8, zorder=1.9)


def _plain(tick: float, _: int | None) -> str:
    return f"{tick:g}".replace("-", "−")
