"""Figures 2, 3 and 4: time, storage and accuracy against rank, one line for every method."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, MaxNLocator

from hmatrix.study.config.settings import Method
from hmatrix.study.figures.curves import Curve, accuracy_of, curves, dense_products, error_of, storage_of, time_of
from hmatrix.study.figures.drawing import (
    GREY,
    INCH,
    INK,
    LOOKS,
    legend,
    megabytes,
    new_figure,
    save,
    significant,
    style,
    text_width,
)
from hmatrix.study.figures.labels import BELOW_RIGHT, LabelRoom, spread
from hmatrix.study.figures.tables import machine, own_rank, table_rows
from hmatrix.study.measure.records import Record

WIDTH, HEIGHT = 7.4, 4.8
LEFT, TOP, BOTTOM = 0.75, 0.98, 0.75
"""Inches of paper, and of the margins of the axes."""

FARTHEST = 2.0
"""A dense product slower than this many times everything else is named, but not drawn."""

PRODUCT_SIZE = 8.0
"""Size of the dense products' labels, in points."""


def time_figure(records: Sequence[Record]) -> Figure | None:
    """Return Figure 2; ``None`` where no H-matrix was timed.

    Each dense product is a level line at the median over all runs in which it was timed.
    """
    lines = curves(records, time_of)
    if not lines:
        return None
    with style():
        products = dense_products(records)
        labels = [f"{name} {significant(time)} µs" for name, time in products]
        right = 0.4 + max((text_width(f"↑ {label}", PRODUCT_SIZE) for label in labels), default=0.0) / INCH
        footer = ", ".join(machine(records))
        figure, axes = _new(records, "Time of one product", "median, band to the quartiles", right, footer)
        _draw(axes, lines)
        axes.set_ylabel("time of one product / µs")
        _dense_products(axes, products, labels, max(max(curve.upper) for curve in lines.values()))
        legend(figure, axes, LEFT, TOP)
    return figure


def storage_figure(records: Sequence[Record]) -> Figure | None:
    """Return Figure 3; ``None`` where there is no H-matrix.

    The global SVD lies just under the SVD H-matrix by construction; its own rank stands beside its markers.
    """
    lines = curves(records, storage_of)
    if not lines:
        return None
    with style():
        figure, axes = _new(records, "Storage", "all bytes that the product needs", right=0.75)
        _draw(axes, lines)
        axes.set_ylim(0, 1.1 * max(100.0, *(max(curve.values) for curve in lines.values())))
        axes.set_ylabel("storage / % of the dense matrix")
        uncompressed = records[0].storage.uncompressed
        _level(axes, 100.0, f"uncompressed: {megabytes(uncompressed)}")
        scale = uncompressed / 1e8  # megabytes of one percent
        second = axes.secondary_yaxis(
            "right", functions=(lambda percent: np.multiply(percent, scale), lambda mb: np.divide(mb, scale))
        )
        second.set_ylabel("storage / MB")
        second.spines["right"].set_visible(True)
        if Method.GLOBAL_SVD in lines:
            _own_ranks(axes, records, lines)
        legend(figure, axes, LEFT, TOP, {Method.GLOBAL_SVD: "global SVD of equal storage, with its own rank"})
    return figure


def accuracy_figure(records: Sequence[Record]) -> Figure | None:
    """Return Figure 4; ``None`` where no accuracy was measured."""
    lines = curves(records, accuracy_of)
    if not lines:
        return None
    baselines = [record.accuracy.baseline_top1 for record in records if record.accuracy]
    samples = sorted({record.accuracy.samples for record in records if record.accuracy})
    with style():
        counted = " or ".join(str(count) for count in samples)
        figure, axes = _new(
            records, "Top-1 accuracy", f"{counted} images, band: paired 95 % interval of the loss", right=0.3
        )
        _draw(axes, lines)
        axes.set_ylabel("top-1 accuracy / %")
        lowest, highest = min(min(c.lower) for c in lines.values()), max(max(c.upper) for c in lines.values())
        highest = max(highest, 100 * max(baselines))
        pad = 0.06 * max(highest - lowest, 1.0)
        axes.set_ylim(0.0 if lowest < 0.25 * highest else lowest - pad, highest + 1.6 * pad)
        # Methods measured over different images have different baselines: each gets its line.
        levels = sorted(set(baselines))
        names = [f"{100 * level:.1f}" for level in (levels[0], levels[-1])]
        for level in levels[:-1]:
            axes.axhline(100 * level, color=INK, linewidth=0.6, zorder=1.8)
        _level(axes, 100 * levels[-1], f"uncompressed: {'–'.join(dict.fromkeys(names))} %")
        legend(figure, axes, LEFT, TOP)
    return figure


def error_figure(records: Sequence[Record]) -> Figure | None:
    """Return Figure 4 of a lone matrix, the relative error; ``None`` where there is no H-matrix."""
    lines = curves(records, error_of)
    if not lines:
        return None
    with style():
        figure, axes = _new(records, "Relative error", "no data set, so no accuracy", right=0.3)
        _draw(axes, lines)
        axes.set_ylabel(r"relative error  $\|A-H\|_F\,/\,\|A\|_F$")
        highest = max(max(curve.values) for curve in lines.values())
        axes.set_ylim(0, 1.1 * highest or 1.0)
        if highest > 1:
            _level(axes, 1.0, "error of the zero matrix", right=True)
        legend(figure, axes, LEFT, TOP)
    return figure


