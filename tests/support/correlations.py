"""Samples whose columns depend on each other."""

import numpy as np
from matrices import random_matrix


def correlated(samples, n, seed=0, rank=4):
    """Samples that vary mostly along few directions, about a mean."""
    rng = np.random.default_rng(seed)
    return 2 * rng.standard_normal((samples, rank)) @ random_matrix(rank, n, seed=9) + rng.standard_normal((samples, n))


def in_parts(parts, rows, seed=0, same=False):
    """Rows of derivatives, of which all parts have the same second moment, or are independent."""
    if same:
        return np.repeat(correlated(rows, 40, seed)[None], parts, axis=0)
    return np.random.default_rng(seed).standard_normal((parts, rows, 40))
