"""Seconds of a product by a model of this machine's kernel: fitted once, and kept.

    seconds = call + panel * panels + run * runs + sum over precisions p of word[p] * words[p]

for one vector and one thread. The coefficients are fitted to the measured times of a few matrices of 1000 x 1280,
each with the same relative weight and none of them negative. Matrices that lie much further from the processor, or
much nearer to it, take more or less time than that.
"""

import operator
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, islice
from typing import Any

import numpy as np
import scipy.optimize

from hmatrix._support.clock import in_turns, mean_seconds
from hmatrix._support.machine import code_digest, cpu_name, threads
from hmatrix._support.store import Shelf, Store, default_cache
from hmatrix._support.typing import AnyArray, FloatArray, Floats64, IndexArray
from hmatrix.allocation.search.costs import words
from hmatrix.allocation.search.leaf_forms import Form
from hmatrix.assembly import build, quantize
from hmatrix.codes.precision import Activations, Precision
from hmatrix.errors import OutputError
from hmatrix.lowrank.factors import Truncation
from hmatrix.matrix import HMatrix
from hmatrix.packed.kernels import backend
from hmatrix.packed.panels import PANEL_HEIGHT, Schedule
from hmatrix.partitions.splitters import Cardinality

_SHAPE = (1000, 1280)
_ROUNDS = 15
_ROUND_SECONDS = 2e-3
_STORED = [precision for precision in Precision if precision is not Precision.FLOAT64]


@dataclass(frozen=True)
class TimeCost:
    """Seconds of a product with one vector on one thread.

    Parameters
    ----------
    call
        Seconds of a product of nothing.
    panel, run
        Seconds of each panel, and of each run of columns in it.
    word
        Seconds of a word, for each precision from float32 on.
    """

    call: float
    panel: float
    run: float
    word: tuple[float, ...]

    @property
    def unit(self) -> float:
        """A quarter of the seconds of the slowest word."""
        return max(self.word) / 4

    def of_form(self, form: Form, rows: AnyArray, columns: AnyArray) -> Floats64:
        """Estimate the seconds of blocks, without the call."""
        runs = np.ceil(rows / PANEL_HEIGHT)
        total = np.zeros(np.broadcast_shapes(rows.shape, columns.shape))
        for plane in form.planes:
            total += self._of_words(plane, rows * words(plane, columns)) + self.run * runs
        if form.rank:
            stored = rows * words(form.factors, np.array(form.rank)) + form.rank * words(form.factors, columns)
            panels = np.ceil(form.rank / PANEL_HEIGHT)
            total += self._of_words(form.factors, stored) + self.run * (runs + panels) + self.panel * panels
        return total

    def of_matrix(self, leaves: IndexArray, schedule: Schedule) -> float:  # noqa: ARG002
        """Return the seconds of a product with a whole matrix."""
        panels, runs, counts = _counted(schedule)
        of_words = sum(self._of_words(precision, float(count)) for precision, count in counts.items())
        return float(self.call + self.panel * panels + self.run * runs + of_words)

    def of_permutations(self, entries: int) -> float:
        """Return the seconds of putting entries into another order: about a load and a store of a word each."""
        return entries * self.word[0]

    def _of_words(self, precision: Precision, count: Any) -> Any:
        return self.word[precision - Precision.FLOAT32] * count


def time_cost(activations: Activations) -> TimeCost:
    """Return the model of this machine's kernel, fitted now unless it is in the cache.

    Parameters
    ----------
    activations
        Treatment of a product's input.
    """
    store, name = Store(default_cache(), Shelf.TIMES), f"{backend().name}-{activations.value}"
    if (known := store.recall(name, _known_model)) is not None:
        return known
    cost = _fitted(activations)
    # Where nothing may be written, it is fitted again each time.
    with suppress(OutputError):
        store.keep(name, {"seconds": np.array([cost.call, cost.panel, cost.run, *cost.word])}, _surroundings())
    return cost


def _surroundings() -> dict[str, str]:
    """Return the machine and the code that a model is valid for; the name of its file tells the kernel."""
    return {"machine": cpu_name(), "code": code_digest("nn", "study", "cli")}


