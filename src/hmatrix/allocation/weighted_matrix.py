"""A weight, and the evidence by which errors of it are weighed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from hmatrix._support.checks import check_matrix
from hmatrix._support.machine import blas_threads
from hmatrix._support.memory import check_memory
from hmatrix._support.ranges import check_range, largest_of
from hmatrix._support.ties import rounding_of
from hmatrix._support.typing import FloatArray, Floats32
from hmatrix.allocation.error.gains import unbiased_gains
from hmatrix.allocation.error.moments import Moments, moments
from hmatrix.allocation.error.row_moments import RowMoments
from hmatrix.allocation.error.row_weights import row_scales, with_rows_scaled
from hmatrix.allocation.error.scaling import divided, exponent_of, multiplied, multiplied_correction
from hmatrix.allocation.result import Allocation
from hmatrix.allocation.rounding.realise import realise
from hmatrix.allocation.search.candidates import Piece
from hmatrix.allocation.search.layout import Layout
from hmatrix.codes.precision import Activations
from hmatrix.errors import ArgumentError
from hmatrix.matrix import HMatrix

THREADS = 1
"""Thousands of small eigenproblems: threads of BLAS that wait for each other take several times as long."""

_MOMENTS = 2
"""Arrays of the size of a second moment that its root needs, at least."""


@dataclass(frozen=True, eq=False)
class WeightedMatrix:
    """A weight, and the moments by which errors of it are weighed.

    Parameters
    ----------
    weight
        ``(m, n)``, over the power of two, rows multiplied by their scales.
    exponent
        Exponent of the power of two.
    row_scales
        Scales of the rows, ``(m,)``: roots of their weights.
    activations
        Treatment of a product's input where it meets integer codes.
    moments
        Second moment of the inputs.
    row_moments
        Second moment of the derivatives by rows.
    """

    weight: FloatArray
    exponent: int
    row_scales: Floats32
    activations: Activations
    moments: Moments
    row_moments: RowMoments

    @classmethod
    def of(
        cls,
        weight: npt.ArrayLike,
        calibration: npt.ArrayLike | None,
        activations: Activations | str,
        row_weights: npt.ArrayLike | None,
        derivatives: npt.ArrayLike | None,
        row_derivatives: npt.ArrayLike | None,
    ) -> Self:
        """Return what the arguments of `hmatrix.Allocator` say.

        Raises
        ------
        ArgumentError
            If an argument cannot be used.
        """
        if derivatives is not None and calibration is None:
            raise ArgumentError("derivatives", "are given without calibration", "give the layer's inputs, too")
        if row_derivatives is not None and row_weights is not None:
            raise ArgumentError("row_derivatives", "are given with row_weights", "leave these out")
        given = check_matrix("weight", weight)
        check_range("weight", largest_of(given))
        exponent = exponent_of(given)
        checked = divided(given, exponent)
        scales = row_scales(row_weights, len(checked))
        scaled = checked if row_weights is None else checked * scales[:, None]
        known = Activations.of(activations)
        m, n = scaled.shape
        for name, array, size in (("calibration", calibration, n), ("row_derivatives", row_derivatives, m)):
            if array is not None:
                came = f"has vectors of {size} entries: their second moment"
                check_memory(name, came, _MOMENTS * 4 * size**2, "leave it out, or allocate parts of the weight")
        with blas_threads(THREADS):
            rows = RowMoments() if row_derivatives is None else RowMoments.of(row_derivatives, m)
            columns = (
                Moments.of_root(None, n)
                if calibration is None
                else moments(scaled, calibration, derivatives=derivatives, quantized=known is Activations.INT8)
            )
        return cls(scaled, exponent, scales, known, columns, rows)

    @property
    def quantized(self) -> bool:
        """Whether activations are int8 where they meet codes."""
        return self.activations is Activations.INT8

    @property
    def rounding(self) -> float:
        """Largest difference of errors that should be equal, relative to them: they are float32, summed over columns.

        Of equal choices the first is taken, the order of the index before others.
        """
        return rounding_of(np.float32, self.weight.shape[1])

    def relative(self, error: float) -> float:
        """Return the root of a weighed square of an error, relative to that of the weight."""
        return _relative(error, self._energy)

    def allocation(self, layout: Layout, pieces: Sequence[Piece], start: float, *, unbiased: bool) -> Allocation:
        """Return the H-matrix of pieces, with the evidence for it.

        Parameters
        ----------
        layout
            Orders of rows and columns.
        pieces
            Its leaves.
        start
            Time by `time.perf_counter` when the choice began.
        unbiased
            Whether rows are scaled; see `hmatrix.Allocator.allocate`.
        """
        with blas_threads(THREADS):
            weight, inputs = layout.ordered(self.weight, self.moments)
            outputs = layout.ordered_rows(self.row_moments)
            leaves, errors = realise(weight, pieces, inputs, outputs)
            scales = self.row_scales[layout.permutations[0]]
            factors: Floats32 = np.reciprocal(scales)
            if unbiased:
                gains = unbiased_gains(weight, errors, inputs)
                factors = gains / scales
                errors *= gains[:, None]
                errors += (1 - gains)[:, None] * weight
        if (factors != 1).any():
            leaves = [with_rows_scaled(leaf, factors) for leaf in leaves]
        matrix = HMatrix.from_leaves(weight.shape, leaves, *layout.permutations, activations=self.activations)
        correction = np.empty(len(weight), np.float32)
        correction[layout.permutations[0]] = errors @ inputs.mean / scales
        return Allocation(
            multiplied(matrix, leaves, layout.permutations, self.exponent, errors),
            multiplied_correction(correction, self.exponent + inputs.exponent),
            self.relative(sum(piece.error for piece in pieces)),
            _relative(inputs.error(outputs.weighted(errors)) + self._added_by_rounding(matrix), self._joint_energy),
            layout.names,
            self.moments.damping,
            time.perf_counter() - start,
        )

    def _added_by_rounding(self, matrix: HMatrix) -> float:
        """Return the mean square that int8 activations add to the output, on the calibration data."""
        if self.moments.rounded is None:
            return 0.0
        X = self.moments.rounded.samples
        exact = HMatrix(replace(matrix.pack(), quantized=False))
        added = self.row_moments.weighted((matrix.apply(X) - exact.apply(X)).T * self.row_scales[:, None])
        return float(np.square(added).sum(axis=0).mean())

    @cached_property
    def _energy(self) -> float:
        return self.moments.error(self.weight)

    @cached_property
    def _joint_energy(self) -> float:
        rows = self.row_moments
        return self._energy if rows.root is None else self.moments.error(rows.weighted(self.weight))


def _relative(error: float, energy: float) -> float:
    return float(np.sqrt(error / energy)) if energy > 0 else 0.0
