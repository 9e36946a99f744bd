"""A compressed network trained back to the outputs of the original: distillation, without labels.

All H-matrices keep their partitions, ranks and precisions, so that not a byte is added. Their coefficients are trained
as `trainable` does it, and with them, where that is wanted, whatever else the network has learned. Normalisations keep
their statistics.

References
----------
G. Hinton, O. Vinyals, J. Dean, *Distilling the knowledge in a neural network*, arXiv:1503.02531.
"""

import copy
import time
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from itertools import count, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hmatrix.errors import ArgumentError, DataError, NetworkError
from hmatrix.nn.layers.conv import HConv2d
from hmatrix.nn.layers.embedding import HEmbedding
from hmatrix.nn.layers.linear import HLinear
from hmatrix.nn.layers.trainable import freeze, trainable
from hmatrix.nn.layers.trainable_factor import TrainableFactor
from hmatrix.nn.network.progress import shown
from hmatrix.nn.network.running import Forward, check_batches, checked, evaluating, first_tensor, run_batch
from hmatrix.nn.training.adam import Adam
from hmatrix.nn.training.distillation import Finetuning, FinetuningReport, variance
from hmatrix.nn.training.held_out import Best, HeldOut, compared
from hmatrix.nn.training.matching import Pair, recording
from hmatrix.nn.training.means import match_means

_LAYERS = (HLinear, HConv2d, HEmbedding)

_EVERY = 8
"""Number of batches of which one is held out, and the most that are."""

_MATCHED = 32
"""Batches by which the means of layers are matched."""

_MATCHING = 0.1
"""Largest part of the time that the matching may take."""

_SMALLEST = 1e-3
"""Least root mean square: tensors with a smaller one take steps as if it were this."""


class Finetuned(NamedTuple):
    """A network after distillation, packed again, and the report.

    Examples
    --------
    >>> teacher = torch.nn.Sequential(torch.nn.Linear(24, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> small, _ = hnn.compress(teacher, hm.Budget(storage=0.5), progress=False)
    >>> batches = [torch.randn(16, 24) for _ in range(8)]
    >>> finetuned = hnn.finetune(small, teacher, batches, hnn.Finetuning(steps=4, measurements=2), progress=False)
    >>> finetuned.report.after <= finetuned.report.before
    True
    """

    model: nn.Module
    report: FinetuningReport


def finetune(
    model: nn.Module,
    teacher: nn.Module,
    data: Iterable[Any],
    settings: Finetuning | None = None,
    *,
    held_out: Iterable[Any] | None = None,
    forward: Forward = run_batch,
    progress: bool = True,
) -> Finetuned:
    """Train a compressed network towards the outputs of the original.

    Parameters
    ----------
    model
        The network that `compress` or `load` returned. It is not changed.
    teacher
        The original network.
    data
        Batches of inputs, as `compress` takes them; labels are not used. It is iterated again and again: shuffle and
        augment there, as a `DataLoader` does.
    settings
        Settings of the training.
    held_out
        Batches on which the packed network is measured, so that the best is returned. By default the first of every
        eight batches of `data`, eight at most, which then must come in the same order each time: where they are
        shuffled, give others, or the network is trained on the batches that measure it.
    forward
        Function of a network and a batch that returns the output that matters, where it is not the (first) tensor that
        ``model(batch)`` returns.
    progress
        Whether to show a progress bar (if tqdm is installed).

    Returns
    -------
    model : nn.Module
        A new network, packed. On the held-out data it is never worse than the one that was given: where nothing was
        better, it is a copy of that.
    report : FinetuningReport

    Raises
    ------
    ArgumentError
        If the network has no H-matrix, the teacher has one, or nothing is trained.
    NetworkError
        If the teacher is another network, or the loss is not finite.
    DataError
        If there are no batches to train or to measure on, one does not go through a network, or either is a tensor.

    Notes
    -----
    First, biases are corrected so that the outputs of layers have the means that they have in the teacher, as far as
    `Finetuning.trained` includes biases.

    Interrupted from the keyboard once the given network is measured, it returns the best network so far; before, it
    raises `KeyboardInterrupt`. Layers are multiplied by their decoded matrices, with exact activations, which is faster
    in training; measurements are of the packed network.

    Examples
    --------
    >>> teacher = torch.nn.Sequential(torch.nn.Linear(24, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> small, _ = hnn.compress(teacher, hm.Budget(storage=0.5), progress=False)
    >>> batches = [torch.randn(16, 24) for _ in range(8)]
    >>> how = hnn.Finetuning(steps=4, measurements=2)
    >>> better, report = hnn.finetune(small, teacher, batches, how, progress=False)
    >>> better(batches[0]).shape, report.after <= report.before
    (torch.Size([16, 4]), True)
    """
    start = time.perf_counter()
    settings = Finetuning() if settings is None else settings
    check_batches("data", data)
    if held_out is not None:
        check_batches("held_out", held_out)
    forward = checked(forward, "data")
    if not any(isinstance(module, _LAYERS) for module in model.modules()):
        mend = "give what `compress` returned; a progressive head is not trained"
        raise ArgumentError("model", "has no H-matrix", mend)
    skipped: Container[int] = ()
    if held_out is None:
        skipped = range(0, _EVERY * _EVERY, _EVERY)
        held_out = (batch for number, batch in enumerate(islice(data, _EVERY * _EVERY)) if number in skipped)
    if any(isinstance(module, _LAYERS) for module in teacher.modules()):
        mend = "give the original: `load` changes the network that it is given, so give that a copy"
        raise ArgumentError("teacher", "has H-matrices itself", mend)
    best = Best(model, HeldOut(teacher, list(held_out), forward, settings.loss), start)
    interrupted = False
    try:
        with _seeded(settings.seed), torch.inference_mode(False):
            matched = Pair(copy.deepcopy(model), teacher, _LAYERS)
            match_means(matched, _first(_repeated(data, skipped), settings, start), forward, settings.trained)
            best.offer(matched.student, 0)
            batches = _repeated(data, skipped)
            trainer = _Trainer(Pair(copy.deepcopy(best.model), teacher, _LAYERS), settings, forward)
            due = 1
            for fraction in shown(_fractions(settings, start), "distillation", enabled=progress, total=settings.steps):
                if trainer.steps and fraction * settings.measurements >= due:
                    best.offer(trainer.packed(), trainer.steps)
                    due = int(fraction * settings.measurements) + 1
                trainer.step(next(batches), settings.rate_at(fraction))
            if trainer.steps:
                best.offer(trainer.packed(), trainer.steps)
    except KeyboardInterrupt:
        interrupted = True
    seconds = time.perf_counter() - start
    return Finetuned(
        best.copied(), FinetuningReport(best.given, best.loss, seconds, tuple(best.measurements), interrupted)
    )


