"""The sensitivity of a network to a layer's error, measured with the layer's H-matrix.

The estimate of `sensitivity` is for errors that are independent between positions. But neighbouring positions are
alike, and so are their errors, which do not average out where a network sums positions up.
"""

import statistics

import numpy as np
from torch import nn

from hmatrix._support.ties import first_least, rounding_of
from hmatrix.allocation import Budget
from hmatrix.nn.network.allocating import NetworkAllocator, Part
from hmatrix.nn.network.fitting import Fitted
from hmatrix.nn.network.probing import Probes
from hmatrix.nn.network.progress import shown
from hmatrix.nn.network.replacing import successors
from hmatrix.nn.network.sensitivity import rounded


def fit_by_effects(
    model: nn.Module, allocator: NetworkAllocator, budget: Budget, probes: Probes, *, progress: bool
) -> list[Fitted | None]:
    """Fit H-matrices to a budget that is shared twice: by estimated sensitivities, then by measured ones.

    Parameters
    ----------
    model
        The network; nothing of it is left changed.
    allocator
        Allocator that fits the H-matrices; afterwards its layers count by the measured sensitivities, if there are any.
    budget
        The budget; one of time is not shared.
    probes
        The batches to measure on.
    progress
        Whether to show it.

    Returns
    -------
    list of Fitted
        The H-matrix of each layer, ``None`` for one that stays as it is: those that change the output less.
    """
    fitted = allocator.fit(budget)
    if not budget.bounds_bytes:
        return fitted
    measured = measured_sensitivities(model, allocator.parts, fitted, probes, progress=progress)
    if measured is None:
        return fitted
    allocator.reweigh(measured)
    choices = (fitted, allocator.fit(budget))
    effects = [probes.effect(model, allocator.successors(found)) for found in choices]
    return choices[first_least(effects, rounding_of(np.float32, 1) * min(effects))]


def measured_sensitivities(
    model: nn.Module, parts: list[Part], fitted: list[Fitted | None], probes: Probes, *, progress: bool
) -> list[float] | None:
    """Return, for each layer, the change of the network's output per square of relative error, by its H-matrix alone.

    The error is the predicted one, since curves of predicted errors are weighed. Of a layer without an H-matrix, or
    without an error, the estimate is scaled as measuring scales those of the others. So is that of an embedding whose
    rows count as often as they were selected: the batches select few of them, and say nothing about the rest.

    Parameters
    ----------
    model
        The network.
    parts, fitted
        Its layers with their estimates, and their H-matrices.
    probes
        The batches to measure on.
    progress
        Whether to show it.

    Returns
    -------
    list of float
        ``None`` where there is nothing to measure on, or fewer than two layers to compare.
    """
    measurable = [
        None if result is None or part.fitter.selects or result.predicted_error == 0 else result
        for part, result in zip(parts, fitted, strict=True)
    ]
    if not probes.batches or sum(result is not None for result in measurable) < 2:
        return None
    found: list[float | None] = []
    for part, result in shown(list(zip(parts, measurable, strict=True)), "effects", enabled=progress):
        if result is None:
            found.append(None)
        else:
            effect = probes.effect(model, successors(part.target, result))
            found.append(effect / result.predicted_error**2)
    estimates = [part.sensitivity for part in parts]
    changes = [now / before for now, before in zip(found, estimates, strict=True) if now is not None]
    usual = statistics.median(changes)
    return [rounded(before * usual if now is None else now) for now, before in zip(found, estimates, strict=True)]
