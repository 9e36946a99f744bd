"""The sensitivity of a network's output to errors of a layer's output.

It is the mean square change of the network's output, in proportion to its variance, per square of the relative error of
the layer's output. For errors that are independent between positions, and in each channel in proportion to its standard
deviation, it is a weighted square norm of the Jacobian. That is estimated by random projections of the output,
differentiated backwards. Errors of different layers are nearly independent, so that their effects add up.

References
----------
M. Hutchinson, "A stochastic estimator of the trace of the influence matrix", Communications in Statistics 19 (1990),
doi:10.1080/03610919008812866.
"""

import math

import torch
from torch import Tensor

from hmatrix.allocation.error.scaling import exponent_of
from hmatrix.errors import NetworkError

_DIGITS = 2

_ASIDE = 1 + 2.0**-20
"""Moves values such as 0.125, which sums come near from either side, away from where rounding changes."""


def change(reference: list[Tensor], changed: list[Tensor]) -> float:
    """Return the mean square difference of outputs, relative to the variance of the reference between samples.

    For a single sample, and where all samples are equal, it is relative to the mean square.
    """
    before, after = (torch.cat([_vectors(tensor) for tensor in tensors]).double() for tensors in (reference, changed))
    spread = Spread()
    spread.add(before)
    difference, scale = float((after - before).square().mean()), spread.mean
    return difference / scale if scale > 0 else difference


class Sensitivities:
    """The mean square change of the network's output per square of relative error, for each of some layers.

    Parameters
    ----------
    layers
        Number of layers.
    """

    def __init__(self, layers: int) -> None:
        self._totals = [0.0] * layers
        self._lone = [_Lone() for _ in range(layers)]
        self._spread = Spread()

    def see(self, output: Tensor) -> None:
        """Note the network's output for a batch."""
        self._spread.add(output.detach().to("cpu"))

    def add(self, index: int, gradient: Tensor, variance: Tensor, exponent: int = 0) -> None:
        """Add a layer's share.

        Parameters
        ----------
        index
            Number of the layer.
        gradient
            Gradient of the sum of the network's output times random signs, by the layer's output, ``(positions, m)``.
        variance
            Variance of each channel of the layer's output, ``(m,)``.
        exponent
            Exponent of the power of two that the layer's output was divided by for its variance.
        """
        power = exponent_of(gradient.numpy())
        share = float((gradient * 2.0**-power).square().sum(dim=0) @ variance)
        self._totals[index] += math.ldexp(share, 2 * (power + exponent))

    def add_lone(self, index: int, gradient: Tensor, output: Tensor) -> None:
        """Add a layer's call with a single position, which does not show how its output varies: other calls do.

        Parameters
        ----------
        index
            Number of the layer.
        gradient, output
            Gradient as for `add`, and the layer's output, ``(1, m)``.
        """
        self._lone[index].add(gradient, output)

    def values(self) -> list[float]:
        """Return the sensitivities, by the outputs seen so far.

        Raises
        ------
        NetworkError
            If an output was not finite.
        """
        scale = self._spread.total
        if not math.isfinite(scale):
            raise NetworkError("network", "its output holds NaN or infinity", "use intact weights and inputs")
        totals = [total + lone.total for total, lone in zip(self._totals, self._lone, strict=True)]
        return [rounded(total / scale if scale > 0 else total) for total in totals]


def rounded(sensitivity: float) -> float:
    """Return an estimate without the noise of floating-point sums, which would change later choices."""
    return float(f"{sensitivity * _ASIDE:.{_DIGITS}g}")


class _Lone:
    """The share of a layer's calls with one position each: they vary from one to the next."""

    def __init__(self) -> None:
        self._calls = 0
        self._first = self._sum = self._squares = self._gradients = torch.zeros(0, dtype=torch.float64)

    def add(self, gradient: Tensor, output: Tensor) -> None:
        vector = output[0].double()
        if self._calls == 0:
            self._first = vector
            self._sum = self._squares = self._gradients = torch.zeros_like(vector)
        # About the first of them, so that nothing is left of equal ones.
        moved = vector - self._first
        self._sum, self._squares = self._sum + moved, self._squares + moved.square()
        self._gradients = self._gradients + gradient[0].double().square()
        self._calls += 1

    @property
    def total(self) -> float:
        """The share, as if all calls had been one."""
        if self._calls == 0:
            return 0.0
        variance = self._squares / self._calls - (self._sum / self._calls).square()
        return float(self._gradients @ variance.clamp(min=0))


class Spread:
    """The variance of vectors, or their mean square where they are all the same."""

    def __init__(self) -> None:
        self._first = self._sum = torch.zeros(0, dtype=torch.float64)
        self._squares = self._moved_squares = 0.0
        self._count = self._entries = 0

    def add(self, tensor: Tensor) -> None:
        """Add vectors ``(..., n)``."""
        vectors = _vectors(tensor).double()
        if self._count == 0:
            self._first, self._sum = vectors[0], torch.zeros_like(vectors[0])
        # About the first of them, so that nothing is left of equal ones.
        moved = vectors - self._first
        self._sum = self._sum + moved.sum(dim=0)
        self._moved_squares += float(moved.square().sum())
        self._squares += float(vectors.square().sum())
        self._count += len(vectors)
        self._entries += vectors.numel()

    @property
    def total(self) -> float:
        """The sum over all entries."""
        spread = self._moved_squares - float(self._sum.square().sum()) / max(self._count, 1)
        return spread if spread > 0 else self._squares

    @property
    def mean(self) -> float:
        """The mean over all entries."""
        return self.total / self._entries


def _vectors(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1, tensor.shape[-1]) if tensor.dim() else tensor.reshape(1, 1)
