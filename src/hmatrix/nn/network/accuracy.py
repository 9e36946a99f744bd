"""The least storage whose score falls by no more than is allowed, found with few evaluations."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hmatrix._support.ties import rounding_of
from hmatrix._support.typing import Scores
from hmatrix.errors import ArgumentError
from hmatrix.nn.network.report import Trial

_FIRST = 0.25
_RATIO = 2.0
_CLOSE_ENOUGH = 1.05
"""Ratio of the storages between which the answer lies, at which the search ends."""

_NORMAL = 1.96
"""Quantile of the 95 % interval."""


def judge(reference: Scores, scores: Scores, storage: float, max_drop: float) -> Trial:
    """Compare scores with those of the network as it was."""
    if scores.shape != reference.shape:
        came = f"returned {len(reference)} scores, then {len(scores)}"
        raise ArgumentError("evaluate", came, "judge the same samples each time")
    drops = reference - scores
    drop = float(drops.mean())
    interval = None
    if len(drops) > 1:
        margin = _NORMAL * float(drops.std(ddof=1)) / len(drops) ** 0.5
        interval = drop - margin, drop + margin
    # A drop of as much as is allowed is allowed: 97.3 less 96.3 is more than 1 in the last bit.
    rounding = rounding_of(np.float64, len(drops)) * float(np.abs(reference).max())
    return Trial(storage, drop, interval, drop <= max_drop + rounding)


@dataclass(frozen=True)
class Search:
    """A search over storages between the least possible and the dense network.

    Parameters
    ----------
    least
        The least possible storage, as a fraction.
    evaluations
        Most that are tried.
    """

    least: float
    evaluations: int

    def run(self, attempt: Callable[[float], Trial]) -> list[Trial]:
        """Try storages, and return all trials in their order."""
        trials: list[Trial] = []
        failed, passed = self.least, 1.0
        storage = max(_FIRST, self.least)
        while len(trials) < self.evaluations:
            trial = attempt(storage)
            trials.append(trial)
            if trial.passed:
                passed = storage
            else:
                failed = storage
            if passed <= failed * _CLOSE_ENOUGH:
                break
            if passed < 1 and any(not trial.passed for trial in trials):
                # Between the two, in the middle of their ratio.
                storage = (failed * passed) ** 0.5
            else:
                storage = max(storage / _RATIO, self.least) if trial.passed else (storage * 1.0) ** 0.5
        return trials
