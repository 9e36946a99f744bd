"""What an allocator returns."""

from dataclasses import dataclass, field

from hmatrix._support.typing import FloatArray
from hmatrix.allocation.error.damping import Damping
from hmatrix.matrix import HMatrix


@dataclass(frozen=True, eq=False)
class Allocation:
    """An H-matrix for a budget, with the evidence for it.

    Parameters
    ----------
    matrix
        The H-matrix.
    bias_correction
        What to add to the layer's bias, ``(m,)``: the mean of the output that `matrix` lacks on the
        calibration data; zeros without any.
    predicted_error, measured_error
        Of the output, relative, before and after the leaves were computed: the root of ``tr(E C E^T)`` over
        ``tr(A C A^T)``, with C the damped second moment of the inputs about their mean. Without calibration
        data it is the error in the Frobenius norm. Rows count by their weights, and when measured, together as
        `row_derivatives` tell. What int8 activations add, on the calibration data, is in it.
    arrangement
        How rows and columns were ordered.
    damping
        Of C.
    seconds
        That it took, without what several budgets share.
    """

    matrix: HMatrix
    bias_correction: FloatArray = field(repr=False)
    predicted_error: float
    measured_error: float
    arrangement: tuple[str, str]
    damping: Damping
    seconds: float
