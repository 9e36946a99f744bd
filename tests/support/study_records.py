"""Records of a study that was never run, but could have been: true structure, plausible numbers."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache

from hmatrix.matrix import Storage
from hmatrix.study.config.settings import Method
from hmatrix.study.measure.records import HMATRIX, AccuracyEvidence, Record, TimeEvidence

Leaf = tuple[int, int, int, int, int]

ROWS, COLUMNS, ITEM = 1000, 1024, 4
UNCOMPRESSED = ROWS * COLUMNS * ITEM
INDEX_BYTES = 12_000
SAMPLES = 2000
BASELINE_CORRECT = 1404
METHODS = (Method.SVD, Method.QR, Method.ACA)
RANKS = (1, *range(10, 121, 10))
DENSE_SECONDS = {"native": 41.0e-6, "numpy": 41.9e-6, "torch": 63.0e-6}
ENVIRONMENT = {
    "cpu": "AMD EPYC 9R14 96-Core Processor",
    "threads": 1,
    "kernel": "avx512_vnni",
    "versions": {"hmatrix": "0.1.0", "numpy": "2.4.6"},
}


def halved(first: int, end: int) -> tuple[tuple[int, int], ...]:
    """The two halves of a cluster, the larger one first; none for a leaf cluster."""
    if end - first <= 60:
        return ()
    middle = first + (end - first + 1) // 2
    return ((first, middle), (middle, end))


def blocks(
    row: tuple[int, int], column: tuple[int, int], eta: float = 2.0
) -> Iterable[tuple[int, int, int, int, bool]]:
    """Leaves of the block cluster tree over index coordinates, as in the published study; last is admissible or not."""
    distance = max(column[0] - (row[1] - 1), row[0] - (column[1] - 1), 0)
    diameter = max(row[1] - row[0], column[1] - column[0]) - 1
    if distance > 0 and diameter <= eta * distance:
        yield (*row, *column, True)
        return
    rows, columns = halved(*row), halved(*column)
    if not rows or not columns:
        yield (*row, *column, False)
        return
    for r in rows:
        for c in columns:
            yield from blocks(r, c, eta)


@cache
def leaves_of_rank(rank: int) -> tuple[Leaf, ...]:
    """Leaves of the H-matrix of that rank; a block in which it does not pay is dense."""
    leaves = []
    for r0, r1, c0, c1, admissible in blocks((0, ROWS), (0, COLUMNS)):
        m, n = r1 - r0, c1 - c0
        leaves.append((r0, r1, c0, c1, rank if admissible and rank * (m + n) < m * n else -1))
    return tuple(leaves)


def storage_of(leaves: Sequence[Leaf], index: int = INDEX_BYTES) -> Storage:
    near = sum((r1 - r0) * (c1 - c0) for r0, r1, c0, c1, k in leaves if k < 0)
    far = sum(k * (r1 - r0 + c1 - c0) for r0, r1, c0, c1, k in leaves if k >= 0)
    return Storage(ITEM * near, ITEM * far, index, UNCOMPRESSED)


def times_of(hmatrix: float | None, jitter: float = 0.0) -> tuple[TimeEvidence, ...]:
    """One alternating run: the H-matrix, where there is one, and all dense products."""
    seconds = {name: median * (1 + jitter) for name, median in DENSE_SECONDS.items()}
    if hmatrix is not None:
        seconds = {HMATRIX: hmatrix, **seconds}
    return tuple(TimeEvidence(name, 2000, 40, t, 0.97 * t, 1.05 * t) for name, t in seconds.items())


def accuracy_of(retained: float) -> AccuracyEvidence:
    """Counts for a network that retains this fraction of the baseline's accuracy."""
    correct = round(retained * BASELINE_CORRECT)
    gained = round(0.05 * (BASELINE_CORRECT - correct)) + 6
    return AccuracyEvidence(SAMPLES, correct, BASELINE_CORRECT, BASELINE_CORRECT - correct + gained, gained)


DENSE = Record(
    key="dense",
    network="googlenet",
    layer="fc",
    rows=ROWS,
    columns=COLUMNS,
    method=Method.DENSE,
    rank=None,
    settings={"model": "googlenet", "leaf_size": 60},
    leaves=((0, ROWS, 0, COLUMNS, -1),),
    storage=Storage(UNCOMPRESSED, 0, 0, UNCOMPRESSED),
    relative_error=0.0,
    accuracy=AccuracyEvidence(SAMPLES, BASELINE_CORRECT, BASELINE_CORRECT, 0, 0),
    times=times_of(None),
    build_seconds=0.0,
    environment=ENVIRONMENT,
)

SCALES = {
    Method.SVD: 13.0,
    Method.QR: 21.0,
    Method.ACA: 34.0,
    Method.PARTIAL_ACA: 42.0,
    Method.RANDOMIZED_SVD: 14.0,
    Method.GLOBAL_SVD: 12.0,
    Method.PROGRESSIVE: 11.0,
}


def point(method: Method, rank: int) -> Record:
    """One measured point; the slower a method's error decays, the more accuracy it loses."""
    leaves = leaves_of_rank(rank)
    index = INDEX_BYTES
    if method is Method.GLOBAL_SVD:
        own = storage_of(leaves).total // (ITEM * (ROWS + COLUMNS))
        leaves, index = ((0, ROWS, 0, COLUMNS, own),), 0
    storage = storage_of(leaves, index)
    error = math.exp(-rank / (4 * SCALES[method])) * (1.2 if method is Method.ACA else 0.9)
    untimed = method is Method.GLOBAL_SVD
    jitter = 0.01 * math.sin(rank)
    seconds = 3e-6 + storage.total / 95e9 * (1 + 0.02 * math.cos(rank + SCALES[method]))
    return replace(
        DENSE,
        key=f"{method}-{rank}",
        method=method,
        rank=rank,
        leaves=leaves,
        storage=storage,
        relative_error=error,
        accuracy=accuracy_of(1 - math.exp(-(rank + 3) / SCALES[method])),
        times=() if untimed else times_of(seconds, jitter),
        build_seconds=0.25,
    )


def study(methods: Sequence[Method] = METHODS, ranks: Sequence[int] = RANKS) -> list[Record]:
    """Records of one network, in the order in which a sweep writes them."""
    return [DENSE, *(point(method, rank) for method in (*methods, Method.GLOBAL_SVD) for rank in ranks)]


def without_accuracy(records: Iterable[Record]) -> list[Record]:
    """The same study of a lone matrix."""
    return [replace(record, accuracy=None) for record in records]


def without_times(records: Iterable[Record]) -> list[Record]:
    """The same study, nothing timed."""
    return [replace(record, times=()) for record in records]


def of(records: Iterable[Record], method: Method) -> list[Record]:
    """The records of one method by rank."""
    return sorted((record for record in records if record.method is method), key=lambda record: record.rank or 0)


def slower(records: Iterable[Record], factor: float) -> list[Record]:
    """The same study with other H-matrix times, and with two dense products that are far off."""
    far = tuple(TimeEvidence(name, 10, 10, t, t, t) for name, t in (("reference kernel", 0.1), ("interpreted", 0.2)))

    def times(record: Record) -> tuple[TimeEvidence, ...]:
        scaled = (
            replace(t, median=factor * t.median, lower=factor * t.lower, upper=factor * t.upper)
            if t.contender == HMATRIX
            else t
            for t in record.times
        )
        return (*scaled, *far) if record.times else ()

    return [replace(record, times=times(record)) for record in records]
