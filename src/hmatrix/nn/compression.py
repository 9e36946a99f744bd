"""A whole network compressed by one call."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from hmatrix._support.checks import check_integer
from hmatrix._support.scores import scores_of
from hmatrix._support.ties import first_least, rounding_of
from hmatrix.allocation import Budget
from hmatrix.codes.precision import Activations
from hmatrix.errors import ArgumentError, NetworkError
from hmatrix.nn.network.accuracy import Search, judge
from hmatrix.nn.network.allocating import Allocation, Part
from hmatrix.nn.network.calibration import Inputs, collect_inputs
from hmatrix.nn.network.fitting import Fitted, Fitter
from hmatrix.nn.network.replacing import replaced, replacing
from hmatrix.nn.network.report import LayerReport, Report, Trial, described
from hmatrix.nn.network.running import Forward, outputs, run_batch
from hmatrix.nn.network.sensitivity import change
from hmatrix.nn.network.targets import LayerSettings, Override, Select, Target, everything, find_targets
from hmatrix.nn.network.weighing import effect, measured_sensitivities
from hmatrix.nn.saved.pretrained import make_ready

_PROBE_SAMPLES = 32
"""Samples on which networks are measured."""

_NEVER_CALLED = "never called"
_DOES_NOT_PAY = "as it is"
_IDLE = "changes nothing"


class Compressed(NamedTuple):
    """A compressed network, and what became of its layers."""

    model: nn.Module
    report: Report


def compress(
    model: nn.Module,
    budget: Budget,
    *,
    select: Select = everything,
    overrides: Mapping[str, Override] | None = None,
    calibration: Iterable[Any] | None = None,
    evaluate: Callable[[nn.Module], Any] | None = None,
    forward: Forward = run_batch,
    inplace: bool = False,
    activations: Activations | str = Activations.INT8,
    rows: int = 2048,
    evaluations: int = 8,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Compressed:
    """Replace layers of a network by H-matrices that together keep a budget.

    The budget is shared between the layers so that the error of the network's output is least: by the predicted
    error of each layer for so many bytes, and by how much an error of its output changes that of the network: first by
    derivatives, then, for the final shares, by what the H-matrix of each layer alone does to the output for the first
    calibration data. A layer for which nothing pays stays as it is, and its bytes count.
    The rows of an embedding count as often as the calibration data select them, with what that says of those that it
    does not. Outputs of layers keep their size, see `LayerSettings`. Layers that share a weight still do so afterwards.
    Of a layer without a bias the mean of what is lost becomes its bias, whose bytes count.

    Parameters
    ----------
    model
        The network, or a single layer.
    budget
        For the weights of all chosen layers together: ``storage`` as a fraction of their float32 bytes, ``bytes``,
        ``max_drop`` (needs `evaluate`), or ``time``, which each layer gets for itself. With ``storage`` and ``time``
        the storage is shared, and each layer keeps the time, too, where that is possible; embeddings need not.
    select
        From a layer's name and the layer to whether it is compressed; all `torch.nn.Linear`, `torch.nn.Conv2d`
        without groups and `torch.nn.Embedding` by default.
    overrides
        By exact name, or by a regular expression after ``re:`` that the whole name matches; the first that
        fits counts. A budget of the layer's own (which the others do not share), `LayerSettings`, or ``None`` to
        leave it as it is.
    calibration
        Batches of inputs: tensors, pairs of inputs and labels (of which the inputs are used), or mappings of keyword
        arguments. Without it all columns of a weight and all layers count the same.
    evaluate
        From a network to its score, or to one score a sample, for which the interval of the drop is told:
        for ``max_drop``, on data that are no calibration data.
    forward
        From the network and a batch to the output that matters, where it is not the (first) tensor that
        ``model(batch)`` returns.
    inplace
        Whether to change the network itself; otherwise a copy is returned.
    activations
        How products treat their input where it meets integer codes; int8 for speed.
    rows
        Most inputs of each layer that are kept: tokens, or positions of images, drawn at random.
    evaluations
        Most networks that ``max_drop`` may try.
    seed
        Of all that is drawn at random.
    cache
        A folder for the layers that are done, so that the same call goes on where it was interrupted.
    progress
        Whether to show progress bars (if tqdm is installed).

    Returns
    -------
    model : nn.Module
    report : Report

    Raises
    ------
    ArgumentError
        If an argument cannot be used, or the budget is impossible: the message names what is possible.
    NetworkError
        If no layer can be compressed, or the compressed network does not run on the calibration data.
    DataError
        If calibration data cannot be used.

    Warns
    -----
    CacheWarning
        If a file of the cache is damaged: what it held is computed again.

    Notes
    -----
    When an error is raised, the network is as it was.
    """
    start = time.perf_counter()
    if not isinstance(budget, Budget):
        raise ArgumentError("budget", f"is {budget!r}", "give hmatrix.Budget(storage=0.25), for example")
    for name, asked in (("storage", budget.storage), ("time", budget.time)):
        if asked is not None and asked > 1:
            raise ArgumentError("budget", f"is a {name} of {asked:g}", "give a fraction: a quarter is 0.25")
    if not callable(select):
        mend = "give a function of a layer's name and module; names go into `overrides`"
        raise ArgumentError("select", f"is a {type(select).__name__}", mend)
    check_integer("rows", rows, at_least=2)
    check_integer("evaluations", evaluations, at_least=1)
    if (budget.max_drop is not None) != (evaluate is not None):
        came = "has max_drop without evaluate" if evaluate is None else "has no max_drop, but evaluate is given"
        raise ArgumentError("budget", came, "give both, or neither")
    make_ready(model)  # tells now if it could not be saved
    targets = find_targets(model, select, overrides or {}, LayerSettings(activations=Activations.of(activations)))
    inputs = Inputs.unknown(len(targets))
    if calibration is not None:
        inputs = collect_inputs(
            model,
            targets,
            calibration,
            forward=forward,
            rows=rows,
            probe_samples=_PROBE_SAMPLES,
            seed=seed,
            progress=progress,
            derivatives=True,
        )
    used = [number for number, target in enumerate(targets) if target.name not in inputs.unused]
    if not used:
        raise NetworkError("network", "calls none of the chosen layers", "choose layers that it calls as modules")
    weights = [inputs.sensitivities[number] for number in used]
    folder = None if cache is None else Path(cache)
    # Nothing tells what a layer may lose that the output does not depend on.
    idle = {targets[number].name for number, weight in zip(used, weights, strict=True) if weight == 0}
    parts = [
        Part(
            targets[number],
            Fitter(targets[number], inputs.samples[number], inputs.counts[number], inputs.derivatives[number], folder),
            weight,
        )
        for number, weight in zip(used, weights, strict=True)
        if weight > 0
    ]
    if not parts:
        mend = "choose others, or give several samples: of a single one nothing varies"
        raise NetworkError("network", "its output depends on none of the chosen layers", mend)
    allocation = Allocation(parts, measured=bool(inputs.probes), progress=progress)
    reference = outputs(model, inputs.probes, forward)
    trials: list[Trial] = []
    if budget.max_drop is not None and evaluate is not None:
        fitted, trials = _search(model, allocation, evaluate, budget.max_drop, evaluations)
    else:
        fitted = allocation.fit(budget)
        # A budget of time is not shared. What is measured on data that say which rows of an embedding count does not
        # tell what errors of the others do.
        compared = [None if part.fitter.selects else result for part, result in zip(parts, fitted, strict=True)]
        measured = (
            measured_sensitivities(
                model,
                [part.target for part in parts],
                compared,
                [part.sensitivity for part in parts],
                inputs.probes,
                reference,
                forward=forward,
                progress=progress,
            )
            if budget.bounds_bytes
            else None
        )
        if measured is not None:
            allocation.reweigh(measured)
            choices = (fitted, allocation.fit(budget))
            effects = [
                effect(model, allocation.successors(found), inputs.probes, reference, forward) for found in choices
            ]
            fitted = choices[first_least(effects, rounding_of(np.float32, 1) * min(effects))]
    parts, made = allocation.parts, allocation.successors(fitted)
    network_before = _bytes_of(model)
    if inplace:
        with replacing(model, made):
            changed = _run(model, inputs.probes, forward)
            make_ready(model)
        compressed = model
    else:
        compressed = replaced(model, made)
        changed = _run(compressed, inputs.probes, forward)
        make_ready(compressed)
    left = [_left(target, _NEVER_CALLED) for target in targets if target.name in inputs.unused]
    left += [_left(target, _IDLE) for target in targets if target.name in idle]
    layers = [*(_layer(part, result, allocation.measured) for part, result in zip(parts, fitted, strict=True)), *left]
    report = Report(
        tuple(layers),
        network_before,
        _bytes_of(compressed),
        change(reference, changed) if inputs.probes else None,
        tuple(trials),
        time.perf_counter() - start,
    )
    return Compressed(compressed, report)


def _search(
    model: nn.Module,
    allocation: Allocation,
    evaluate: Callable[[nn.Module], Any],
    max_drop: float,
    evaluations: int,
) -> tuple[list[Fitted | None], list[Trial]]:
    """Return the H-matrices of the least storage that keeps the score, and all trials."""
    reference = scores_of(evaluate(model))
    best: list[Fitted | None] | None = None

    def attempt(storage: float) -> Trial:
        nonlocal best
        fitted = allocation.fit(Budget(storage=storage))
        now = evaluate(replaced(model, allocation.successors(fitted)))
        trial = judge(reference, scores_of(now), storage, max_drop)
        if trial.passed:
            best = fitted
        return trial

    trials = Search(allocation.least, evaluations).run(attempt)
    if best is None:
        tried = ", ".join(f"{trial.drop:.3g} at {trial.storage:.1%}" for trial in trials)
        raise NetworkError("budget", f"a drop of {max_drop} was not kept (it was {tried})", "allow more")
    return best, trials


def _run(model: nn.Module, batches: list[Any], forward: Forward) -> list[Any]:
    """Run a compressed network.

    Raises
    ------
    NetworkError
        If that fails.
    """
    try:
        found = outputs(model, batches, forward)
    except Exception as error:  # anything that the network's code may raise
        came = f"the compressed network does not run ({type(error).__name__}: {error})"
        mend = "leave out layers whose weight is read elsewhere, by `overrides`"
        raise NetworkError("network", came, mend) from error
    if not all(bool(tensor.isfinite().all()) for tensor in found):
        raise NetworkError("network", "the compressed network's output holds NaN or infinity", "allow more storage")
    return found


def _bytes_of(model: nn.Module) -> int:
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensor.nbytes for tensor in tensors.values())


def _layer(part: Part, fitted: Fitted | None, measured: bool) -> LayerReport:
    target = part.target
    sensitivity = part.sensitivity if measured else None
    if fitted is None:
        return _left(target, _DOES_NOT_PAY, sensitivity)
    return LayerReport(
        tuple(target.layers),
        type(target.module).__name__,
        target.shape,
        target.dense_bytes,
        part.bytes_after(fitted),
        sensitivity,
        predicted_error=fitted.predicted_error,
        measured_error=fitted.measured_error,
        arrangement=fitted.arrangement,
        seconds=fitted.seconds,
        **described(fitted.matrix),
    )


def _left(target: Target, note: str, sensitivity: float | None = None) -> LayerReport:
    return LayerReport(
        tuple(target.layers),
        type(target.module).__name__,
        target.shape,
        target.dense_bytes,
        target.dense_bytes,
        sensitivity,
        note=note,
    )
