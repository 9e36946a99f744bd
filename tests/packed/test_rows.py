"""Rows of packed matrices, by the native kernels and by torch."""

import numpy as np
import pytest
from matrices import permutation, random_leaves, stored

import hmatrix as hm
from hmatrix import _core
from hmatrix.codes.precision import Precision
from hmatrix.packed.kernels import native_product
from hmatrix.packed.packing import pack

every_set = pytest.mark.parametrize("instruction_set", _core.instruction_sets())

m, n = 150, 90
KINDS = {precision.name.lower(): [precision] for precision in Precision} | {"mixed": list(Precision)[1:]}


def packed(kind, permuted, seed=0):
    leaves = stored(random_leaves((m, n), seed=seed, ranks=(None, 0, 2, 70)), KINDS[kind], (0, 13))
    return pack((m, n), leaves, *(permutation(size, seed) if permuted else None for size in (m, n)))


def rows_of(product, indices, dtype):
    indices = np.asarray(indices, np.int64)
    y = np.full((len(indices), n), np.nan, dtype)
    product.rows_at(indices.ctypes.data, y.ctypes.data, len(indices))
    return y


@every_set
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("permuted", [False, True])
def test_rows(instruction_set, kind, permuted):
    for seed in range(3):
        matrix = packed(kind, permuted, seed)
        dense = hm.HMatrix(matrix).to_dense()
        product = native_product(matrix, instruction_set)
        chosen = [*range(m), 5, 5, 0]
        bound = 200 * np.finfo(matrix.dtype).eps * np.abs(dense).max()
        np.testing.assert_allclose(rows_of(product, chosen, matrix.dtype), dense[chosen], rtol=0, atol=bound)
        assert rows_of(product, [], matrix.dtype).shape == (0, n)


@every_set
@pytest.mark.parametrize("wrong", [-1, m, 2**40])
@pytest.mark.parametrize("permuted", [False, True])
def test_indices_that_are_out_of_range(instruction_set, wrong, permuted):
    product = native_product(packed("int8", permuted), instruction_set)
    with pytest.raises(IndexError, match="out of range"):
        rows_of(product, [0, wrong], np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("permuted", [False, True])
def test_rows_by_torch(kind, permuted):
    """As devices without a kernel compute them."""
    torch = pytest.importorskip("torch")
    from hmatrix.nn.ops.operator import _rows_elsewhere
    from hmatrix.nn.ops.prepared import PackedTensors

    H = hm.HMatrix(packed(kind, permuted))
    chosen = torch.arange(m).reshape(3, m // 3)
    rows = _rows_elsewhere(chosen, *PackedTensors.of(H), m, n)
    torch.testing.assert_close(rows.reshape(m, n), torch.from_numpy(H.to_dense()), rtol=1e-5, atol=1e-5)
    assert rows.shape == (3, m // 3, n)
