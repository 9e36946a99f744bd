"""The result of an allocator."""

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
        Correction of the layer's bias, to be added, ``(m,)``: the mean output that `matrix` lacks on the calibration
        data; zeros without any.
    predicted_error, measured_error
        Relative error of the output, before and after the leaves were computed: the root of ``tr(E C E^T)`` over
        ``tr(A C A^T)``, with C the damped second moment of the inputs about their mean. Without calibration data it is
        the error in the Frobenius norm. Rows count by their weights. `predicted_error` treats rows as independent;
        `measured_error` includes cancellation between rows, where there are `row_derivatives`. Both include what
        int8 activations add on the calibration data.
    arrangement
        Order of rows and of columns.
    damping
        Shares by which C was damped.
    seconds
        Time of the choice, without what several budgets share.

    Examples
    --------
    >>> weight = np.random.default_rng(0).standard_normal((64, 48))
    >>> found = hm.allocate(weight, hm.Budget(storage=0.25), coordinates=hm.Index())
    >>> found.matrix.shape, found.bias_correction.shape
    ((64, 48), (64,))
    >>> found.measured_error < 0.1
    True
    """

    matrix: HMatrix
    bias_correction: FloatArray = field(repr=False)
    predicted_error: float
    measured_error: float
    arrangement: tuple[str, str]
    damping: Damping
    seconds: float
