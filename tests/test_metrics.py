import numpy as np
import pytest
from matrices import assembled, inverse_distance, permutation, random_leaves, random_matrix

import hmatrix as hm
from hmatrix.errors import ArgumentError
from hmatrix.lowrank.factors import LowRank
from hmatrix.metrics import Norm, norm, relative_error
from hmatrix.packed.packing import PackedLeaf

FROBENIUS, SPECTRAL = Norm.FROBENIUS, Norm.SPECTRAL


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(5))
def test_frobenius_norm(dtype, seed):
    shape = 80 + seed, 60
    leaves = random_leaves(shape, dtype=dtype, seed=seed)
    H = hm.HMatrix.from_leaves(shape, leaves, permutation(shape[0]))
    assert norm(H) == pytest.approx(np.linalg.norm(assembled(shape, leaves)), rel=1e-12)


def single(block):
    m, n = block.shape
    return hm.HMatrix.from_leaves(block.shape, [PackedLeaf(slice(0, m), slice(0, n), block)])


def test_frobenius_norm_of_factors_that_cancel():
    # U V^T + (1 + d) U (-V)^T = -d U V^T
    U, V, d = random_matrix(50, 3), random_matrix(40, 3, seed=1), 2.0**-30
    H = single(LowRank(np.hstack([U, (1 + d) * U]), np.hstack([V, -V])))
    assert norm(H) == pytest.approx(d * np.linalg.norm(U @ V.T), rel=1e-5)


@pytest.mark.parametrize("kind", Norm)
@pytest.mark.parametrize("rank", [0, 1])
def test_norm_of_zeros(kind, rank):
    assert norm(single(LowRank(np.zeros((6, rank)), np.zeros((7, rank)))), kind) == 0.0
    assert norm(single(np.zeros((6, 7))), kind) == 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_spectral_norm(dtype):
    A = inverse_distance(70, 50).astype(dtype)
    H = hm.build(A, splitter=hm.Cardinality(10), truncation=hm.Truncation(rtol=1e-3))
    largest = np.linalg.norm(H.to_dense().astype(np.float64), 2)
    assert norm(H, SPECTRAL) == pytest.approx(largest, rel=float(50 * np.finfo(dtype).eps))


def test_spectral_norm_is_reached_from_below():
    A = random_matrix(80, 60)
    H, largest = single(A), np.linalg.norm(A, 2)
    estimates = [norm(H, SPECTRAL, iterations=count) for count in (1, 3, 10, 30, 300)]
    assert estimates == sorted(estimates)
    assert 0.1 * largest < estimates[0] < estimates[3] < largest
    assert estimates[-1] == pytest.approx(largest, rel=1e-6)


def test_seed():
    H = single(random_matrix(30, 20))
    assert norm(H, SPECTRAL, iterations=2, rng=1) == norm(H, SPECTRAL, iterations=2, rng=np.random.default_rng(1))
    assert norm(H, SPECTRAL, iterations=2, rng=1) != norm(H, SPECTRAL, iterations=2, rng=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", Norm)
def test_relative_error(dtype, kind):
    A = inverse_distance(70, 50).astype(dtype)
    H = hm.build(A, admissibility=hm.Everywhere(), truncation=hm.Truncation(max_rank=1))
    order = {FROBENIUS: "fro", SPECTRAL: 2}[kind]
    expected = np.linalg.norm(A.astype(float) - H.to_dense(), order) / np.linalg.norm(A.astype(float), order)
    assert expected > 0.01
    assert relative_error(A, H, kind) == pytest.approx(expected, rel=1e-9)


def test_relative_error_follows_the_permutations():
    A = random_matrix(40, 30)
    points = hm.Points(permutation(40)), hm.Points(permutation(30))
    H = hm.build(A, coordinates=points, splitter=hm.Cardinality(5), truncation=hm.Truncation(rtol=0.0))
    assert H.pack().row_permutation is not None
    assert relative_error(A, H) <= 1e-14
    assert relative_error(A.tolist(), H) <= 1e-14


@pytest.mark.parametrize("kind", Norm)
def test_relative_error_of_zeros(kind):
    zeros, ones = np.zeros((5, 4)), np.ones((5, 4))
    assert relative_error(zeros, single(zeros), kind) == 0.0
    assert relative_error(zeros, single(ones), kind) == np.inf
    assert relative_error(ones, single(zeros), kind) == pytest.approx(1.0)


@pytest.mark.parametrize("measure", [norm, lambda *rest, **more: relative_error(np.ones((3, 3)), *rest, **more)])
def test_bad_arguments(measure):
    H = single(np.ones((3, 3)))
    for iterations in (0, -1, 1.5, None):
        with pytest.raises(ArgumentError, match="iterations"):
            measure(H, SPECTRAL, iterations=iterations)
    for kind in ("spectral", "frobenius", 2, None):
        with pytest.raises(ArgumentError, match="kind"):
            measure(H, kind)


@pytest.mark.parametrize(
    ("weight", "came"),
    [
        (np.ones((4, 3)), r"has the shape \(4, 3\); give \(3, 4\), as the H-matrix has"),
        (np.ones(12), "has 1 dimensions"),
        (np.full((3, 4), np.nan), "NaN"),
        (np.ones((3, 4), complex), "complex128"),
    ],
)
def test_bad_weights(weight, came):
    with pytest.raises(ArgumentError, match=f"weight: {came}|weight.*{came}"):
        relative_error(weight, single(np.ones((3, 4))))
