"""The blocks of an H-matrix and the spectrum of each, as figures or as a page."""

import html
from pathlib import Path

import numpy as np
import scipy.linalg
from matplotlib.figure import Figure

from hmatrix._support.files import write_file
from hmatrix._support.typing import FloatArray, Floats64
from hmatrix.errors import ArgumentError
from hmatrix.lowrank.factors import LowRank
from hmatrix.matrix import HMatrix
from hmatrix.packed.schedule import DENSE
from hmatrix.study.figures.drawing import GREY, megabytes, new_figure, rendered, style, write
from hmatrix.study.figures.structure_plot import DENSE_COLOUR, SHARP, blocks_figure

_ENDINGS = (".png", ".svg", ".html")
_MOST_SPECTRA = 400
"""Largest number of lines that can be read; the largest blocks are drawn."""

_LOW_RANK_LINE = "#4E9A3B"


def structure_of(matrix: HMatrix, title: str) -> Figure:
    """Return a figure of the blocks of a matrix."""
    leaves = list(matrix.leaves())
    blocks = [
        (
            leaf.rows.start,
            leaf.rows.stop,
            leaf.columns.start,
            leaf.columns.stop,
            DENSE if leaf.rank is None else leaf.rank,
        )
        for leaf in leaves
    ]
    storage = matrix.storage()
    subtitle = (
        f"{matrix.shape[0]} × {matrix.shape[1]}, {len(leaves)} block{'s' * (len(leaves) != 1)}, "
        f"{megabytes(storage.total)} ({100 * storage.ratio:.1f} % of {megabytes(storage.uncompressed)})"
    )
    return blocks_figure(matrix.shape, blocks, title, subtitle)


def spectra_of(matrix: HMatrix, title: str) -> Figure:
    """Return a figure of the singular values of each block, relative to the largest of the matrix's."""
    leaves = sorted(matrix.leaves(), key=lambda leaf: -_size(leaf.rows) * _size(leaf.columns))
    shown = leaves[:_MOST_SPECTRA]
    spectra = [(leaf.rank is None, _singular_values(leaf.block)) for leaf in shown]
    largest = max((float(values[0]) for _, values in spectra if len(values)), default=0.0) or 1.0
    left = "" if len(shown) == len(leaves) else f", the largest {len(shown)} of {len(leaves)} blocks"
    with style():
        figure = new_figure(6.4, 4.4, title, f"singular values of the blocks as they are stored{left}")
        axes = figure.add_axes((0.11, 0.12, 0.86, 0.7))
        for dense, values in spectra:
            kept = values[values > 0] / largest
            colour = DENSE_COLOUR if dense else _LOW_RANK_LINE
            axes.plot(np.arange(1, len(kept) + 1), kept, color=colour, linewidth=0.8, alpha=0.7)
        axes.set(xlabel="number", ylabel="singular value, relative", xscale="log", yscale="log")
        for x, colour, label in ((0.11, DENSE_COLOUR, "dense"), (0.22, _LOW_RANK_LINE, "low rank")):
            figure.text(x, 0.84, label, color=colour, fontsize=9.0)
    return figure


def show(matrix: HMatrix, title: str, path: Path) -> list[Path]:
    """Write the structure to `path`, and the spectra beside it; a page (.html) holds both, and a table.

    Raises
    ------
    ArgumentError
        If `path` ends in something else than .png, .svg or .html.
    OutputError
        If a file cannot be written.
    """
    if path.suffix not in _ENDINGS:
        raise ArgumentError("output", f"{path} has the ending {path.suffix!r}", f"give {', '.join(_ENDINGS)}")
    if path.suffix == ".html":
        write_file(path, _page(matrix, title))
        return [path]
    spectra = path.with_name(f"{path.stem}-spectra{path.suffix}")
    write(structure_of(matrix, title), path, SHARP)
    write(spectra_of(matrix, title), spectra, SHARP)
    return [path, spectra]


def _page(matrix: HMatrix, title: str) -> str:
    figures = "\n".join(_svg(figure) for figure in (structure_of(matrix, title), spectra_of(matrix, title)))
    rows = "\n".join(
        f"<tr><td>{leaf.rows.start} to {leaf.rows.stop - 1}</td>"
        f"<td>{leaf.columns.start} to {leaf.columns.stop - 1}</td>"
        f"<td>{'dense' if leaf.rank is None else leaf.rank}</td><td>{leaf.precision.name.lower()}</td></tr>"
        for leaf in matrix.leaves()
    )
    name = html.escape(title)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{name}</title>
<style>body {{ font-family: sans-serif; margin: 2em }} svg {{ max-width: 100%; height: auto }}
td, th {{ padding: 0 1em; text-align: right; border-bottom: 1px solid {GREY}33 }}</style></head>
<body>
{figures}
<table><tr><th>rows</th><th>columns</th><th>rank</th><th>precision</th></tr>
{rows}
</table>
</body></html>
"""


def _svg(figure: Figure) -> str:
    text = rendered(figure, "svg").decode()
    return text[text.index("<svg") :]


def _singular_values(block: FloatArray | LowRank) -> Floats64:
    if not isinstance(block, LowRank):
        dense: Floats64 = scipy.linalg.svdvals(block.astype(np.float64))
        return dense
    # Those of U V^T are those of the product of the triangles.
    left, right = (scipy.linalg.qr(factor.astype(np.float64), mode="r")[0] for factor in (block.U, block.V))
    values: Floats64 = scipy.linalg.svdvals(left @ right.T)
    return values


def _size(part: slice) -> int:
    size: int = part.stop - part.start
    return size
