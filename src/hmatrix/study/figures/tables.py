"""Table I: savings and losses of every method and rank, as Markdown, CSV, or text for a terminal.

Time saved compares the H-matrix with the *fastest* dense product of the same run; accuracy lost is paired with the
uncompressed network's. A number that was not measured is an empty cell.
"""

import csv
import io
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

from hmatrix.errors import ArgumentError
from hmatrix.packed.schedule import DENSE
from hmatrix.study.config.settings import Method
from hmatrix.study.measure.records import Record
from hmatrix.study.measure.statistics import paired_interval

TERMINAL = 110
"""Columns of the terminal that a table is written for."""

ORDER = (
    Method.DENSE,
    Method.SVD,
    Method.RANDOMIZED_SVD,
    Method.QR,
    Method.ACA,
    Method.PARTIAL_ACA,
    Method.GLOBAL_SVD,
    Method.PROGRESSIVE,
)
"""Order of the methods in tables and legends: each baseline at its end."""


@dataclass(frozen=True)
class Row:
    """One row of Table I; the fields are the columns of the CSV file, units and all.

    Parameters
    ----------
    method, rank
        Method and rank of the record; ``None`` is the rank of the uncompressed layer.
    largest_rank
        Largest rank of all low-rank blocks: for the global SVD its own; ``None`` where no block has low rank.
    far_field_blocks, near_field_blocks
        Leaves with a rank, and dense leaves.
    storage_bytes, storage_percent
        All bytes that the product needs, and as a share of the uncompressed matrix.
    relative_error
        ``||A - H||_F / ||A||_F``.
    hmatrix_seconds, dense_seconds, dense_product
        Median of one product, of the fastest dense one of the same run, and the library of that one.
    time_saved_percent
        Part of `dense_seconds` that is saved; negative where the H-matrix is slower.
    samples
        Images evaluated.
    top1_percent
        Images classified rightly.
    lost_points, lost_lower_points, lost_upper_points
        Accuracy lost against the uncompressed network, in percentage points, with the ends of its
        paired 95 % interval.
    lost_relative_percent
        Accuracy lost as a share of the uncompressed network's.
    """

    method: Method
    rank: int | None
    largest_rank: int | None
    far_field_blocks: int
    near_field_blocks: int
    storage_bytes: int
    storage_percent: float
    relative_error: float
    hmatrix_seconds: float | None
    dense_seconds: float | None
    dense_product: str | None
    time_saved_percent: float | None
    samples: int | None
    top1_percent: float | None
    lost_points: float | None
    lost_lower_points: float | None
    lost_upper_points: float | None
    lost_relative_percent: float | None


def table_rows(records: Sequence[Record]) -> list[Row]:
    """Return the rows of Table I: the uncompressed layer first, then by method and rank.

    Raises
    ------
    ArgumentError
        If the records are of more than one layer.
    """
    return [_row(record) for record in in_order(records)]


def in_order(records: Sequence[Record]) -> list[Record]:
    """Return the records of one layer by method and rank.

    Raises
    ------
    ArgumentError
        If the records are of more than one layer.
    """
    layers = sorted({f"{record.network} {record.layer}" for record in records})
    if len(layers) > 1:
        raise ArgumentError("records", f"are of {len(layers)} layers ({', '.join(layers)})", "give those of one layer")
    return sorted(records, key=lambda record: (ORDER.index(record.method), record.rank or 0))


def _row(record: Record) -> Row:
    ranks = [leaf[4] for leaf in record.leaves if leaf[4] != DENSE]
    hmatrix, dense, accuracy = record.hmatrix_time, record.dense_time, record.accuracy
    # The uncompressed layer is the baseline itself: it has no loss, and no interval of one.
    paired = accuracy if record.method is not Method.DENSE else None
    lower, upper = paired_interval(paired.samples, paired.lost, paired.gained) if paired else (None, None)
    net = paired.lost - paired.gained if paired else None
    return Row(
        method=record.method,
        rank=record.rank,
        largest_rank=max(ranks, default=None),
        far_field_blocks=len(ranks),
        near_field_blocks=len(record.leaves) - len(ranks),
        storage_bytes=record.storage.total,
        storage_percent=100 * record.storage.ratio,
        relative_error=record.relative_error,
        hmatrix_seconds=hmatrix.median if hmatrix else None,
        dense_seconds=dense.median if dense else None,
        dense_product=dense.contender if dense else None,
        time_saved_percent=100 * (1 - hmatrix.median / dense.median) if hmatrix and dense else None,
        samples=accuracy.samples if accuracy else None,
        top1_percent=100 * accuracy.correct / accuracy.samples if accuracy else None,
        lost_points=100 * net / paired.samples if paired and net is not None else None,
        lost_lower_points=100 * lower if lower is not None else None,
        lost_upper_points=100 * upper if upper is not None else None,
        lost_relative_percent=(
            100 * net / paired.baseline_correct if paired and net is not None and paired.baseline_correct else None
        ),
    )


