"""All figures of a study, each a pure function of the records of one layer."""

from collections.abc import Callable, Sequence
from pathlib import Path

from hmatrix.study.config.settings import Method
from hmatrix.study.figures.rank_plots import plot_accuracy, plot_storage, plot_time
from hmatrix.study.figures.structure_plot import plot_structure, structure_record
from hmatrix.study.figures.tables import in_order
from hmatrix.study.figures.tradeoff_plot import plot_tradeoff
from hmatrix.study.measure.records import Record


def draw_all(records: Sequence[Record], folder: Path, prefix: str) -> list[Path]:
    """Write every figure that the records allow into `folder`.

    Parameters
    ----------
    records
        Records of one layer.
    folder
        Folder, made where it is not there.
    prefix
        Beginning of all file names, which are ``<prefix>-fig1-structure``, ``-fig2-time``, ``-fig3-storage``,
        ``-fig4-accuracy`` (``-fig4-error`` where no accuracy was measured) and ``-fig5-tradeoff``.

    Returns
    -------
    list of Path
        The files written, a PNG and an SVG file for each figure.

    Raises
    ------
    ArgumentError
        If the records are of more than one layer.
    OutputError
        If a file cannot be written.
    """
    everything = in_order(records)
    # A progressive head has no rank of the study's.
    records = [record for record in everything if record.method is not Method.PROGRESSIVE]
    shown = structure_record(records)
    fourth = "accuracy" if any(record.accuracy for record in records) else "error"
    paths = plot_structure(shown, folder / f"{prefix}-fig1-structure") if shown else []
    plots: tuple[tuple[str, Callable[[Sequence[Record], Path], list[Path]]], ...] = (
        ("fig2-time", plot_time),
        ("fig3-storage", plot_storage),
        (f"fig4-{fourth}", plot_accuracy),
    )
    for name, plot in plots:
        paths += plot(records, folder / f"{prefix}-{name}")
    return paths + plot_tradeoff(everything, folder / f"{prefix}-fig5-tradeoff")
