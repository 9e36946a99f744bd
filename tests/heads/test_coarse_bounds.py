"""What bounds a coarse part that is an H-matrix: remainders, and rounding errors of its product."""

import numpy as np
import pytest
from coarse_heads import EXACT, INTEGERS, M, N, coarse_of
from heads import largest, layer
from marks import slow
from matrices import assembled, permutation, random_leaves
from multiplying import KERNELS, every_kernel

import hmatrix as hm
from hmatrix.heads.reference import ReferenceHead


def remainder(head):
    """What H leaves of the fine rows, in float64."""
    return head.pack().rows_of(np.arange(len(head.pack().fine_scales))).astype(float) - head.coarse.to_dense()


def adversarial(weight, H, X):
    """Rows of the remainder, differences of rows, which nearly tie two outputs, and inputs of all sizes."""
    rest, differences = weight - H.to_dense(), weight[:50] - weight[50:100]
    return np.concatenate([X, 10 * rest, differences, 1e-20 * X, 1e10 * X, np.sign(X)]).astype(np.float32)


@every_kernel
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("precision", [slow("float32"), slow("bfloat16"), "int8"])
def test_the_rigorous_largest_are_those_of_the_fine_rows(kernel, name, precision):
    weight, bias, _, X = layer()
    head = hm.progressive(weight, bias, rule=hm.Rigorous(), precisions=[precision], coarse=coarse_of(name))
    fine = head.pack().rows_of(np.arange(M)).astype(float)
    bad = adversarial(weight, coarse_of(name), X)
    for k in (1, 5):
        dense = np.sort(bad.astype(float) @ fine.T + bias, axis=1)[:, : -k - 1 : -1]
        values = largest(head, kernel, bad, k)[0]
        norms = np.linalg.norm(bad.astype(float), axis=1)[:, None]
        size = 1e-5 * (np.linalg.norm(fine, axis=1).max() * norms + 4)
        if precision == "int8":
            # What is lost of x where rows are codes.
            size += head.pack().places.bound.rounding * norms
        assert (np.abs(values - dense) <= size).all()


@pytest.mark.parametrize("name", EXACT)
def test_the_rigorous_bound_holds(name):
    weight, bias, _, X = layer()
    head = hm.progressive(weight, bias, rule=hm.Rigorous(), precisions=["bfloat16"], coarse=coarse_of(name))
    packed, bad = head.pack(), adversarial(weight, coarse_of(name), X)
    fine = bad.astype(float) @ packed.rows_of(np.arange(M)).astype(float).T + bias
    reference = ReferenceHead(packed)
    lower, upper = (a[:, :M].astype(float) for a in reference.look(packed.places, reference.take_in(bad)))
    slack = 1e-6 * np.abs(fine).max(axis=1, keepdims=True)
    assert (fine <= upper + slack).all()
    assert (fine >= lower - (upper - lower) - slack).all()


@pytest.mark.parametrize("name", EXACT)
def test_rounding_errors_of_the_coarse_product_stay_within_their_bound(name):
    bias = np.zeros(M, np.float32)
    head = hm.progressive(layer()[0], bias, rule=hm.Rigorous(), precisions=["float32"], coarse=coarse_of(name))
    packed, H = head.pack(), coarse_of(name)
    X = np.random.default_rng(5).standard_normal((50, N)).astype(np.float32)
    exact = X.astype(float) @ H.to_dense().astype(float).T
    relative = packed.places.bound.relative
    bound = relative * packed.reach[:M] * np.linalg.norm(X, axis=1)[:, None]
    for kernel in KERNELS[:-1]:
        y = np.empty((50, M), np.float32)
        hm.packed.kernels.native_product(H.pack(), kernel).multiply_batch(X, y)
        assert (np.abs(y - exact) <= bound).all()
    # The bound is of use: far below what the remainders leave.
    assert (relative * packed.reach).max() < 0.001 * np.linalg.norm(layer()[0], axis=1).max()


@pytest.mark.parametrize("name", INTEGERS + EXACT)
def test_remainders_are_those_of_the_stored_rows(name):
    weight, bias, _, _ = layer()
    head = hm.progressive(weight, bias, rule=hm.FixedRows(M), precisions=["int8"], coarse=coarse_of(name))
    rest = remainder(head)
    exact = hm.heads.coarse_matrix.remainders(head.pack().matrix, head.pack().rows_of)[0]
    np.testing.assert_allclose(exact, np.linalg.norm(rest, axis=1), rtol=1e-5)
    fine = head.pack().rows_of(np.arange(M)).astype(float)
    np.testing.assert_allclose(head.coarse_error(), np.linalg.norm(rest) / np.linalg.norm(fine), rtol=1e-5)


def test_reach_is_the_sum_of_the_leaves():
    rows, columns = permutation(M, 1), permutation(N, 2)
    leaves = random_leaves((M, N), dtype=np.float32, most=9)
    H = hm.HMatrix.from_leaves((M, N), leaves, rows, columns)
    expected = np.zeros(M)
    for leaf in leaves:
        block = leaf.block
        if isinstance(block, hm.LowRank):
            expected[rows[leaf.rows]] += np.linalg.norm(block.U, axis=1) * np.linalg.norm(block.V)
        else:
            expected[rows[leaf.rows]] += np.linalg.norm(block, axis=1)
    dense = assembled((M, N), leaves, rows, columns)
    rest, reach = hm.heads.coarse_matrix.remainders(H.pack(), lambda chosen: np.zeros((len(chosen), N), np.float32))
    np.testing.assert_allclose(reach, expected, rtol=1e-5)
    np.testing.assert_allclose(rest, np.linalg.norm(dense, axis=1), rtol=1e-5)


def test_rows_are_decoded_a_few_at_a_time(monkeypatch):
    H, weight = coarse_of("floats").pack(), layer()[0]
    whole = hm.heads.coarse_matrix.remainders(H, lambda chosen: weight[chosen])
    monkeypatch.setattr(hm.heads.coarse_matrix, "CHUNK", 33)
    for own, other in zip(hm.heads.coarse_matrix.remainders(H, lambda chosen: weight[chosen]), whole, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-12)
