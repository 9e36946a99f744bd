"""Matrices that are allocated, and what else fits into as many bytes."""

from functools import cache

import numpy as np
import pytest
from correlations import correlated
from matrices import random_matrix

import hmatrix as hm

M, N = 96, 130


def structured():
    """Low rank, noise, and a block that is much larger."""
    A = random_matrix(M, 3, seed=1) @ random_matrix(3, N, seed=2) + 0.1 * random_matrix(M, N, seed=3)
    A[:30, :40] *= 10
    return A.astype(np.float32)


MATRICES = {"random": random_matrix(M, N, np.float32), "structured": structured()}
every_matrix = pytest.mark.parametrize("name", MATRICES)
INPUTS = correlated(80, N)


@cache
def allocator_of(name, calibrated=False):
    """Return the allocator of a matrix, which tests ask for many budgets: it is not changed by them."""
    inputs = INPUTS if calibrated else None
    return hm.Allocator(MATRICES[name], calibration=inputs, splitter=hm.Cardinality(24))


def error_of(weight, matrix, allocator):
    moments = allocator._weighted.moments
    return np.sqrt(moments.error(weight - matrix.to_dense()) / moments.error(weight))


PLAIN = [precision for precision in hm.Precision if precision.is_integer or precision is hm.Precision.BFLOAT16]


@cache
def _rivals(name):
    weight = MATRICES[name]
    found = [hm.quantize(weight, precision) for precision in PLAIN]
    svd = hm.Truncation
    for precision in ("float32", "int8", "int4"):
        found += [hm.global_svd(weight, svd(max_rank=k)).astype(precision) for k in (1, 2, 3, 5, 8, 12, 20, 30, 45)]
    for leaf_size in (12, 24):
        splitter = hm.Cardinality(leaf_size)
        found += [hm.build(weight, splitter=splitter, truncation=svd(max_rank=k)) for k in (1, 2, 4, 8, 16)]
    return found


def competitors(name, most):
    """What else fits into as many bytes: plain integers, a global SVD in three precisions, the published H-matrix."""
    return [matrix for matrix in _rivals(name) if matrix.storage().total <= most]
