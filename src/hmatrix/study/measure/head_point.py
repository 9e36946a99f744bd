"""A progressive head as a point of a study: its time and accuracy beside those of the H-matrices."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hmatrix._support.memory import aligned
from hmatrix._support.typing import FloatArray
from hmatrix.heads.head import ProgressiveHead, progressive
from hmatrix.packed.schedule import DENSE
from hmatrix.study.config.settings import Method, Study
from hmatrix.study.data.classifiers import LastLayer
from hmatrix.study.data.features import Features
from hmatrix.study.measure.records import HMATRIX, Record
from hmatrix.study.measure.subject import Subject
from hmatrix.study.measure.timing import alternate, dense_products, going_through

AGREEMENT = 0.999
"""Part of the inputs in which the largest output is to be the dense layer's."""

FEWEST = 100
"""Least images of a half of the data that calibrates a head."""


def has_head(subject: Subject) -> bool:
    """Return whether a subject's layer is the last one, of images that are enough to calibrate a head."""
    features = subject.features
    return features is not None and isinstance(features.classifier, LastLayer) and len(features.labels) >= 2 * FEWEST


def measure_head(
    study: Study, subject: Subject, features: Features, key: str, asked: dict[str, Any], surroundings: dict[str, Any]
) -> Record:
    """Measure a progressive head: each half of the images is classified by the head that the other half calibrates.

    The head of the first half is timed, on the other half's inputs.
    """
    weight = subject.weight
    m, n = weight.shape
    start = time.perf_counter()
    halves = [features.inputs[half::2] for half in (0, 1)]
    heads = [progressive(weight, subject.bias, calibration=half, agreement=AGREEMENT) for half in halves]
    seconds = (time.perf_counter() - start) / 2
    outputs = np.empty((len(features.inputs), m), np.float32)
    for half in (0, 1):
        outputs[half::2] = heads[1 - half](halves[half])
    head = heads[0]
    return Record(
        key=key,
        network=subject.network,
        layer=subject.layer,
        rows=m,
        columns=n,
        method=Method.PROGRESSIVE,
        rank=head.rank,
        settings=asked,
        leaves=((0, m, 0, n, head.rank), (0, m, 0, n, DENSE)),
        storage=head.storage(),
        relative_error=head.coarse_error(),
        accuracy=subject.accuracy_of(outputs),
        times=alternate(_contenders(head, weight, halves[1]), study.timing.products),
        build_seconds=seconds,
        environment=surroundings,
    )


def _contenders(head: ProgressiveHead, weight: FloatArray, inputs: FloatArray) -> dict[str, Callable[[], object]]:
    return {HMATRIX: going_through(head, inputs), **dense_products(weight, aligned(inputs[0]))}
