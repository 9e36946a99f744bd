"""A whole network compressed by one call.

The phases, in their order: the weights are found, calibrated, given shares of the budget, fitted (and judged, where a
score bounds the budget), replaced and reported.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from hmatrix._support.checks import check_integer
from hmatrix.allocation import Budget
from hmatrix.codes.precision import Activations
from hmatrix.errors import ArgumentError
from hmatrix.nn.network.accuracy import fit_by_score
from hmatrix.nn.network.allocating import NetworkAllocator, parts_of
from hmatrix.nn.network.calibration import Inputs, collect_inputs
from hmatrix.nn.network.fitting import Fitted
from hmatrix.nn.network.probing import Probes
from hmatrix.nn.network.replacing import Successors, replaced, replacing
from hmatrix.nn.network.report import Report, Trial, layer_reports, stored_bytes
from hmatrix.nn.network.running import Forward, run_batch
from hmatrix.nn.network.targets import LayerSettings, Override, Select, everything, find_targets
from hmatrix.nn.network.weighing import fit_by_effects
from hmatrix.nn.saved.pretrained import make_ready

_PROBE_SAMPLES = 32
"""Samples on which networks are measured."""


class Compressed(NamedTuple):
    """A compressed network, and the report of its layers.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(48, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    >>> compressed = hnn.compress(model, hm.Budget(storage=0.5), progress=False)
    >>> compressed.report.ratio <= 0.5, type(compressed.model[0]).__name__
    (True, 'HLinear')
    """

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

    The budget is shared between the layers so that the error of the network's output is least: by the predicted error
    of each layer for so many bytes, and by how much an error of its output changes that of the network: first by
    derivatives, then, for the final shares, by the effect of each layer's H-matrix alone on the output for the first
    calibration data. A layer for which nothing pays stays as it is, and its bytes count. The rows of an embedding count
    as often as the calibration data select them, with an estimate for those that they never select. Outputs of layers
    keep their size, see `LayerSettings`. Layers that share a weight still do so afterwards. In a layer without a bias
    the mean error becomes its bias, whose bytes count.

    Parameters
    ----------
    model
        The network, or a single layer.
    budget
        For the weights of all chosen layers together: ``storage`` as a fraction of their float32 bytes, ``bytes``,
        ``max_drop`` (needs `evaluate`), or ``time``, which each layer gets for itself. With ``storage`` and ``time``
        the storage is shared, and each layer keeps the time, too, where that is possible; embeddings need not.
    select
        Function of a layer's name and the layer: whether it is compressed; all `torch.nn.Linear`, `torch.nn.Conv2d`
        without groups and `torch.nn.Embedding` by default.
    overrides
        Exceptions by exact name, or by a regular expression after ``re:`` that the whole name matches; the first that
        fits counts. A budget of the layer's own (which the others do not share), `LayerSettings`, or ``None`` to leave
        it as it is.
    calibration
        Batches of inputs: tensors, pairs of inputs and labels (of which the inputs are used), or mappings of keyword
        arguments. Without it all columns of a weight and all layers count the same.
    evaluate
        Function of a network that returns its score, or one score a sample, for which the report has the interval of
        the drop: for ``max_drop``, on data that are no calibration data.
    forward
        Function of the network and a batch that returns the output that matters, where it is not the (first) tensor
        that ``model(batch)`` returns.
    inplace
        Whether to change the network itself; otherwise a copy is returned.
    activations
        Treatment of a product's input where it meets integer codes; int8 for speed.
    rows
        Largest number of inputs of each layer that are kept: tokens, or positions of images, drawn at random.
    evaluations
        Largest number of networks that ``max_drop`` may try.
    seed
        Seed of all that is drawn at random.
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
        If a file of the cache is damaged: its content is computed again.

    Notes
    -----
    When an error is raised, the network is as it was.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(48, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    >>> batches = [torch.randn(16, 48) for _ in range(4)]
    >>> small, report = hnn.compress(model, hm.Budget(storage=0.4), calibration=batches, progress=False)
    >>> [layer.names for layer in report.layers]
    [('0',), ('2',)]
    >>> report.ratio <= 0.4, small(batches[0]).shape
    (True, torch.Size([16, 10]))
    """
    start = time.perf_counter()
    _check(budget, select, evaluate, rows, evaluations)
    make_ready(model)  # tells now if it could not be saved
    targets = find_targets(model, select, overrides or {}, LayerSettings(activations=Activations.of(activations)))
    inputs = (
        Inputs.unknown(len(targets))
        if calibration is None
        else collect_inputs(
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
    )
    parts = parts_of(targets, inputs, None if cache is None else Path(cache))
    allocator = NetworkAllocator(parts, measured=bool(inputs.probes), progress=progress)
    probes = Probes.of(model, inputs.probes, forward)
    fitted: list[Fitted | None]
    trials: list[Trial] = []
    if budget.max_drop is not None and evaluate is not None:
        fitted, trials = fit_by_score(model, allocator, evaluate, budget.max_drop, evaluations)
    else:
        fitted = fit_by_effects(model, allocator, budget, probes, progress=progress)
    before = stored_bytes(model)
    compressed, change = _replace(model, allocator.successors(fitted), probes, inplace=inplace)
    layers = layer_reports(targets, inputs.unused, allocator.parts, fitted, measured=allocator.measured)
    seconds = time.perf_counter() - start
    return Compressed(compressed, Report(layers, before, stored_bytes(compressed), change, tuple(trials), seconds))


def _check(
    budget: Budget, select: Select, evaluate: Callable[[nn.Module], Any] | None, rows: int, evaluations: int
) -> None:
    """Check what needs no network."""
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


def _replace(model: nn.Module, made: Successors, probes: Probes, *, inplace: bool) -> tuple[nn.Module, float | None]:
    """Return the network with successors in their places, ready to be saved, and the change of its output."""
    if inplace:
        with replacing(model, made):
            change = probes.change(model)
            make_ready(model)
        return model, change
    compressed = replaced(model, made)
    change = probes.change(compressed)
    make_ready(compressed)
    return compressed, change