def plot_time(records: Sequence[Record], stem: Path) -> list[Path]:
    """Write Figure 2 as ``<stem>.png`` and ``<stem>.svg``; return their paths, none where nothing was timed."""
    return _saved(time_figure(records), stem)


def plot_storage(records: Sequence[Record], stem: Path) -> list[Path]:
    """Write Figure 3 as ``<stem>.png`` and ``<stem>.svg``; return their paths, none without an H-matrix."""
    return _saved(storage_figure(records), stem)


def plot_accuracy(records: Sequence[Record], stem: Path) -> list[Path]:
    """Write Figure 4 as ``<stem>.png`` and ``<stem>.svg``; return their paths, none without an H-matrix.

    Where no accuracy was measured, the figure shows the relative error.
    """
    return _saved(accuracy_figure(records) or error_figure(records), stem)


def _saved(figure: Figure | None, stem: Path) -> list[Path]:
    return save(figure, stem) if figure else []


def _new(records: Sequence[Record], title: str, subtitle: str, right: float, footer: str = "") -> tuple[Figure, Axes]:
    first = records[0]
    figure = new_figure(
        WIDTH,
        HEIGHT,
        f"{title}: {first.network} {first.layer}",
        f"{first.rows} × {first.columns}, {subtitle}",
        footer,
    )
    size = (WIDTH - LEFT - right) / WIDTH, (HEIGHT - TOP - BOTTOM) / HEIGHT
    return figure, figure.add_axes((LEFT / WIDTH, BOTTOM / HEIGHT, *size))


def _draw(axes: Axes, lines: Mapping[Method, Curve]) -> None:
    # The last baseline first, so that no method is hidden under what it is compared with.
    for depth, (method, curve) in enumerate(lines.items()):
        above = 2.0 + 0.1 * (depth if method is not Method.GLOBAL_SVD else -1)
        axes.plot(curve.ranks, curve.values, **LOOKS[method].line, zorder=above)
        if curve.lower != curve.upper:
            axes.fill_between(
                curve.ranks, curve.lower, curve.upper, color=LOOKS[method].colour, alpha=0.15, linewidth=0, zorder=1.5
            )
            if len(curve.ranks) == 1:
                axes.vlines(curve.ranks, curve.lower, curve.upper, color=LOOKS[method].colour, linewidth=1.0)
    ranks = sorted({rank for curve in lines.values() for rank in curve.ranks})
    span = ranks[-1] - ranks[0]
    pad = 0.03 * span or 1.0
    axes.set_xlim(ranks[0] - pad, ranks[-1] + pad)
    axes.set_xlabel("rank")
    axes.xaxis.set_major_locator(FixedLocator(_ticks(axes, ranks)))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))


def _ticks(axes: Axes, ranks: Sequence[float]) -> list[float]:
    left, right = axes.get_xlim()
    inches = axes.get_position().width * WIDTH
    room = (text_width(f"{ranks[-1]:g}", 9.0) + 5.0) / INCH * (right - left) / inches
    kept = [ranks[-1]]
    for rank in reversed(ranks):
        if rank <= kept[-1] - room:
            kept.append(rank)
    return kept[::-1]


def _level(axes: Axes, height: float, label: str, *, right: bool = False) -> None:
    axes.axhline(height, color=INK, linewidth=1.0, linestyle=(0, LOOKS[Method.DENSE].dashes), zorder=1.8)
    axes.annotate(
        label,
        (1 if right else 0, height),
        (-4 if right else 4, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        fontsize=8,
        color=INK,
        ha="right" if right else "left",
        va="bottom",
        path_effects=[withStroke(linewidth=2.0, foreground="white")],
    )


def _own_ranks(axes: Axes, records: Sequence[Record], lines: Mapping[Method, Curve]) -> None:
    room = LabelRoom(axes, sides=BELOW_RIGHT)
    room.keep_clear(axes.get_xlim(), (100.0, 100.0))
    for curve in lines.values():
        room.keep_clear(curve.ranks, curve.values)
    own = [own_rank(row) for row in table_rows(records) if row.method is Method.GLOBAL_SVD]
    room.place(lines[Method.GLOBAL_SVD].ranks, lines[Method.GLOBAL_SVD].values, own, GREY)


def _dense_products(axes: Axes, products: Sequence[tuple[str, float]], labels: Sequence[str], highest: float) -> None:
    times = [time for _, time in products]
    highest = max([highest, *times[:1]])
    drawn = [time for time in times if time <= FARTHEST * highest]
    top = 1.06 * max([highest, *drawn])
    axes.set_ylim(0, top)
    row = 1.4 * PRODUCT_SIZE / INCH / (HEIGHT - TOP - BOTTOM) * top
    places = spread([min(time, top) for time in times], row, row / 2, top - row / 2)
    leader = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)}
    for i, (time, place) in enumerate(zip(times, places, strict=True)):
        # The fastest product is the one to beat; the others only show that it was chosen among several.
        fastest, shown = i == 0, i < len(drawn)
        colour = INK if fastest else GREY
        if shown:
            axes.axhline(
                time,
                color=colour,
                linewidth=1.2 if fastest else 0.7,
                linestyle=(0, LOOKS[Method.DENSE].dashes) if fastest else "solid",
                zorder=1.8,
                label=("fastest dense product", "other dense products")[i] if i < 2 else None,
            )
        axes.annotate(
            labels[i] if shown else f"↑ {labels[i]}",
            (1.0, min(time, top)),
            (1.03, place),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            fontsize=PRODUCT_SIZE,
            color=colour,
            va="center",
            annotation_clip=False,
            parse_math=False,
            arrowprops=leader | {"color": colour} if shown else None,
        )
