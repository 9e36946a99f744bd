"""Equal outputs of a dense layer: those that differ by less than the rounding of their sums.

No last bit may decide which of them is the largest: a BLAS adds up rows at the edges of its tiles in another order, so
that even equal rows get outputs that differ. The first row counts as the larger one.
"""

import numpy as np

from hmatrix._support.typing import Flags, FloatArray, Integers64
from hmatrix.heads.words import BLOCK, padded


def sum_rounding(columns: int) -> np.float32:
    """Return the largest rounding error of a float32 sum of products, relative to the norms of both factors.

    This is the bound ``|error| <= k u |a| |x|`` of k steps [1]_ for the order of the kernels: 64 lanes, which are
    then added in six steps, and two for the products and the bias. A BLAS has fewer lanes and takes more steps, but
    nearly all errors grow as ``sqrt(k)`` [2]_, which stays below this bound.

    References
    ----------
    .. [1] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., SIAM 2002, section 3.1,
       doi:10.1137/1.9780898718027.
    .. [2] N. J. Higham, T. Mary, "A New Approach to Probabilistic Rounding Error Analysis", SIAM J. Sci. Comput. 41
       (2019), doi:10.1137/18M1226312.
    """
    return np.float32(padded(columns, BLOCK) // BLOCK + 8) * np.float32(0.5) * np.finfo(np.float32).eps


def equal(outputs: FloatArray, off_by: FloatArray, largest: int) -> Flags:
    """Return whether each output ``(rows,)`` equals the largest of them, when each may be off by so much."""
    least = float(outputs[largest]) - float(off_by[largest])
    found: Flags = outputs.astype(np.float64) + off_by >= least
    return found


def largest_outputs(outputs: FloatArray, off_by: FloatArray, rows: Integers64, k: int) -> tuple[FloatArray, Integers64]:
    """Return the k largest of some rows' outputs and these rows, the largest first, of equal ones the first row first.

    Equal ones all have the largest of their outputs. Where some are not finite, none are equal.
    """
    order = np.lexsort((rows, -outputs))
    if not np.isfinite(outputs[order[:k]]).all():
        return outputs[order[:k]], rows[order[:k]]
    values, found = np.empty(k, outputs.dtype), np.empty(k, np.int64)
    rest, filled = order, 0
    while filled < k:
        same = equal(outputs[rest], off_by[rest], 0)
        group = np.sort(rows[rest[same]])[: k - filled]
        values[filled : filled + len(group)] = outputs[rest[0]]
        found[filled : filled + len(group)] = group
        rest, filled = rest[~same], filled + len(group)
    return values, found
