"""One style for all figures, one look for every method, one way to write them.

Figures are built on `matplotlib.figure.Figure` alone: nothing global changes, and the same records
give the same bytes.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from hmatrix._support.files import make_folder, write_file
from hmatrix.study.config.settings import Method

INK, GREY, RULE = "#1A1A1A", "#5F5F5F", "#E4E4E4"
"""Colours of text, of secondary text, and of the grid."""

DOTS_PER_INCH = 200
INCH = 72.0
"""Points of an inch."""

STYLE: Mapping[str, Any] = MappingProxyType(
    {
        "axes.axisbelow": True,
        "axes.edgecolor": GREY,
        "axes.grid": True,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.8,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.size": 9.0,
        "grid.color": RULE,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "lines.linewidth": 1.5,
        "svg.hashsalt": "hmatrix",
        "text.color": INK,
        "xtick.color": GREY,
        "xtick.labelcolor": INK,
        "ytick.color": GREY,
        "ytick.labelcolor": INK,
    }
)


@dataclass(frozen=True)
class Look:
    """The look of a method; each differs from the others in colour, in dashes and in marker.

    Parameters
    ----------
    label
        Name in legends.
    colour
        From the palette of Okabe and Ito, which colour-blind readers can tell apart.
    marker, size, filled
        Marker and its size in points; where two lines coincide, the larger open marker shows both.
    dashes
        On and off lengths in line widths; empty is solid.
    """

    label: str
    colour: str
    marker: str
    size: float
    filled: bool
    dashes: tuple[float, ...]

    @property
    def line(self) -> dict[str, Any]:
        """Keyword arguments of a line."""
        return {
            "label": self.label,
            "color": self.colour,
            "marker": self.marker,
            "markersize": self.size,
            "markerfacecolor": self.colour if self.filled else "white",
            "markeredgewidth": 1.1,
            "linestyle": (0, self.dashes) if self.dashes else "solid",
        }


LOOKS: Mapping[Method, Look] = MappingProxyType(
    {
        Method.SVD: Look("SVD", "#0072B2", "o", 4.0, True, ()),
        Method.RANDOMIZED_SVD: Look("randomized SVD", "#56B4E9", "P", 5.0, True, (4, 1, 1, 1)),
        Method.QR: Look("QR", "#D55E00", "s", 5.0, False, (4, 1.6)),
        Method.ACA: Look("ACA", "#009E73", "^", 5.0, False, (1.2, 1.2)),
        Method.PARTIAL_ACA: Look("partial ACA", "#CC79A7", "v", 5.0, True, (6, 1.5, 1.2, 1.5)),
        Method.GLOBAL_SVD: Look("global SVD of equal storage", "#6B6B6B", "D", 5.4, False, (2.4, 1.2)),
        Method.PROGRESSIVE: Look("progressive head", "#E69F00", "*", 9.0, True, ()),
        Method.DENSE: Look("uncompressed", INK, "_", 6.0, True, (6, 2)),
    }
)


@contextmanager
def style() -> Iterator[None]:
    """Draw in the package's style, whatever the user's own settings are."""
    with matplotlib.style.context(["default", dict(STYLE)]):
        yield


def new_figure(width: float, height: float, title: str, subtitle: str, footer: str = "") -> Figure:
    """Return a figure of `width` by `height` inches with its three texts; axes come below 0.6 inches from the top."""
    figure = Figure(figsize=(width, height), facecolor="white")
    left = 0.15 / width
    room = width - 0.3
    for text, y, size, colour, bold in (
        (title, 1 - 0.12 / height, 12.0, INK, True),
        (subtitle, 1 - 0.37 / height, 9.0, GREY, False),
        (footer, 0.08 / height, 7.5, GREY, False),
    ):
        figure.text(
            left,
            y,
            _elided(text, room, size, bold=bold),
            fontsize=size,
            fontweight="bold" if bold else "normal",
            color=colour,
            va="top" if y > 0.5 else "bottom",
            parse_math=False,
        )
    return figure


def legend(figure: Figure, axes: Axes, left: float, top: float, names: Mapping[Method, str] | None = None) -> None:
    """Put the legend of `axes` above it, in one row or in two.

    Parameters
    ----------
    figure, axes
        Figure that it is drawn on, and axes whose lines it names.
    left, top
        Left margin of the axes, and that between its upper end and the paper's, in inches.
    names
        Methods that have another name than usual in this figure.
    """
    renamed = {LOOKS[method].label: name for method, name in (names or {}).items()}
    handles, labels = axes.get_legend_handles_labels()
    labels = [renamed.get(label, label) for label in labels]
    width, height = figure.get_size_inches()
    size, handle, gap = 9.0, 3.6, 1.4  # of the text in points; widths in sizes of the text
    row = sum(text_width(label, size) for label in labels) + size * (handle + gap) * len(labels)
    figure.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(left / width, 1 - (top - 0.06) / height),
        ncols=len(labels) if row <= INCH * (width - left) else math.ceil(len(labels) / 2),
        fontsize=size,
        handlelength=handle - 0.8,
        handletextpad=0.8,
        columnspacing=gap,
        borderaxespad=0.0,
        borderpad=0.0,
    )


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Return the width of a line of text in points."""
    font = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal", size=size)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def megabytes(count: float) -> str:
    """Return a number of bytes with three digits, in MB or, where that is below 0.1 MB, in kB."""
    return f"{significant(count / 1e6)} MB" if count >= 1e5 else f"{significant(count / 1e3)} kB"


def significant(value: float) -> str:
    """Return at least three significant digits, never an exponent."""
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:#.3g}" if abs(value) >= 1e-3 else f"{value:.3f}"


def _elided(text: str, inches: float, size: float, *, bold: bool = False) -> str:
    # A name may have letters in it that are none: a new line, say.
    kept = "".join(letter if letter.isprintable() else "_" for letter in text)
    # Hinting makes some letters a little wider on a screen.
    while len(kept) > 2 and text_width(kept, size, bold=bold) > 0.97 * inches * INCH:
        kept = f"{kept[:-2]}…"
    return kept


def save(figure: Figure, stem: Path, dots_per_inch: int = DOTS_PER_INCH) -> list[Path]:
    """Write ``<stem>.png`` and ``<stem>.svg``, each complete or not at all.

    Parameters
    ----------
    figure
        Figure to write.
    stem
        Folder, which is made where it is not there, and name without an ending.
    dots_per_inch
        Resolution of the PNG file.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    OutputError
        If one of them cannot be written.
    """
    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "svg")]
    for path in paths:
        write(figure, path, dots_per_inch)
    return paths


def write(figure: Figure, path: Path, dots_per_inch: int = DOTS_PER_INCH) -> None:
    """Write a figure as PNG or SVG, by the ending of `path`, complete or not at all.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    content = rendered(figure, path.suffix.removeprefix("."), dots_per_inch)
    make_folder(path.parent)
    write_file(path, content)


def rendered(figure: Figure, ending: str, dots_per_inch: int = DOTS_PER_INCH) -> bytes:
    """Return the bytes of a figure's file, by its ending, ``png`` or ``svg``."""
    # A date, or the version that wrote it, would make equal figures unequal.
    metadata = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}[ending]
    stream = BytesIO()
    with style():
        figure.savefig(stream, format=ending, dpi=dots_per_inch, metadata=metadata)
    return stream.getvalue()