def table_note(records: Sequence[Record]) -> str:
    """Return the line under the table: the measurement, its data and machine, and its rival."""
    records = in_order(records)
    if not records:
        return ""
    first = records[0]
    parts = [f"{first.network} {first.layer}, {first.rows} × {first.columns}"]
    dense = unique(record.dense_time.contender for record in records if record.dense_time)
    if dense:
        parts.append(f"time saved against the fastest dense product of the same run ({', '.join(dense)})")
    parts.extend(machine(records))
    samples = unique(str(record.accuracy.samples) for record in records if record.accuracy)
    if samples:
        parts.append(f"top-1 over {', '.join(samples)} images, loss with its paired 95 % interval")
    if any(record.method is Method.GLOBAL_SVD for record in records):
        parts.append("global-svd: one truncated SVD of no more storage than the SVD H-matrix, its own rank in brackets")
    if any(record.method is Method.PROGRESSIVE for record in records):
        parts.append(
            "progressive: rank and error of its coarse part, the rows that can be the largest are exact; each half of "
            "the images is classified by the head that the other half calibrates"
        )
    return "; ".join(parts) + "."


def machine(records: Iterable[Record]) -> list[str]:
    """Return threads, kernel and CPU of the records, as far as their environments name them."""
    found = {
        name: unique(str(record.environment[name]) for record in records if name in record.environment)
        for name in ("cpu", "threads", "kernel")
    }
    parts = []
    if found["threads"]:
        parts.append(f"{' / '.join(found['threads'])} {'thread' if found['threads'] == ['1'] else 'threads'}")
    if found["kernel"]:
        parts.append(f"kernel {' / '.join(found['kernel'])}")
    if found["cpu"]:
        parts.append(" / ".join(found["cpu"]))
    return parts


def unique(values: Iterable[str]) -> list[str]:
    """Return the values in the order of their first appearance."""
    return list(dict.fromkeys(values))


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:z.{digits}f}"


def own_rank(row: Row) -> str:
    """Return the rank of a global SVD itself, which differs from `rank`; it is dense where its rank would not pay."""
    return "dense" if row.largest_rank is None else str(row.largest_rank)


def _rank(row: Row) -> str:
    if row.rank is None:
        return ""
    return f"{row.rank} ({own_rank(row)})" if row.method is Method.GLOBAL_SVD else str(row.rank)


def _interval(row: Row) -> str:
    ends = (row.lost_lower_points, row.lost_upper_points)
    return "" if None in ends else f"[{_number(ends[0], 2)}, {_number(ends[1], 2)}]"


def _microseconds(seconds: float | None) -> str:
    return "" if seconds is None else _number(1e6 * seconds, 1)


_COLUMNS: tuple[tuple[str, str, Callable[[Row], str]], ...] = (
    ("method", "", lambda row: row.method.value),
    ("rank", "", _rank),
    ("storage", "%", lambda row: _number(row.storage_percent, 1)),
    ("error", "", lambda row: _number(row.relative_error, 3)),
    ("time", "µs", lambda row: _microseconds(row.hmatrix_seconds)),
    ("dense", "µs", lambda row: _microseconds(row.dense_seconds)),
    ("by", "", lambda row: row.dense_product or ""),
    ("saved", "%", lambda row: _number(row.time_saved_percent, 1)),
    ("top-1", "%", lambda row: _number(row.top1_percent, 2)),
    ("lost", "points", lambda row: _number(row.lost_points, 2)),
    ("95 % interval", "points", _interval),
    ("lost", "rel. %", lambda row: _number(row.lost_relative_percent, 1)),
)
"""Head, unit and cell of every column that people read."""


def to_csv(rows: Sequence[Row]) -> str:
    """Return raw numbers as CSV, one column for every field of `Row`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(Row)]
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in rows)
    return text.getvalue()


def to_markdown(rows: Sequence[Row], note: str = "") -> str:
    """Return a Markdown table with `note` below it."""
    heads = [f"{head} ({unit})" if unit else head for head, unit, _ in _COLUMNS]
    rules = [":--", *["--:"] * (len(_COLUMNS) - 1)]
    lines = [heads, rules, *([cell(row) for _, _, cell in _COLUMNS] for row in rows)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
    return f"{table}\n{note}\n" if note else table


def to_text(rows: Sequence[Row], note: str = "") -> str:
    """Return an aligned table for a terminal with `note` below it; a column without any number is left out."""
    cells = [[cell(row) for row in rows] for _, _, cell in _COLUMNS]
    shown = [
        (head, unit, column) for (head, unit, _), column in zip(_COLUMNS, cells, strict=True) if any(column) or not rows
    ]
    columns = [[head, unit, *column] for head, unit, column in shown]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(
            text.ljust(width) if first else text.rjust(width)
            for first, text, width in zip((True, *[False] * len(widths)), line, widths, strict=False)
        ).rstrip()
        for line in zip(*columns, strict=True)
    ]
    lines.insert(2, "-" * max(map(len, lines)))
    return "\n".join([*lines, *textwrap.wrap(note, TERMINAL, break_on_hyphens=False)]) + "\n"
