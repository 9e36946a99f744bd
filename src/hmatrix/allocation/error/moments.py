"""The second moment of a layer's inputs, or of a network's derivatives, which says which errors of a weight matter."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from hmatrix._support.checks import check_matrix
from hmatrix._support.ranges import check_not_too_large, largest_of
from hmatrix._support.strips import strips
from hmatrix._support.typing import AnyArray, FloatArray
from hmatrix.allocation.error.damping import Damping, Vectors, damped_root, upper_root
from hmatrix.allocation.error.rounded_inputs import RoundedInputs
from hmatrix.allocation.error.scaling import divided, exponent_of
from hmatrix.errors import ArgumentError

FEWEST_SAMPLES = 2

_MOST = 2.0**152
"""Largest magnitude of inputs: their mean times errors of 2^-24 of a weight near 1 is what float32 holds at most."""


@dataclass(frozen=True, eq=False)
class Moments:
    """The damped second moment ``C = root @ root.T`` of centred inputs.

    Parameters
    ----------
    root
        Upper triangular, float32 ``(n, n)``; ``None`` is the identity. ``(E @ root)[:, j]`` depends on the errors E of
        columns up to j alone, and the sum of all squares is the error of the output.
    mean
        Mean input, ``(n,)``.
    damping
        The damping that was chosen.
    rounded
        The inputs, where activations are int8.
    exponent
        Exponent of the power of two that all of these were divided by, where inputs were very large or very small.
    """

    root: FloatArray | None
    mean: FloatArray
    damping: Damping
    rounded: RoundedInputs | None = None
    exponent: int = 0

    @classmethod
    def of_root(cls, root: FloatArray | None, n: int) -> Self:
        """Return moments of `n` columns with an upper triangular root ``(n, n)``, or the identity for ``None``."""
        return cls(root, np.zeros(n, np.float32), Damping())

    def covariance(self) -> FloatArray | None:
        """Compute C, float32 ``(n, n)``; ``None`` is the identity."""
        return None if self.root is None else self.root @ self.root.T

    @property
    def variances(self) -> FloatArray:
        """The diagonal of C, ``(n,)``."""
        if self.root is None:
            return np.ones(len(self.mean), np.float32)
        variances: FloatArray = np.einsum("ij,ij->i", self.root, self.root)
        return variances

    @property
    def innovations(self) -> FloatArray:
        """Conditional variance of each column j given columns j+1 ... n-1, ``(n,)``."""
        return np.ones(len(self.mean), np.float32) if self.root is None else np.square(np.diag(self.root))

    def permuted(self, order: AnyArray) -> "Moments":
        """Return the moments of the columns in another order, a permutation ``(n,)``."""
        root = None if self.root is None else upper_root(self.root[order])
        rounded = None if self.rounded is None else self.rounded.permuted(order)
        return Moments(root, self.mean[order], self.damping, rounded, self.exponent)

    def error(self, difference: FloatArray) -> float:
        """Return the mean square of the output's error, ``tr(E C E^T)``, for E ``(m, n)``."""
        weighted = (self.weighted(difference[rows]) for rows in strips(len(difference)))
        return float(sum(np.square(strip, dtype=np.float64).sum() for strip in weighted))

    def weighted(self, matrix: FloatArray) -> FloatArray:
        """Return ``matrix @ root``, ``(m, n)``, whose squares are errors of the output."""
        return matrix if self.root is None else matrix @ self.root


def moments(
    weight: FloatArray,
    calibration: npt.ArrayLike,
    *,
    derivatives: npt.ArrayLike | None = None,
    quantized: bool = False,
) -> Moments:
    """Estimate the second moment of a layer's inputs about their mean, or of a network's derivatives.

    Parameters
    ----------
    weight
        The layer's weight ``(m, n)``.
    calibration
        Inputs of the layer, ``(samples, n)``, or ``(samples, vectors, n)``, of which those of a sample, such as the
        tokens of a sentence, are alike: the damping is chosen by leaving out whole samples.
    derivatives
        Rows ``(parts, rows, n)`` whose second moment takes the place of that of the inputs, with the same trace.
    quantized
        Whether activations are int8.

    Raises
    ------
    ArgumentError
        If the calibration data have another width, NaN or infinity, or fewer than two samples; the same of derivatives.
    """
    X, samples, exponent = _inputs(calibration, weight.shape[1])
    mean = X.mean(axis=0)
    rounded = RoundedInputs(X) if quantized else None
    # The vectors are let go before a matrix as large as they are is needed.
    root, damping = damped_root(_vectors(X - mean, samples, derivatives), weight)
    return Moments(root, mean, damping, rounded, exponent)


def _inputs(calibration: npt.ArrayLike, n: int) -> tuple[FloatArray, int, int]:
    """Return vectors ``(samples * vectors, n)``, float32, the number of samples, and the exponent of the vectors."""
    shape = tuple(getattr(calibration, "shape", ()))
    is_grouped = len(shape) == 3 and 0 not in shape
    X = check_matrix("calibration", np.reshape(calibration, (-1, shape[-1])) if is_grouped else calibration)
    if X.shape[1] != n:
        shape = shape if is_grouped else X.shape
        mend = f"give (samples, {n}), the layer's inputs, or (samples, vectors, {n})"
        raise ArgumentError("calibration", f"has the shape {shape}", mend)
    samples = shape[0] if is_grouped else len(X)
    if samples < FEWEST_SAMPLES:
        raise ArgumentError("calibration", f"has {samples} sample", f"give at least {FEWEST_SAMPLES}")
    check_not_too_large("calibration", largest_of(X), _MOST, "corrections of the bias allow")
    exponent = exponent_of(X)
    return divided(X, exponent), samples, exponent


def _vectors(Z: FloatArray, samples: int, derivatives: npt.ArrayLike | None) -> Vectors:
    if derivatives is None:
        return Vectors.of_samples(Z, samples)
    trace = float(np.square(Z).sum(axis=1).mean())
    return Vectors.of_derivatives("derivatives", derivatives, trace, Z.shape[1])
