"""Figure 5: losses against savings, every point with its rank: the figure to pick a rank from."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from hmatrix.study.config.settings import Method
from hmatrix.study.figures.drawing import INK, LOOKS, legend, new_figure, save, style
from hmatrix.study.figures.labels import LabelRoom
from hmatrix.study.figures.tables import Row, machine, own_rank, table_rows
from hmatrix.study.measure.records import Record

HEIGHT = 4.9
LEFT, RIGHT, TOP, BOTTOM, GAP = 0.75, 0.3, 0.98, 0.75, 0.35
PANEL, WIDE_PANEL = 4.2, 6.4
"""Inches of paper, of the margins of the axes, between two panels, and of each of two panels or of a lone one."""

LINEAR = 1.0
"""Points of accuracy below which the axis is linear: the losses that can be afforded, and gains."""

TICKS = (-5, -2, -1, -0.5, 0, 0.5, 1, 2, 5, 10, 20, 50, 100)

Measure = Callable[[Row], float | None]


def tradeoff_figure(records: Sequence[Record]) -> Figure | None:
    """Return Figure 5; ``None`` where there is no H-matrix.

    One panel against the storage saved and, where products were timed, one against the time saved. The loss is one of
    accuracy with its paired 95 % interval, or the relative error where no accuracy was measured.
    """
    rows = [row for row in table_rows(records) if row.rank is not None]
    if not rows:
        return None
    accurate = any(row.lost_points is not None for row in rows)
    lost: Measure = (lambda row: row.lost_points) if accurate else (lambda row: row.relative_error)
    rows = [row for row in rows if lost(row) is not None]
    panels: list[tuple[str, Measure]] = [("storage saved / %", lambda row: 100 - row.storage_percent)]
    if any(row.time_saved_percent is not None for row in rows):
        panels.append(("time saved / % of the fastest dense product", lambda row: row.time_saved_percent))
    panel = PANEL if len(panels) > 1 else WIDE_PANEL
    width = LEFT + RIGHT + len(panels) * panel + (len(panels) - 1) * GAP
    first = records[0]
    with style():
        what = "Accuracy lost" if accurate else "Relative error"
        bars = ", bars: paired 95 % interval" if accurate else ""
        figure = new_figure(
            width,
            HEIGHT,
            f"{what} against what is saved: {first.network} {first.layer}",
            f"{first.rows} × {first.columns}, lower right is better, numbers: ranks{bars}",
            ", ".join(machine(records)) if len(panels) > 1 else "",
        )
        for i, (label, saved) in enumerate(panels):
            axes = figure.add_axes(
                (
                    (LEFT + i * (panel + GAP)) / width,
                    BOTTOM / HEIGHT,
                    panel / width,
                    (HEIGHT - TOP - BOTTOM) / HEIGHT,
                )
            )
            axes.set_xlabel(label)
            _draw(axes, rows, saved, lost)
            if accurate:
                _loss_axis(axes, rows)
            else:
                axes.set_ylim(0, 1.1 * max(row.relative_error for row in rows) or 1.0)
            if i:
                axes.tick_params(axis="y", labelleft=False, length=0)
            else:
                axes.set_ylabel("accuracy lost / points" if accurate else r"relative error  $\|A-H\|_F\,/\,\|A\|_F$")
            _label(axes, rows, saved, lost)
        legend(figure, figure.axes[0], LEFT, TOP)
    return figure


def plot_tradeoff(records: Sequence[Record], stem: Path) -> list[Path]:
    """Write Figure 5 as ``<stem>.png`` and ``<stem>.svg``; return their paths, none without an H-matrix."""
    figure = tradeoff_figure(records)
    return save(figure, stem) if figure else []


def _points(rows: Sequence[Row], saved: Measure, lost: Measure) -> dict[Method, list[tuple[Row, float, float]]]:
    found: dict[Method, list[tuple[Row, float, float]]] = {}
    for row in rows:
        x, y = saved(row), lost(row)
        if x is not None and y is not None:
            found.setdefault(row.method, []).append((row, x, y))
    return found


def _draw(axes: Axes, rows: Sequence[Row], saved: Measure, lost: Measure) -> None:
    for method, points in _points(rows, saved, lost).items():
        x, y = [point[1] for point in points], [point[2] for point in points]
        axes.plot(x, y, **LOOKS[method].line, zorder=2.0 if method is Method.GLOBAL_SVD else 2.1)
        ends = [(at, row.lost_lower_points, row.lost_upper_points) for row, at, _ in points]
        axes.vlines(
            [at for at, lower, _ in ends if lower is not None],
            [lower for _, lower, _ in ends if lower is not None],
            [upper for _, _, upper in ends if upper is not None],
            color=LOOKS[method].colour,
            linewidth=0.8,
            alpha=0.7,
            zorder=1.9,
        )
    axes.axvline(0.0, color=INK, linewidth=0.8, linestyle=(0, LOOKS[Method.DENSE].dashes), zorder=1.8)
    axes.axhline(0.0, color=INK, linewidth=0.8, linestyle=(0, LOOKS[Method.DENSE].dashes), zorder=1.8)
    left, right = axes.get_xlim()
    axes.set_xlim(min(left, -3.0), max(right, 3.0))


def _loss_axis(axes: Axes, rows: Sequence[Row]) -> None:
    # Half a point must be seen beside fifty.
    axes.set_yscale("symlog", linthresh=LINEAR, linscale=0.6)
    lower = min(row.lost_lower_points for row in rows if row.lost_lower_points is not None)
    upper = max(row.lost_upper_points for row in rows if row.lost_upper_points is not None)
    axes.set_ylim(min(1.2 * lower, -0.5), max(1.2 * upper, 0.5))
    axes.yaxis.set_major_locator(FixedLocator(TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}".replace("-", "−")))


def _label(axes: Axes, rows: Sequence[Row], saved: Measure, lost: Measure) -> None:
    room = LabelRoom(axes)
    found = _points(rows, saved, lost)
    room.avoid(axes.get_xlim(), (0.0, 0.0))
    room.avoid((0.0, 0.0), axes.get_ylim())
    for points in found.values():
        room.keep_clear([point[1] for point in points], [point[2] for point in points])
        for row, at, _ in points:
            if row.lost_lower_points is not None and row.lost_upper_points is not None:
                room.avoid((at, at), (row.lost_lower_points, row.lost_upper_points))
    for method, points in found.items():
        # Whoever picks the global SVD picks its own rank, not that of the H-matrix it was measured against.
        own = method is Method.GLOBAL_SVD
        texts = [own_rank(row) if own else str(row.rank) for row, _, _ in points]
        room.place([point[1] for point in points], [point[2] for point in points], texts, LOOKS[method].colour)
