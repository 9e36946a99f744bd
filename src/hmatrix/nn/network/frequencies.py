"""Frequencies of an embedding's rows, estimated from the counts in calibration data.

References
----------
I. J. Good, "The population frequencies of species and the estimation of population parameters", Biometrika 40 (1953),
doi:10.1093/biomet/40.3-4.237.
"""

import numpy as np

from hmatrix._support.typing import Floats64, Integers64


def frequencies(counts: Integers64) -> Floats64:
    """Return the probability of each row ``(m,)`` from its count; some count must be positive.

    Rows that were never seen share the part of those that were seen once (Good and Turing's estimate), in equal parts,
    and no row has less than one of these.
    """
    total, unseen = int(counts.sum()), int(np.count_nonzero(counts == 0))
    if unseen == 0:
        return np.asarray(counts / total)
    # One, where nothing was seen once: no row is certain never to be selected.
    missing = max(int(np.count_nonzero(counts == 1)), 1) / total
    shares: Floats64 = np.maximum((1 - missing) * counts / total, missing / unseen)
    return np.asarray(shares / shares.sum())