def _known_model(arrays: dict[str, AnyArray], facts: dict[str, Any]) -> TimeCost | None:
    """Return the model that was kept, or ``None`` for that of another machine, or of other code."""
    if facts != _surroundings():
        return None
    call, panel, run, *word = arrays["seconds"].tolist()
    return TimeCost(call, panel, run, tuple(word))


def dense_seconds(shape: tuple[int, int], cost: TimeCost, activations: Activations) -> float:
    """Return the seconds of the fastest dense float32 product of a shape, NumPy's or the native one, in a model's.

    They are measured now, beside products that the model knows, and scaled by what these take now: the processor may
    have been slower, or faster, when the model was fitted, and a budget is a fraction.
    """
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    native, x = quantize(weight, "float32"), np.ones(shape[1], np.float32)
    known, ones = _known(activations), np.ones(_SHAPE[1], np.float32)
    calls = [partial(operator.matmul, matrix, x) for matrix in (native, weight)]
    calls += [partial(operator.matmul, matrix, ones) for matrix in known]
    with threads(1):
        of_native, of_numpy, *of_known = _measured(calls)
    modelled = [cost.of_matrix(packed.leaves, packed.schedule) for packed in (matrix.pack() for matrix in known)]
    ratio = np.exp(np.log(np.divide(modelled, of_known)).mean())
    return min(of_native, of_numpy) * float(ratio)


@cache
def _known(activations: Activations) -> list[HMatrix]:
    """Return two matrices of the model: one whose product is limited by reading it, and one by instructions."""
    return [quantize(_weight(), precision, activations=activations) for precision in (Precision.INT8, Precision.INT4)]


def _weight() -> FloatArray:
    """Return the weight of all matrices that the model is fitted to."""
    return np.random.default_rng(0).standard_normal(_SHAPE).astype(np.float32)


def _fitted(activations: Activations) -> TimeCost:
    weight, x = _weight(), np.ones(_SHAPE[1], np.float32)
    structures = [
        build(weight, truncation=Truncation(max_rank=30)),
        build(weight, splitter=Cardinality(250), truncation=Truncation(max_rank=8)),
        build(weight[:64, :64], truncation=Truncation(max_rank=1)),
    ]
    matrices: list[HMatrix] = []
    for precision in _STORED:
        matrices += [quantize(part, precision, activations=activations) for part in (weight, weight[:250])]
        matrices += [structure.astype(precision, activations=activations) for structure in structures]
    rows = []
    for matrix in matrices:
        panels, runs, counts = _counted(matrix.pack().schedule)
        rows.append([1.0, panels, runs, *(counts[precision] for precision in _STORED)])
    sources = [x[: matrix.shape[1]] for matrix in matrices]
    with threads(1):
        calls = [partial(operator.matmul, matrix, source) for matrix, source in zip(matrices, sources, strict=True)]
        seconds = np.array(_measured(calls))
    design = np.array(rows) / seconds[:, None]
    size = np.abs(design).max(axis=0)
    solution = scipy.optimize.nnls(design / size, np.ones(len(seconds)))[0] / size
    call, panel, run, *word = solution.tolist()
    return TimeCost(call, panel, run, tuple(word))


def _counted(schedule: Schedule) -> tuple[int, int, Counter[Precision]]:
    """Return the panels, the runs, and the words of each precision."""
    panels = runs = 0
    counts: Counter[Precision] = Counter()
    for panel in chain(schedule.far.panels, schedule.near.panels):
        panels += 1
        runs += len(panel.runs)
        for run in panel.runs:
            counts[run.precision] += panel.height * run.words()
    return panels, runs, counts


def _measured(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Return the least seconds of each call in rounds that alternate: time of other programs is no part of a model."""
    counts = [max(1, int(_ROUND_SECONDS / mean_seconds(call, before=1))) for call in calls]
    contenders = [partial(mean_seconds, call, count) for call, count in zip(calls, counts, strict=True)]
    least: list[float] = np.min([*islice(in_turns(contenders), _ROUNDS)], axis=0).tolist()
    return least
