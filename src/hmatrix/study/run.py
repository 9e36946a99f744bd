"""A whole study, which writes a folder of records, figures and tables."""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hmatrix._support.file_names import file_name
from hmatrix._support.files import make_folder, write_file
from hmatrix._support.locks import locked
from hmatrix.study.config.settings import Study
from hmatrix.study.figures.plots import draw_all
from hmatrix.study.figures.tables import table_note, table_rows, to_csv, to_markdown
from hmatrix.study.measure.records import Record, RecordFile
from hmatrix.study.measure.subject import load_subject
from hmatrix.study.measure.sweep import sweep

RECORDS = "records.jsonl"


def run_study(study: Study, cache: Path) -> Iterator[list[Record]]:
    """Run a study and write its results into its output folder.

    One run at a time measures for a folder: another waits, says so, and finds then what the first one has measured.
    A study that was interrupted goes on where it stopped: points that are in the folder already, measured
    with the same settings on the same machine, are not measured again.

    Parameters
    ----------
    study
        Study to measure.
    cache
        Folder of the cached features.

    Yields
    ------
    list of Record
        The records of each network, when its results are written.

    Raises
    ------
    HMatrixError
        If anything that the study names cannot be used, or the output folder cannot be written.
    """
    make_folder(study.output)
    path = study.output / RECORDS
    subjects: dict[str, str] = {}
    for network in study.networks:
        with locked(path, partial(_tell_waiting, path)):
            # What another run has measured meanwhile is in it.
            file = RecordFile(path)
            subject = load_subject(network, study.data, cache)
            records = sweep(study, subject, file)
            name = file_name(subject.network, subject.layer)
            # Of two networks of one name, with other weights each, the second has its digest in its files' names.
            if subjects.setdefault(name.casefold(), subject.digest) != subject.digest:
                name = file_name(subject.network, subject.layer, subject.digest)
            write_results(records, study.output, name)
        yield records


def _tell_waiting(path: Path) -> None:
    print(f"another run writes {path}: this one waits until it ends (Ctrl-C ends the wait)", file=sys.stderr)


def write_results(records: list[Record], folder: Path, prefix: str) -> None:
    """Write the figures and the table of one network's records.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    rows, note = table_rows(records), table_note(records)
    draw_all(records, folder, prefix)
    write_file(folder / f"{prefix}-table.md", to_markdown(rows, note))
    write_file(folder / f"{prefix}-table.csv", to_csv(rows))
