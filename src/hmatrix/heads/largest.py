"""Choosing rows with large outputs, by comparisons and a bisection for a threshold, as the kernel of a head does."""

import numpy as np

from hmatrix._support.typing import FloatArray, Integers64
from hmatrix.heads.words import STRIP, padded

BISECTIONS = 12


def choose_largest(values: FloatArray, wanted: int) -> Integers64:
    """Choose the `wanted` rows with nearly the largest values of all; none if there are not so many finite ones."""
    most = values.max()
    if not np.isfinite(most):
        return np.empty(0, np.int64)
    if wanted == 1:
        return np.flatnonzero(values >= most)[:1]
    if wanted <= STRIP:
        # At least so many values are no less than the last of so many lanes' largest.
        lanes = np.full(padded(len(values), STRIP), -np.inf, np.float32)
        lanes[: len(values)] = values
        low = np.sort(lanes.reshape(-1, STRIP).max(axis=0))[-wanted]
        if np.isfinite(low):
            return _choose(values, low, wanted)
    step = np.maximum(np.abs(most), np.float32(1e-30)) / np.float32(64)
    with np.errstate(over="ignore"):
        while np.count_nonzero(values >= most - step) < wanted:
            step *= np.float32(2)
            if not np.isfinite(step):
                return np.empty(0, np.int64)
    return _choose(values, most - step, wanted)


def _choose(values: FloatArray, low: np.floating, wanted: int) -> Integers64:
    """Choose `wanted` rows with nearly the largest values, where at least so many are at least `low`."""
    high = np.nextafter(values.max(), np.float32(np.inf))
    low = np.float32(low)
    for _ in range(BISECTIONS):
        middle = np.float32(0.5) * low + np.float32(0.5) * high
        count = int(np.count_nonzero(values >= middle))
        if count > wanted:
            low = middle
        else:
            high = middle
        if count == wanted:
            break
    above = np.flatnonzero(values >= high)
    return np.concatenate([above, np.flatnonzero((values >= low) & (values < high))[: wanted - len(above)]])
