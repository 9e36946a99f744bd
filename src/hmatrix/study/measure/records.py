"""One row per measured point, with its evidence, appended to a file that survives a crash."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from hmatrix._support.files import make_folder
from hmatrix.errors import FormatError, OutputError
from hmatrix.packed.schedule import DENSE
from hmatrix.packed.storage import Storage
from hmatrix.study.config.settings import Method
from hmatrix.study.measure.typed_json import read_plain

HMATRIX = "hmatrix"
"""Name of the contender that is the approximated layer; all others are dense products."""


@dataclass(frozen=True)
class AccuracyEvidence:
    """Top-1 counts over one data set, paired with the uncompressed network's.

    Parameters
    ----------
    samples
        Images evaluated.
    correct, baseline_correct
        Images that this network and the uncompressed one classify rightly.
    lost, gained
        Images that only the uncompressed network, and only this one, classify rightly.
    """

    samples: int
    correct: int
    baseline_correct: int
    lost: int
    gained: int

    @property
    def top1(self) -> float:
        """Fraction classified rightly."""
        return self.correct / self.samples

    @property
    def baseline_top1(self) -> float:
        """Fraction that the uncompressed network classifies rightly."""
        return self.baseline_correct / self.samples


@dataclass(frozen=True)
class TimeEvidence:
    """Seconds of one product of one contender, over alternating rounds of one run.

    Parameters
    ----------
    contender
        ``"hmatrix"``, or the library of a dense product.
    products, rounds
        Products timed in all, and the rounds in which they were timed.
    median, lower, upper
        Median and quartiles of the rounds' means, in seconds for one product.
    """

    contender: str
    products: int
    rounds: int
    median: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Record:
    """One measured point: one layer, one method, one rank.

    Parameters
    ----------
    key
        Digest of all settings of the point; a point with the same key need not be measured again.
    network, layer
        Names of the network and of the layer that was approximated.
    rows, columns
        Shape of its weight.
    method
        Method that approximated its blocks; ``dense`` is the uncompressed layer.
    rank
        Rank asked for; for ``global-svd`` that of the H-matrix whose storage it may use, whose own
        rank stands in `leaves`; ``None`` for ``dense``.
    settings
        All settings, as in the study file.
    leaves
        ``(first row, end row, first column, end column, rank)`` of every block in tree order;
        rank -1 is a dense block.
    storage
        Bytes by part.
    relative_error
        ``||A - H||_F / ||A||_F``.
    accuracy
        ``None`` where there is no data set.
    times
        Times of the contenders of one alternating run; empty where the point is not timed.
    build_seconds
        Time to build the approximation.
    environment
        Versions, CPU, threads, kernel.
    """

    key: str
    network: str
    layer: str
    rows: int
    columns: int
    method: Method
    rank: int | None
    settings: Mapping[str, Any]
    leaves: tuple[tuple[int, int, int, int, int], ...]
    storage: Storage
    relative_error: float
    accuracy: AccuracyEvidence | None
    times: tuple[TimeEvidence, ...]
    build_seconds: float
    environment: Mapping[str, Any]

    @property
    def hmatrix_time(self) -> TimeEvidence | None:
        """Time of the approximated layer, where it was measured."""
        return next((t for t in self.times if t.contender == HMATRIX), None)

    @property
    def dense_time(self) -> TimeEvidence | None:
        """Time of the fastest dense product of the same run, where one was measured."""
        dense = [t for t in self.times if t.contender != HMATRIX]
        return min(dense, key=lambda t: t.median, default=None)

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Return the record that `to_json` wrote.

        Raises
        ------
        ValueError
            If the line is no JSON, or one of its values is of another type, or is impossible.
        """
        record: Self = read_plain(cls, json.loads(line, parse_constant=_refuse), "record")
        for name, is_possible in _possible(record):
            if not is_possible:
                raise ValueError(f"its {name} cannot be")
        return record


def _refuse(constant: str) -> float:
    raise ValueError(f"it has {constant}, which is no JSON")


def _possible(record: Record) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a record by name, and whether they can be; figures and tables divide by some of them."""
    rows, columns, storage, accuracy = record.rows, record.columns, record.storage, record.accuracy
    yield "shape", rows >= 1 and columns >= 1
    yield "rank", (record.rank is None) == (record.method is Method.DENSE) and (record.rank or 0) >= 0
    yield (
        "leaves",
        all(0 <= r0 < r1 <= rows and 0 <= c0 < c1 <= columns and k >= DENSE for r0, r1, c0, c1, k in record.leaves),
    )
    yield "storage", min(asdict(storage).values()) >= 0 < storage.uncompressed
    yield "relative_error", record.relative_error >= 0
    yield "build_seconds", record.build_seconds >= 0
    for time in record.times:
        yield "times", time.products >= 1 <= time.rounds and 0 < time.lower <= time.median <= time.upper
    if accuracy is not None:
        samples, lost, gained = accuracy.samples, accuracy.lost, accuracy.gained
        both = accuracy.correct - gained
        yield "accuracy", min(lost, gained, both) >= 0 and 1 <= samples >= lost + gained + both
        yield "accuracy", accuracy.baseline_correct == both + lost


class RecordFile:
    """Records in a JSON Lines file, one line a point, each safe on the disk before the next is measured.

    A last line that a crash cut short is dropped when the file is opened. Two that write at once would each miss what
    the other writes: whoever writes holds the file's lock (`locked`).

    Raises
    ------
    FormatError
        If a complete line is not a record.
    OutputError
        If the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: dict[str, Record] = {}
        make_folder(path.parent)
        try:
            with path.open("a+b") as file:
                file.seek(0)
                content = file.read()
                complete = content.rfind(b"\n") + 1
                file.truncate(complete)
        except OSError as error:
            raise OutputError(
                f"output {path}", f"cannot be written ({error.strerror})", "name a folder that you may write to"
            ) from error
        for number, line in enumerate(content[:complete].splitlines(), start=1):
            try:
                record = Record.from_json(line.decode())
            except (ValueError, RecursionError) as error:
                raise FormatError(
                    f"{path}, line {number}",
                    f"is not a record ({error})",
                    "remove the line, or name a new output folder",
                ) from error
            self._records[record.key] = record

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def __getitem__(self, key: str) -> Record:
        return self._records[key]

    def append(self, record: Record) -> None:
        """Write `record` to the disk.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        line = record.to_json().encode() + b"\n"
        try:
            with self._path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            came = f"cannot be written: {len(line)} bytes more ({error.strerror})"
            mend = f"make room in {self._path.parent}, and give the command again: it goes on from here"
            raise OutputError(f"output {self._path}", came, mend) from error
        self._records[record.key] = record
