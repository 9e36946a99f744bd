"""The best H-matrix for a budget."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hmatrix._validation import FloatArray, check_matrix
from hmatrix.allocation.budget import Budget
from hmatrix.allocation.candidates import Candidates
from hmatrix.allocation.costs import Bytes, Cost
from hmatrix.allocation.moments import Damping, Moments, moments
from hmatrix.allocation.realise import leaf_table, realise
from hmatrix.allocation.sides import Side
from hmatrix.allocation.tree import Piece, Pruner, spend
from hmatrix.assembly import Sides
from hmatrix.errors import ArgumentError
from hmatrix.matrix import HMatrix
from hmatrix.precision import Activations
from hmatrix.schedule import build_schedule

_BISECTIONS = 24
_EVALUATIONS = 12
"""Most calls of a user's function for one budget."""


@dataclass(frozen=True, eq=False)
class Allocation:
    """An H-matrix for a budget, with the evidence for it.

    Parameters
    ----------
    matrix
        The H-matrix.
    bias_correction
        What to add to the layer's bias, ``(m,)``: the mean of the output that `matrix` lacks on the
        calibration data, or zeros without any.
    predicted_error, measured_error
        Of the output, relative, before and after the leaves were computed: ``tr(E C E^T)`` over
        ``tr(A C A^T)``, its root, with the damped second moment C of the inputs about their mean. Without
        calibration data it is the error in the Frobenius norm.
    arrangement
        How rows and columns were ordered.
    damping
        Of C.
    seconds
        That it took, without what several budgets share.
    """

    matrix: HMatrix
    bias_correction: FloatArray
    predicted_error: float
    measured_error: float
    arrangement: tuple[str, str]
    damping: Damping
    seconds: float


@dataclass(frozen=True, eq=False)
class _Layout:
    """Candidates in one order of rows and columns."""

    rows: Arrangement
    columns: Arrangement
    candidates: Candidates
    pruner: Pruner

    @property
    def permutations(self) -> int:
        """Entries of the permutations that the product needs."""
        sides = (self.candidates.rows, self.candidates.columns)
        return sum(len(p) for side in sides if (p := side.permutation) is not None and not _is_identity(p))
