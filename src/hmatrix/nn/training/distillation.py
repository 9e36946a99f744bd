"""Losses, settings and report of distillation."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, TypeAlias

from torch import Tensor, nn

from hmatrix._support.checks import check_integer, check_number
from hmatrix.errors import ArgumentError

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Function of outputs of the student and of the teacher, of one shape: a number that is not negative."""


@dataclass(frozen=True)
class SquaredError:
    """Loss by the mean square difference, in proportion to the variance of the teacher's output: for any output.

    Examples
    --------
    >>> outputs = torch.randn(8, 10)
    >>> float(hnn.SquaredError()(outputs, outputs))
    0.0
    """

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of a batch."""
        return nn.functional.mse_loss(student, teacher) / variance(teacher)


@dataclass(frozen=True)
class Divergence:
    """Loss by the Kullback-Leibler divergence of class probabilities, for logits in the last dimension.

    Parameters
    ----------
    temperature
        Divisor of the logits: a high one lets classes that the teacher thinks unlikely count, too. The loss is
        multiplied by its square, so that gradients do not depend on it much (arXiv:1503.02531).

    Raises
    ------
    ArgumentError
        If the temperature is not positive.

    Examples
    --------
    >>> logits = torch.randn(8, 10)
    >>> abs(float(hnn.Divergence(1.0)(logits, logits))) < 1e-6
    True
    """

    temperature: float = 2.0

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, above=0.0)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of a batch."""
        mine, wanted = ((x / self.temperature).log_softmax(dim=-1) for x in (student, teacher))
        classes = student.shape[-1]
        divergence = nn.functional.kl_div(
            mine.reshape(-1, classes), wanted.reshape(-1, classes), reduction="batchmean", log_target=True
        )
        return self.temperature**2 * divergence


class Trained(Enum):
    """The parameters that are trained besides the coefficients of the H-matrices.

    Examples
    --------
    >>> bias, weight = torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(3, 3))
    >>> hnn.Trained.VECTORS.includes(bias), hnn.Trained.VECTORS.includes(weight)
    (True, False)
    """

    NOTHING = "nothing"
    VECTORS = "vectors"
    """Biases, and the scales of normalisations: all parameters of one dimension."""
    ALL = "all"
    """Layers that were not compressed, too."""

    def includes(self, parameter: Tensor) -> bool:
        """Return whether a parameter that belongs to no H-matrix is trained."""
        return self is Trained.ALL or (self is Trained.VECTORS and parameter.dim() <= 1)


_SECONDS = 600.0

_WARMUP = 0.1
"""Part of the training in which steps become longer."""

_FIRST = 0.1
"""Length of the first step, as a fraction."""


@dataclass(frozen=True)
class Finetuning:
    """Settings of the training of a compressed network.

    Parameters
    ----------
    seconds, steps
        Time and number of steps after which it ends, whichever comes first; ten minutes where neither is given. Only a
        number of steps gives the same bits each time.
    rate
        Length of a step of Adam, in proportion to the root mean square of each tensor. It rises during the first
        tenth, and falls like a cosine afterwards.
    codes
        Length of a step of integer codes, before they are rounded, in codes; 0 leaves them as they are. Codes that were
        rounded together, as `hmatrix.allocate` does it, are hard to better one by one in a large network.
    loss
        Loss of outputs.
    matching
        Weight of the mean square error of the outputs of all compressed layers, each in proportion to its variance.
    trained
        Parameters that are trained besides the H-matrices.
    measurements
        Number of measurements of the packed network on held-out data.
    seed
        Seed of torch's generator, which shuffles a `DataLoader`.

    Raises
    ------
    ArgumentError
        If a value is out of range.

    Examples
    --------
    >>> settings = hnn.Finetuning(steps=100, codes=0, rate=1e-5, loss=hnn.Divergence(1.0))
    >>> settings.rate_at(0.1) > settings.rate_at(0.9)
    True
    """

    seconds: float | None = None
    steps: int | None = None
    rate: float = 2e-4
    codes: float = 5e-3
    loss: Loss = SquaredError()
    matching: float = 1.0
    trained: Trained = Trained.ALL
    measurements: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seconds is None and self.steps is None:
            object.__setattr__(self, "seconds", _SECONDS)
        if self.seconds is not None:
            check_number("seconds", self.seconds, above=0.0)
        if self.steps is not None:
            check_integer("steps", self.steps, at_least=1)
        if not callable(self.loss):
            mend = "give hmatrix.nn.SquaredError(), hmatrix.nn.Divergence(1.0), or a function of two tensors"
            raise ArgumentError("loss", f"is {self.loss!r}", mend)
        check_number("rate", self.rate, above=0.0)
        check_number("codes", self.codes, at_least=0.0)
        check_number("matching", self.matching, at_least=0.0)
        check_integer("measurements", self.measurements, at_least=1)

    def rate_at(self, fraction: float) -> float:
        """Return the length of a step when a fraction of the training is over."""
        return self.rate * min(1.0, fraction / _WARMUP + _FIRST) * (1 + math.cos(math.pi * min(fraction, 1.0))) / 2


@dataclass(frozen=True)
class Measurement:
    """The loss of outputs of the packed network on held-out data, after some steps and seconds."""

    steps: int
    seconds: float
    loss: float


@dataclass(frozen=True)
class FinetuningReport:
    """Report of a distillation.

    Parameters
    ----------
    before, after
        Loss of outputs on held-out data, for the network that was given and for the one that is returned: the best of
        all that were measured, the given one included.
    seconds
        Time of the whole training.
    measurements
        Measurements in their order.
    interrupted
        Whether it was ended by hand.

    Examples
    --------
    >>> report = hnn.FinetuningReport(before=0.5, after=0.25, seconds=60.0, measurements=(), interrupted=False)
    >>> report.to_dict()["after"]
    0.25
    """

    before: float
    after: float
    seconds: float
    measurements: tuple[Measurement, ...]
    interrupted: bool

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{_reached(measurement)}  {measurement.seconds:6.1f} s  held-out loss {measurement.loss:.5g}"
            for measurement in self.measurements
        ]
        ended = "interrupted after" if self.interrupted else "in"
        kept = "the network as it was given" if self.after == self.before else "the best of these"
        lines.append(f"loss     {self.before:.5g} -> {self.after:.5g} ({kept}), {ended} {self.seconds:.0f} s")
        return "\n".join(lines)


def _reached(measurement: Measurement) -> str:
    return f"{measurement.steps:6} steps" if measurement.steps else "biases alone"


def variance(wanted: Tensor) -> float:
    """Return the variance of all entries, or 1 where they are all the same."""
    found = float(wanted.float().var(correction=0))
    return found if found > 0 else 1.0
