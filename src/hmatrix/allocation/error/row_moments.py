"""The joint effect of errors of a weight's rows on a network's output.

To first order, an error E ``(m, n)`` of a layer's weight changes the network's output by a mean square of
``tr(B E A E^T)``, if the second moment of the output's derivatives by the weight is taken for a Kronecker product of B
over rows and A over columns. A says which columns matter (`hmatrix.allocation.error.moments`). B says how rows act
together: errors of rows that the network adds up may cancel. So rows are rounded some at a time, each so as to make up
for those before it, as columns are within a row. With ``B = R R^T``, R upper triangular, column j of ``E^T R`` holds
the errors of rows up to j alone.

References
----------
J. Martens and R. Grosse, "Optimizing neural networks with Kronecker-factored approximate curvature", ICML 2015,
arXiv:1503.05671; A. Tseng, Z. Sun and C. De Sa, "Model-preserving adaptive rounding", arXiv:2505.22988 (feedback on
both sides).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import scipy.linalg

from hmatrix._support.typing import AnyArray, FloatArray
from hmatrix.allocation.error.damping import Vectors, damped_root, upper_root

_PARTS = 32
"""Rows are rounded in so many parts at most: within one, rows do not make up for each other."""

_FEWEST = 16
"""Rows of a part: as many as are encoded at a time."""


@dataclass(frozen=True, eq=False)
class RowMoments:
    """The damped second moment ``B = root @ root.T`` of derivatives by a weight, over its rows.

    Parameters
    ----------
    root
        Upper triangular, float32 ``(m, m)``; ``None`` is the identity: rows are independent.
    """

    root: FloatArray | None = None

    @classmethod
    def of(cls, derivatives: npt.ArrayLike, m: int) -> Self:
        """Estimate the second moment of derivatives ``(parts, rows, m)``.

        Raises
        ------
        ArgumentError
            If they have another shape, or are not finite.
        """
        return cls(damped_root(Vectors.of_derivatives("row_derivatives", derivatives, float(m), m), None)[0])

    def permuted(self, order: AnyArray) -> "RowMoments":
        """Return the moments of the rows in another order, a permutation ``(m,)``."""
        return self if self.root is None else RowMoments(upper_root(self.root[order]))

    def weighted(self, matrix: FloatArray) -> FloatArray:
        """Return ``root.T @ matrix``, ``(m, n)``, whose rows count by themselves."""
        return matrix if self.root is None else self.root.T @ matrix

    def height(self, m: int) -> int:
        """Return how many of m rows are rounded together."""
        return m if self.root is None else max(_FEWEST, -(-m // _PARTS))

    def owed(self, errors: FloatArray, rows: slice) -> FloatArray | None:
        """Return the correction of rows ``(rows, n)`` that makes up for the errors of those before them.

        Parameters
        ----------
        errors
            Errors of the weight, ``(m, n)``; only those of the rows before count.
        rows
            The next ones.
        """
        if self.root is None or rows.start == 0:
            return None
        before = self.root[: rows.start, rows].T @ errors[: rows.start]
        owed: FloatArray = scipy.linalg.solve_triangular(
            self.root[rows, rows], before, trans="T", check_finite=False
        ).astype(np.float32, copy=False)
        return owed
