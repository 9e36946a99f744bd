"""Layers whose coefficients are trained, of every precision."""

import numpy as np
import pytest
from matrices import permutation, random_leaves, stored

import hmatrix as hm
from hmatrix.codes.precision import Precision
from hmatrix.packed.packing import pack

torch = pytest.importorskip("torch")
hnn = pytest.importorskip("hmatrix.nn")

MIXED = list(Precision)[1:]
KINDS = {precision.name.lower(): [precision] for precision in Precision} | {"mixed": MIXED}
m, n = 60, 50
every_kind = pytest.mark.parametrize("kind", KINDS)
INTEGERS = [precision.name.lower() for precision in Precision if precision.is_integer]
both_activations = pytest.mark.parametrize("quantized", [False, True], ids=["exact", "int8"])


def matrix(kind, quantized=False, group=0, seed=1, ranks=(None, 0, 1, 5)):
    leaves = stored(random_leaves((m, n), seed=seed, ranks=ranks), KINDS[kind], (group,))
    permutations = [permutation(size, seed) for size in (m, n)]
    return hm.HMatrix(pack((m, n), leaves, *permutations, quantized=quantized))


def batch(*size, seed=0, dtype=torch.float32):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype)


def layer_of(H):
    return hnn.HLinear(H, torch.zeros(m))


def same_bits(a, b):
    a, b = a.pack(), b.pack()
    for name in ("leaves", "data", "quantized", "row_permutation", "column_permutation"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.data.dtype == b.data.dtype
