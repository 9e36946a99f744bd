"""How much a layer's error counts, measured with the H-matrix that the layer has.

The estimate of `sensitivity` is one for errors that are independent between positions. But neighbouring positions are
alike, and so are their errors, which do not average out where a network sums positions up.
"""

import statistics
from typing import Any

from torch import Tensor, nn

from hmatrix.nn.network.fitting import Fitted
from hmatrix.nn.network.progress import shown
from hmatrix.nn.network.replacing import Successors, exchange, successors
from hmatrix.nn.network.running import Forward, outputs
from hmatrix.nn.network.sensitivity import change, rounded
from hmatrix.nn.network.targets import Target


def measured_sensitivities(
    model: nn.Module,
    targets: list[Target],
    fitted: list[Fitted | None],
    estimates: list[float],
    batches: list[Any],
    reference: list[Tensor],
    *,
    forward: Forward,
    progress: bool,
) -> list[float] | None:
    """Return, for each target, the change of the network's output per square of relative error, by its H-matrix alone.

    The error is the predicted one, since curves of predicted errors are weighed. Of a layer without an H-matrix, or
    without an error, the estimate is scaled as those of the others are by measuring them.

    Parameters
    ----------
    model, targets
        The network and its layers.
    fitted
        Their H-matrices.
    estimates
        See `hmatrix.nn.network.sensitivity.Sensitivities`.
    batches, reference
        To measure on, and the network's outputs for them.
    forward
        Runs the network on a batch.
    progress
        Whether to show it.

    Returns
    -------
    list of float
        ``None`` where there is nothing to measure on, or fewer than two layers to compare.
    """
    errors = [0.0 if result is None else result.predicted_error for result in fitted]
    if not batches or sum(error > 0 for error in errors) < 2:
        return None
    found: list[float | None] = []
    for target, result, error in shown(list(zip(targets, fitted, errors, strict=True)), "effects", enabled=progress):
        if result is None or error == 0:
            found.append(None)
        else:
            found.append(effect(model, successors(target, result), batches, reference, forward) / error**2)
    changes = [now / before for now, before in zip(found, estimates, strict=True) if now is not None]
    usual = statistics.median(changes)
    return [rounded(before * usual if now is None else now) for now, before in zip(found, estimates, strict=True)]


def effect(model: nn.Module, made: Successors, batches: list[Any], reference: list[Tensor], forward: Forward) -> float:
    """Return the `change` of the network's output by successors of some layers, which leave no trace."""
    exchange(model, made)
    try:
        return change(reference, outputs(model, batches, forward))
    finally:
        exchange(model, {successor: module for module, successor in made.items()})
