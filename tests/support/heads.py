"""Progressive heads, by any kernel, for their tests."""

from dataclasses import replace
from itertools import chain

import numpy as np

from hmatrix import _core
from hmatrix.heads.head import ProgressiveHead
from hmatrix.heads.native import REFERENCE, native_head
from hmatrix.heads.reference import ReferenceHead


def layer(m=200, n=90, samples=400, rank=12, noise=0.05, seed=0):
    """A weight, a bias, and inputs in two halves; the weight is of low rank but for noise."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((m, rank)) @ rng.standard_normal((rank, n)) + noise * rng.standard_normal((m, n))
    X = rng.standard_normal((samples, n)).astype(np.float32)
    return weight.astype(np.float32), rng.standard_normal(m).astype(np.float32), X[::2], X[1::2].copy()


def with_copies(seed, m, n, kinds):
    """Rows that are equal, permuted and nearly equal ones of a few; inputs, some of them rows; and which are copies."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((kinds, n)).astype(np.float32)
    labels = rng.integers(kinds, size=m)
    weight = base[labels]
    near = rng.random(m) < 0.3
    weight[near] *= 1 + np.finfo(np.float32).eps * rng.integers(-1, 2, (int(near.sum()), n)).astype(np.float32)
    X = np.concatenate([rng.standard_normal((40, n)), 3 * weight[rng.integers(m, size=8)]]).astype(np.float32)
    return weight, X


def capped(head, most):
    """The head with room for so many rows, as margins had it in older files."""
    packed = head.pack()
    return ProgressiveHead(replace(packed, sizes=replace(packed.sizes, most=most)))


def product(head, kernel):
    packed = head.pack()
    return ReferenceHead(packed) if kernel == REFERENCE else native_head(packed, kernel)


def largest(head, kernel, x, k):
    values, indices = np.full((len(x), k), np.nan, np.float32), np.full((len(x), k), -1, np.int64)
    counts = np.full(len(x), -1, np.int64)
    product(head, kernel).largest(x, values, indices, counts)
    return values, indices, counts


def check_agreement(head, held_out, counted):
    """Every kernel refines the rows that the reference refines, and computes the same bits."""
    expected = [*(largest(head, REFERENCE, held_out, k) for k in counted), [outputs(head, REFERENCE, held_out)]]
    for kernel in _core.instruction_sets():
        found = [*(largest(head, kernel, held_out, k) for k in counted), [outputs(head, kernel, held_out)]]
        for own, other in zip(chain(*found), chain(*expected), strict=True):
            np.testing.assert_array_equal(own, other, err_msg=kernel)


def outputs(head, kernel, x):
    y = np.empty((len(x), head.shape[0]), np.float32)
    product(head, kernel).multiply_batch(x, y)
    return y
