"""A random H-matrix and its array, for the tests of what it does."""

import numpy as np
from matrices import assembled, permutation, random_leaves

import hmatrix as hm

SHAPE = m, n = 90, 70
PERMUTATIONS = permutation(m, seed=1), permutation(n, seed=2)
TYPES = [np.float32, np.float64]


def make(dtype=np.float64):
    """A random H-matrix and the same as an array in float64."""
    leaves = random_leaves(SHAPE, dtype=dtype, seed=5)
    return hm.HMatrix.from_leaves(SHAPE, leaves, *PERMUTATIONS), assembled(SHAPE, leaves, *PERMUTATIONS)


def close(actual, expected, dtype):
    np.testing.assert_allclose(actual, expected, atol=2000 * np.finfo(dtype).eps * max(1, np.abs(expected).max()))
