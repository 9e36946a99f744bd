"""Weights that are rounded, and what the rounded leaves stand for."""

import numpy as np
from correlations import correlated
from matrices import random_matrix

from hmatrix.allocation.error.moments import moments
from hmatrix.codes.encoding import decode, encode


def rounded(block, depth):
    """What the leaves stand for where each is rounded by itself, the finer one to what the coarser one leaves."""
    held = np.zeros_like(block)
    for precision in depth.value:
        held = held + decode(encode(block - held, precision))
    return held


def decoded(leaves):
    return sum(decode(leaf).astype(float) for leaf in leaves)


def problem(m=20, n=300, samples=400):
    weight = random_matrix(m, n, np.float32, seed=4)
    return weight, moments(weight, correlated(samples, n))