class _Trainer:
    """Steps of Adam, each in proportion to the size of a tensor's entries."""

    def __init__(self, pair: Pair, settings: Finetuning, forward: Forward) -> None:
        self.steps = 0
        self._pair = pair
        self._settings = settings
        self._forward = forward
        self._variances: dict[str, float] = {}
        trainable(pair.student.eval(), dense=True)
        factors = [module for module in pair.student.modules() if isinstance(module, TrainableFactor)]
        longer = settings.codes / settings.rate
        coded = [factor for factor in factors if factor.scales is not None]
        codes = {factor.latent: longer * factor.steps() for factor in coded}
        owned = {parameter for factor in factors for parameter in factor.parameters()}
        if settings.codes == 0:
            owned.difference_update(codes)
            for factor in coded:
                factor.keep_codes()
        sizes: dict[nn.Parameter, Tensor] = {}
        for parameter in pair.student.parameters():
            others = parameter not in codes and settings.trained.includes(parameter)
            chosen = parameter.is_floating_point() and (parameter in owned or others)
            parameter.requires_grad_(chosen)
            if chosen and parameter.numel():
                values = parameter.detach()
                sizes[parameter] = (
                    codes[parameter] if parameter in codes else values.square().mean().sqrt().clamp(min=_SMALLEST)
                )
        if not sizes:
            raise ArgumentError("trained", "leaves nothing to train", "train biases, too: Trained.VECTORS")
        self._optimizer = Adam(sizes)

    def step(self, batch: Any, rate: float) -> None:
        """Train on a batch."""
        pair, settings = self._pair, self._settings
        matched = settings.matching > 0
        with evaluating(pair.teacher), recording(pair.teacher_layers if matched else {}) as wanted:
            target = first_tensor(self._forward(pair.teacher, batch))
        with torch.enable_grad(), recording(pair.student_layers if matched else {}) as given:
            loss = settings.loss(*compared(first_tensor(self._forward(pair.student, batch)), target))
            errors = [
                self._error(name, *both) for name in given for both in zip(given[name], wanted[name], strict=True)
            ]
            if errors:
                loss = loss + settings.matching * torch.stack(errors).mean()
        self.steps += 1
        if not bool(loss.isfinite()):
            came = f"is {loss.item()} in step {self.steps}"
            raise NetworkError("loss of distillation", came, "lower `rate`, or use intact inputs")
        self._optimizer.step(loss, rate)

    def _error(self, name: str, given: Tensor, wanted: Tensor) -> Tensor:
        """Return the mean square error of a layer's output, in proportion to the variance in the first batch."""
        if name not in self._variances:
            self._variances[name] = variance(wanted)
        return nn.functional.mse_loss(given, wanted) / self._variances[name]

    def packed(self) -> nn.Module:
        """Return the network as it would be packed now."""
        return freeze(copy.deepcopy(self._pair.student))


def _repeated(data: Iterable[Any], skipped: Container[int]) -> Iterator[Any]:
    """Iterate over batches again and again, without those that are held out."""
    while True:
        empty = True
        for number, batch in enumerate(data):
            if number not in skipped:
                empty = False
                yield batch
        if empty:
            mend = "give two batches at least, in what can be iterated again and again"
            raise DataError("data", "has no batches to train on", mend)


def _first(batches: Iterator[Any], settings: Finetuning, start: float) -> Iterator[Any]:
    """Yield the batches by which means are matched."""
    for batch in islice(batches, _MATCHED):
        yield batch
        if settings.seconds is not None and time.perf_counter() - start > _MATCHING * settings.seconds:
            return


def _fractions(settings: Finetuning, start: float) -> Iterator[float]:
    """Yield, for each step, the part of the training that is over."""
    for step in count():
        over = [0.0]
        if settings.steps is not None:
            over.append(step / settings.steps)
        if settings.seconds is not None:
            over.append((time.perf_counter() - start) / settings.seconds)
        if max(over) >= 1:
            return
        yield max(over)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator, and put its state back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
