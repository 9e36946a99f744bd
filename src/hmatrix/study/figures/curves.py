"""Points of the lines of figures: numbers of the records against rank, method by method."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hmatrix.study.config.settings import Method
from hmatrix.study.figures.tables import in_order
from hmatrix.study.measure.records import HMATRIX, Record
from hmatrix.study.measure.statistics import paired_interval

MEGA = 1e6
"""Microseconds of a second."""

Measure = Callable[[Record], tuple[float, float, float] | None]
"""A record's value and the ends of its band; ``None`` where it was not measured."""


@dataclass(frozen=True)
class Curve:
    """Points of one method's line, and its band."""

    ranks: list[float]
    values: list[float]
    lower: list[float]
    upper: list[float]


def curves(records: Sequence[Record], measure: Measure) -> dict[Method, Curve]:
    """Return one curve for every method that has a measured point."""
    found: dict[Method, Curve] = {}
    for record in in_order(records):
        measured = measure(record)
        if record.rank is None or measured is None:
            continue
        curve = found.setdefault(record.method, Curve([], [], [], []))
        for axis, number in zip(
            (curve.ranks, curve.values, curve.lower, curve.upper), (float(record.rank), *measured), strict=True
        ):
            axis.append(number)
    return found


def time_of(record: Record) -> tuple[float, float, float] | None:
    """Median and quartiles of one product, in microseconds."""
    time = record.hmatrix_time
    return (MEGA * time.median, MEGA * time.lower, MEGA * time.upper) if time else None


def storage_of(record: Record) -> tuple[float, float, float]:
    """Storage in percent of the dense matrix; it has no band."""
    return (100 * record.storage.ratio,) * 3


def accuracy_of(record: Record) -> tuple[float, float, float] | None:
    """Top-1 in percent, and the baseline less the paired interval of the loss."""
    accuracy = record.accuracy
    if accuracy is None:
        return None
    lower, upper = paired_interval(accuracy.samples, accuracy.lost, accuracy.gained)
    top1, baseline = accuracy.top1, accuracy.baseline_top1
    return 100 * top1, 100 * (baseline - upper), 100 * (baseline - lower)


def error_of(record: Record) -> tuple[float, float, float]:
    """Relative Frobenius error; it has no band."""
    return (record.relative_error,) * 3


def dense_products(records: Sequence[Record]) -> list[tuple[str, float]]:
    """Return every dense product and its median over the medians of all runs, in microseconds, fastest first."""
    medians: dict[str, list[float]] = {}
    for record in records:
        for time in record.times:
            if time.contender != HMATRIX:
                medians.setdefault(time.contender, []).append(MEGA * time.median)
    pooled = [(name, statistics.median(times)) for name, times in medians.items()]
    return sorted(pooled, key=lambda product: product[1])
