"""Paired timing: the contenders alternate in one run, and each round gives one mean of each.

torch's products run in inference mode, which is entered once, as around a network.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import cycle

import numpy as np
import torch

from hmatrix._support.checks import check_integer
from hmatrix._support.clock import in_turns, mean_seconds
from hmatrix._support.machine import threads
from hmatrix._support.memory import aligned
from hmatrix._support.typing import FloatArray
from hmatrix.assembly import quantize
from hmatrix.matrix import HMatrix
from hmatrix.packed.kernels import read_words
from hmatrix.study.measure.records import HMATRIX, TimeEvidence

ROUND_SECONDS = 4e-3
"""Seconds of each contender in a round, about: many ticks of the clock, few interruptions."""

FEWEST_ROUNDS = 15
LONGEST_SECONDS = 2.0
COLD_BYTES = 1 << 27
"""Bytes that are read before each call whose data shall come from memory: more than the caches hold."""

REST_SECONDS = 0.2
"""Seconds until the threads of all libraries sleep: OpenBLAS lets its own wait busily for 0.1 s."""

WARMING = 0.25
"""Part of a round's calls that are made before them, so that all data are where repeated products find them."""

TIMED_INPUTS = 64
"""Inputs that calls go through whose time depends on their input."""

STABLE = 0.01
"""Fraction of a median that its 95 % interval may reach to either side for it to be stable."""


def dense_products(weight: FloatArray, x: FloatArray) -> dict[str, Callable[[], object]]:
    """Return all dense products of a weight with x, by name.

    Parameters
    ----------
    weight
        ``(m, n)``, contiguous.
    x
        ``(n,)``, or ``(batch, n)``.
    """
    weight = aligned(weight)
    torch_weight, torch_x = torch.from_numpy(weight), torch.from_numpy(x)
    is_vector = x.ndim == 1

    return {
        "torch": (lambda: torch.mv(torch_weight, torch_x))
        if is_vector
        else (lambda: torch.nn.functional.linear(torch_x, torch_weight)),
        "numpy": (lambda: weight @ x) if is_vector else (lambda: x @ weight.T),
        "native": product_with(quantize(weight, weight.dtype), x),
    }


def going_through(call: Callable[[FloatArray], object], inputs: FloatArray) -> Callable[[], object]:
    """Return a call with one of the first inputs ``(samples, n)`` after another, if its time depends on them."""
    following = cycle([aligned(x) for x in inputs[:TIMED_INPUTS]]).__next__
    return lambda: call(following())


def product_with(matrix: HMatrix, x: FloatArray) -> Callable[[], object]:
    """Return the public call that multiplies `matrix` ``(m, n)`` with x, ``(n,)`` or ``(batch, n)``."""
    return (lambda: matrix @ x) if x.ndim == 1 else (lambda: matrix.apply(x))


def time_products(matrix: HMatrix | None, weight: FloatArray, products: int | None) -> tuple[TimeEvidence, ...]:
    """Time the product of an H-matrix and the dense ones in alternation.

    Parameters
    ----------
    matrix
        The H-matrix ``(m, n)``; ``None`` times the dense products alone.
    weight
        The dense matrix ``(m, n)``.
    products
        Products of each; ``None`` goes on until the medians are stable, for two seconds at most.
    """
    x = aligned(np.random.default_rng(0).standard_normal((weight.shape[1],)).astype(weight.dtype))
    contenders = dense_products(weight, x)
    if matrix is not None:
        contenders = {HMATRIX: product_with(matrix, x), **contenders}
    return alternate(contenders, products)


def alternate(
    contenders: Mapping[str, Callable[[], object]],
    products: int | None = None,
    *,
    cold: bool = False,
    rest: bool = False,
    warming: float = 0.0,
    single: Collection[str] = (),
) -> tuple[TimeEvidence, ...]:
    """Time the contenders in alternating rounds, in an order that turns from round to round.

    Parameters
    ----------
    contenders
        Functions to call, by name.
    products
        Calls of each; ``None`` goes on until the medians are stable, for two seconds at most, and calls a fast
        contender more often than a slow one.
    cold
        Whether other data are read before each call, so that its own come from memory.
    rest
        Whether to wait before each round until the threads of the last contender leave the cores to the next.
    warming
        Calls that are not counted before those of a round, as a fraction of them; one at least. They bring the data
        back that other contenders threw out of the caches, for which one call is not always enough, and wake up cores.
    single
        Names of contenders that are called with one thread each, whatever the others have.
    """
    flush = _flush() if cold else None

    def seconds(name: str, count: int) -> float:
        before = 0 if cold else max(1, int(warming * count))
        with threads(1) if name in single else nullcontext():
            return mean_seconds(contenders[name], count, before=before, between=flush)

    def next_seconds(name: str) -> float:
        if rest:
            time.sleep(REST_SECONDS)
        # The last round holds what is left of an exact number of products.
        count = counts[name] if products is None else min(counts[name], products - len(means) * counts[name])
        return seconds(name, count)

    with torch.inference_mode():
        counts = {name: 1 if cold else max(1, int(ROUND_SECONDS / seconds(name, 3))) for name in contenders}
        rounds = None
        if products is not None:
            check_integer("products", products, at_least=1)
            counts = dict.fromkeys(counts, min(products, *counts.values()))
            rounds = -(-products // min(counts.values()))
        means: list[list[float]] = []
        start = time.perf_counter()
        for of_round in in_turns([partial(next_seconds, name) for name in contenders], turning=True):
            means.append(of_round)
            if len(means) == rounds or (rounds is None and _stable(means, time.perf_counter() - start)):
                break
    return tuple(
        _evidence(name, values, products or counts[name] * len(means))
        for name, values in zip(contenders, zip(*means, strict=True), strict=True)
    )


def _flush() -> Callable[[], object]:
    """Return a call that fills the caches with data that nobody else needs."""
    words = np.ones(COLD_BYTES // 4, np.uint32)
    return lambda: read_words(words)


def _stable(means: list[list[float]], elapsed: float) -> bool:
    """Return whether the medians over rounds are stable, or have taken long enough."""
    if len(means) < FEWEST_ROUNDS:
        return False
    return elapsed > LONGEST_SECONDS or all(_half_width(values) < STABLE for values in zip(*means, strict=True))


def _half_width(values: Sequence[float]) -> float:
    """Half the 95 % interval of the median, by order statistics, relative to the median."""
    ordered = np.sort(values)
    reach = 0.98 * np.sqrt(len(ordered))
    centre = (len(ordered) - 1) / 2
    low, high = (ordered[int(np.clip(centre + side * reach, 0, len(ordered) - 1))] for side in (-1, 1))
    return float((high - low) / (2 * np.median(ordered)))


def _evidence(name: str, means: Sequence[float], products: int) -> TimeEvidence:
    lower, median, upper = (float(q) for q in np.quantile(means, [0.25, 0.5, 0.75]))
    return TimeEvidence(name, products, len(means), median, lower, upper)
