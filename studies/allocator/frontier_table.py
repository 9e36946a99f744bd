"""The frontier as Markdown: what is lost at each budget, the allocator's figures and everybody's."""

from collections.abc import Callable, Sequence

from hmatrix.study.measure.statistics import paired_interval
from studies.allocator.competitors import OWN, Contender
from studies.allocator.frontier_records import FrontierRecord


def frontier_table(records: Sequence[FrontierRecord]) -> str:
    """Return one row for each record, by budget, and below who has less error than the allocator."""
    columns = [column for column in _COLUMNS if any(column[1](record) for record in records)]
    lines = [
        [head for head, _ in columns],
        [":--" if head in _TEXTS else "--:" for head, _ in columns],
        *([cell(record) for _, cell in columns] for record in sorted(records, key=lambda record: record.budget)),
    ]
    return f"{_table(lines)}\n{_note(records)}\n"


def frontier_summary(records: Sequence[FrontierRecord]) -> str:
    """Return one row for each method, one column for each budget: top-1 lost in points, where known, and error."""
    budgets = sorted({record.budget for record in records})
    cells = {(record.contender, record.budget): _summary(record) for record in records}
    shares = [f"{100 * budget / records[0].dense_bytes:.1f} %" for budget in budgets]
    lines = [["method", *shares], [":--", *["--:"] * len(budgets)]]
    for contender in Contender:
        if any((contender, budget) in cells for budget in budgets):
            lines.append([contender.value, *(cells.get((contender, budget), "") for budget in budgets)])
    return _table(lines)


def lost_points(record: FrontierRecord) -> float | None:
    """Return the top-1 lost, in points; ``None`` where it was not measured."""
    accuracy = record.accuracy
    return None if accuracy is None else 100 * (accuracy.lost - accuracy.gained) / accuracy.samples


def lost_interval(record: FrontierRecord) -> tuple[float, float] | None:
    """Return the paired 95 % interval of the top-1 lost, in points."""
    accuracy = record.accuracy
    if accuracy is None:
        return None
    lower, upper = paired_interval(accuracy.samples, accuracy.lost, accuracy.gained)
    return 100 * lower, 100 * upper


def error(record: FrontierRecord) -> float:
    """Return the error of the output, or of the weight where there were no images."""
    return record.weight_error if record.output_error is None else record.output_error


def better(records: Sequence[FrontierRecord]) -> list[tuple[FrontierRecord, FrontierRecord]]:
    """Return the competitors that have less error than the allocator at the same budget, each with the allocator's."""
    own = {record.budget: record for record in records if record.contender is Contender.ALLOCATOR}
    return [
        (record, own[record.budget])
        for record in records
        if record.contender not in OWN and error(record) < error(own[record.budget])
    ]


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _summary(record: FrontierRecord) -> str:
    lost = lost_points(record)
    return _small(error(record)) if lost is None else f"{lost:z.1f} / {_small(error(record))}"


def _note(records: Sequence[FrontierRecord]) -> str:
    ahead = [
        f"{record.contender.value} at {100 * record.budget / record.dense_bytes:.1f} % "
        f"({_small(error(record))}, the allocator {_small(error(own))})"
        for record, own in better(records)
    ]
    return f"Less error than the allocator's at equal bytes: {'; '.join(ahead) or 'none'}."


def _interval(record: FrontierRecord) -> str:
    interval = lost_interval(record)
    return "" if interval is None else f"[{interval[0]:z.1f}, {interval[1]:z.1f}]"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:z.{digits}f}"


def _small(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if value >= 1e-3 else f"{value:.1e}" if value else "0"


_TEXTS = ("method", "form", "order of rows, columns", "95 % interval")

_COLUMNS: tuple[tuple[str, Callable[[FrontierRecord], str]], ...] = (
    ("budget, %", lambda record: _number(100 * record.budget / record.dense_bytes, 1)),
    ("method", lambda record: record.contender.value),
    ("bytes", lambda record: f"{record.nbytes:,}"),
    ("lost, points", lambda record: _number(lost_points(record), 1)),
    ("95 % interval", _interval),
    ("output error", lambda record: _small(record.output_error)),
    ("weight error", lambda record: _small(record.weight_error)),
    ("predicted", lambda record: _small(record.predicted_error)),
    ("measured", lambda record: _small(record.measured_error)),
    ("damping", lambda record: " / ".join(f"{share:g}" for share in record.damping or ())),
    ("order of rows, columns", lambda record: ", ".join(record.arrangement or ())),
    ("form", lambda record: record.form),
    ("s", lambda record: _number(record.seconds, 1)),
)
