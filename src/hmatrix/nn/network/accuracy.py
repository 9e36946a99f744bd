"""The least storage whose score falls by no more than is allowed, found with few evaluations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from hmatrix._support.scores import scores_of
from hmatrix._support.ties import rounding_of
from hmatrix._support.typing import Scores
from hmatrix.allocation import Budget
from hmatrix.errors import ArgumentError, NetworkError
from hmatrix.nn.network.allocating import NetworkAllocator
from hmatrix.nn.network.fitting import Fitted
from hmatrix.nn.network.replacing import replaced
from hmatrix.nn.network.report import Trial

_FIRST = 0.25
_RATIO = 2.0
_CLOSE_ENOUGH = 1.05
"""Ratio of the storages between which the answer lies, at which the search ends."""

_NORMAL = 1.96
"""Quantile of the 95 % interval."""


def fit_by_score(
    model: nn.Module,
    allocator: NetworkAllocator,
    evaluate: Callable[[nn.Module], Any],
    max_drop: float,
    evaluations: int,
) -> tuple[list[Fitted | None], list[Trial]]:
    """Fit the H-matrices of the least storage that keeps a network's score.

    Parameters
    ----------
    model
        The network; it is not changed.
    allocator
        Allocator that fits the H-matrices.
    evaluate
        The function from a network to its score, or to one score a sample.
    max_drop
        The largest fall of the score that is allowed.
    evaluations
        The largest number of compressed networks that are tried.

    Returns
    -------
    fitted : list of Fitted
        The H-matrix of each layer; ``None`` for one that stays as it is.
    trials : list of Trial
        All networks that were tried, in their order.

    Raises
    ------
    ArgumentError
        If the scores cannot be used.
    NetworkError
        If none of the networks keeps the score.
    """
    reference = scores_of(evaluate(model))
    best: list[Fitted | None] | None = None

    def attempt(storage: float) -> Trial:
        nonlocal best
        fitted = allocator.fit(Budget(storage=storage))
        now = evaluate(replaced(model, allocator.successors(fitted)))
        trial = judge(reference, scores_of(now), storage, max_drop)
        if trial.passed:
            best = fitted
        return trial

    trials = Search(allocator.least, evaluations).run(attempt)
    if best is None:
        tried = ", ".join(f"{trial.drop:.3g} at {trial.storage:.1%}" for trial in trials)
        raise NetworkError("budget", f"a drop of {max_drop} was not kept (it was {tried})", "allow more")
    return best, trials


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
        Largest number of storages that are tried.
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
