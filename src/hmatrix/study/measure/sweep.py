"""Measure the points of a study, each kept as soon as it is known."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from hmatrix._support.machine import threads
from hmatrix._support.typing import FloatArray
from hmatrix.assembly import build, global_svd, quantize
from hmatrix.lowrank.factors import LowRank, Truncation
from hmatrix.matrix import HMatrix
from hmatrix.metrics import relative_error
from hmatrix.packed.packing import PackedLeaf
from hmatrix.packed.schedule import DENSE
from hmatrix.study.config import strategies
from hmatrix.study.config.settings import Method, Structure, Study
from hmatrix.study.measure.environment import environment
from hmatrix.study.measure.head_point import AGREEMENT, has_head, measure_head
from hmatrix.study.measure.records import Record, RecordFile
from hmatrix.study.measure.subject import Subject
from hmatrix.study.measure.timing import time_products


@dataclass(frozen=True)
class Point:
    """One row of the results: a method and a rank; no rank for the uncompressed layer."""

    method: Method
    rank: int | None


def points(study: Study) -> list[Point]:
    """Return the points of a study in the order in which they are measured."""
    methods = (*study.methods, Method.GLOBAL_SVD)
    asked = [Point(Method.DENSE, None), *(Point(method, rank) for method in methods for rank in study.ranks)]
    return list(dict.fromkeys(asked))


def sweep(study: Study, subject: Subject, file: RecordFile) -> list[Record]:
    """Measure the points that are not in `file` yet, and return the records of all.

    Parameters
    ----------
    study
        Study to measure.
    subject
        Layer that is measured.
    file
        File that keeps each record as soon as it is known.
    """
    surroundings = environment(study.timing.threads)
    settings = {
        "structure": asdict(study.structure),
        "timing": asdict(study.timing),
        "weights_and_data": subject.digest,
        "network": subject.network,
        "layer": subject.layer,
    }
    records = []
    with threads(study.timing.threads):
        for point in tqdm(points(study), desc=subject.network, unit="point", delay=2):
            asked = {**settings, **asdict(point)}
            records.append(_kept(file, asked, surroundings, partial(_measure, study, subject, point)))
        if subject.features is not None and has_head(subject):
            asked = {**settings, "method": Method.PROGRESSIVE, "agreement": AGREEMENT}
            records.append(_kept(file, asked, surroundings, partial(measure_head, study, subject, subject.features)))
    return records


def _kept(
    file: RecordFile, asked: dict[str, Any], surroundings: dict[str, Any], measure: Callable[..., Record]
) -> Record:
    """Return the record of a point, which is measured unless the file has it."""
    key = _key(asked, surroundings)
    if key not in file:
        file.append(measure(key, asked, surroundings))
    return file[key]


def _key(asked: dict[str, Any], surroundings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([asked, surroundings], sort_keys=True).encode()).hexdigest()


def approximate(weight: FloatArray, structure: Structure, method: Method, rank: int) -> HMatrix:
    """Return the H-matrix of one method and rank."""
    return build(
        weight,
        coordinates=strategies.COORDINATES[structure.coordinates],
        splitter=strategies.splitter(structure),
        admissibility=strategies.admissibility(structure),
        compressor=strategies.COMPRESSORS[method],
        truncation=Truncation(max_rank=rank),
    )


def affordable_rank(weight: FloatArray, structure: Structure, rank: int) -> int:
    """Return the largest rank, at least 1, of a global SVD that takes no more bytes than the H-matrix of `rank`."""
    allowed: int = approximate(weight, structure, Method.SVD, rank).storage().total
    m, n = weight.shape
    affordable: int = allowed // ((m + n) * weight.itemsize)
    # The bytes of a leaf beside its coefficients depend on the rank, a little.
    while affordable > 1 and _single_leaf((m, n), weight.dtype, affordable).storage().total > allowed:
        affordable -= 1
    return max(1, affordable)


def _single_leaf(shape: tuple[int, int], dtype: np.dtype[Any], rank: int) -> HMatrix:
    """Return an H-matrix of one leaf with factors of zeros, as large as those of `rank`."""
    m, n = shape
    factors = LowRank(np.zeros((m, rank), dtype), np.zeros((n, rank), dtype))
    return HMatrix.from_leaves((m, n), [PackedLeaf(slice(0, m), slice(0, n), factors)])


def _measure(
    study: Study, subject: Subject, point: Point, key: str, asked: dict[str, Any], surroundings: dict[str, Any]
) -> Record:
    weight = subject.weight
    m, n = weight.shape
    own_rank = None
    if point.rank is not None and point.method is Method.GLOBAL_SVD:
        own_rank = affordable_rank(weight, study.structure, point.rank)
    start = time.perf_counter()
    if point.rank is None:
        matrix = quantize(weight, weight.dtype)
    elif own_rank is not None:
        matrix = global_svd(weight, Truncation(max_rank=own_rank))
    else:
        matrix = approximate(weight, study.structure, point.method, point.rank)
    seconds = time.perf_counter() - start
    times = time_products(None if point.rank is None else matrix, weight, study.timing.products)
    return Record(
        key=key,
        network=subject.network,
        layer=subject.layer,
        rows=m,
        columns=n,
        method=point.method,
        rank=point.rank,
        settings=asked,
        leaves=tuple(_leaves(matrix)),
        storage=matrix.storage(),
        relative_error=relative_error(weight, matrix),
        accuracy=subject.baseline() if point.rank is None else subject.accuracy(matrix),
        times=times,
        build_seconds=seconds,
        environment=surroundings,
    )


def _leaves(matrix: HMatrix) -> Iterator[tuple[int, int, int, int, int]]:
    for leaf in matrix.leaves():
        rank = DENSE if leaf.rank is None else leaf.rank
        yield leaf.rows.start, leaf.rows.stop, leaf.columns.start, leaf.columns.stop, rank
