"""Gains of rows, which give outputs the size back that the least error takes from them.

An approximation with the least error shrinks outputs, as every regression does: its errors are uncorrelated with its
own outputs, and therefore correlated with those of the weight. Each row loses its own share, which moves the order of a
classifier's outputs, above all the largest. Scaled by its gain a row's output is right on average, given the output
that it should have, at the price of a little more error. Estimators of inner products are made unbiased in this way.

References
----------
J. Gao and C. Long, "RaBitQ", SIGMOD 2024, doi:10.1145/3654970; R. Banner, Y. Nahshan and D. Soudry, "Post training
4-bit quantization of convolutional networks for rapid-deployment", NeurIPS 2019, arXiv:1810.05723.
"""

import numpy as np

from hmatrix._support.strips import strips
from hmatrix._support.typing import FloatArray
from hmatrix.allocation.error.moments import Moments

_NEGLIGIBLE = 1e-3
"""Rows that lose less stay as they are: scaling would round their floating-point leaves anew."""

_LARGEST = 2.0
"""A row of a larger gain would have more error than output."""


def unbiased_gains(weight: FloatArray, errors: FloatArray, moments: Moments) -> FloatArray:
    """Return the factor of each row by which its outputs, given those of the weight, are right on average.

    Parameters
    ----------
    weight
        ``(m, n)``.
    errors
        The weight less its approximation, ``(m, n)``.
    moments
        Moments of the columns.

    Returns
    -------
    FloatArray
        ``(m,)``, float32, at most 2.
    """
    gains = np.ones(len(weight), np.float32)
    for rows in strips(len(weight)):
        wanted, lost = moments.weighted(weight[rows]), moments.weighted(errors[rows])
        energies = np.einsum("ij,ij->i", wanted, wanted, dtype=np.float64)
        kept = energies - np.einsum("ij,ij->i", wanted, lost, dtype=np.float64)
        matters = np.abs(energies - kept) > _NEGLIGIBLE * energies
        gains[rows][matters] = energies[matters] / np.maximum(kept, energies / _LARGEST)[matters]
    return gains
