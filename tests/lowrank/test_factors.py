import numpy as np
import pytest
import scipy.linalg
from matrices import deficient, equal_bits, hilbert, random_matrix, relative

from hmatrix.errors import ArgumentError
from hmatrix.lowrank.compressors import PivotedQR, RandomizedSVD, TruncatedSVD
from hmatrix.lowrank.factors import LowRank, Truncation, recompress, tail_norms, truncated_svd

ERRORS = np.array([10.0, 5.0, 2.0, 0.5, 0.0])


@pytest.mark.parametrize(
    ("truncation", "rank"),
    [
        (Truncation(rtol=1.0), 0),
        (Truncation(rtol=0.2), 2),
        (Truncation(rtol=0.19), 3),
        (Truncation(atol=5.0), 1),
        (Truncation(atol=0.0), 4),
        (Truncation(rtol=0.2, atol=0.5), 2),
        (Truncation(rtol=0.01, atol=5.0), 1),
        (Truncation(rtol=0.3, atol=2.5), 2),
        (Truncation(max_rank=3), 3),
        (Truncation(max_rank=9), 4),
        (Truncation(max_rank=1, rtol=0.2), 1),
        (Truncation(max_rank=3, rtol=0.2), 2),
    ],
)
def test_rank(truncation, rank):
    assert truncation.choose(ERRORS, 10.0, (4, 6)) == rank


@pytest.mark.parametrize("truncation", [Truncation(max_rank=3), Truncation(rtol=0.0), Truncation(atol=0.0)])
def test_a_zero_block_has_rank_0(truncation):
    assert truncation.choose(np.zeros(5), 0.0, (4, 6)) == 0


def test_where_no_rank_suffices_all_are_taken():
    assert Truncation(atol=1.0).choose(np.array([5.0, 4.0, 3.0]), 5.0, (8, 6)) == 2


@pytest.mark.parametrize(
    ("truncation", "cap"), [(Truncation(rtol=0.1), 4), (Truncation(max_rank=3), 3), (Truncation(max_rank=5), 4)]
)
def test_cap(truncation, cap):
    assert truncation.cap((4, 6)) == truncation.cap((6, 4)) == cap


@pytest.mark.parametrize(
    ("truncation", "expected"),
    [
        (Truncation(max_rank=1), False),
        (Truncation(rtol=0.0), True),
        (Truncation(atol=1.0, max_rank=1), True),
    ],
)
def test_has_tolerance(truncation, expected):
    assert truncation.has_tolerance is expected


def test_neither_rank_nor_tolerance():
    with pytest.raises(ArgumentError, match="truncation: has neither a rank nor a tolerance; give max_rank, rtol"):
        Truncation()


@pytest.mark.parametrize("max_rank", [0, -1, 2.0, "3", True, np.nan])
def test_bad_ranks(max_rank):
    with pytest.raises(ArgumentError, match="max_rank"):
        Truncation(max_rank=max_rank)


@pytest.mark.parametrize("name", ["rtol", "atol"])
@pytest.mark.parametrize("value", [-1e-9, np.nan, np.inf, "1", True, 1j])
def test_bad_tolerances(name, value):
    with pytest.raises(ArgumentError, match=name):
        Truncation(**{name: value})


def test_tail_norms():
    values = np.array([3.0, 4.0, 1e-9])
    np.testing.assert_allclose(tail_norms(values), [5.0, 4.0, 1e-9, 0.0], rtol=1e-15)
    np.testing.assert_array_equal(tail_norms(values[:0]), [0.0])
    assert tail_norms(np.full(2, 1e30, dtype=np.float32)).dtype == np.float64
    assert np.isfinite(tail_norms(np.full(2, 1e30, dtype=np.float32))).all()


@pytest.mark.parametrize("rtol", [0.5, 1e-2, 1e-6])
def test_truncated_svd_is_the_best_of_its_rank(rtol):
    A = hilbert(30, 40)
    block = truncated_svd(A, Truncation(rtol=rtol))
    s = scipy.linalg.svdvals(A)
    assert np.linalg.norm(s[block.rank :]) <= rtol * np.linalg.norm(s) < np.linalg.norm(s[block.rank - 1 :])
    assert np.linalg.norm(A - block.to_dense()) == pytest.approx(np.linalg.norm(s[block.rank :]), rel=1e-6)
    np.testing.assert_allclose(block.V.T @ block.V, np.eye(block.rank), atol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(block.U, axis=0), s[: block.rank], rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("repeats", [1, 2, 20])
def test_recompress_finds_the_rank(dtype, repeats):
    # With 20 repeats there are more columns than rows.
    U, V = random_matrix(50, 3, dtype), random_matrix(40, 3, dtype, seed=1)
    block = LowRank(np.tile(U, repeats), np.tile(V, repeats))
    small = recompress(block, Truncation(rtol=1e-5))
    assert small.rank == 3
    assert small.U.dtype == small.V.dtype == dtype
    assert relative(block.to_dense(), small.to_dense()) <= 1e-5


@pytest.mark.parametrize("truncation", [Truncation(rtol=1e-3), Truncation(max_rank=4), Truncation(atol=1e-2)])
def test_recompress_is_the_truncated_svd(truncation):
    A = hilbert(30, 20)
    small = recompress(LowRank(A, np.eye(20)), truncation)
    best = truncated_svd(A, truncation)
    assert small.rank == best.rank
    np.testing.assert_allclose(small.to_dense(), best.to_dense(), atol=1e-14)


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_recompress_a_zero_block(rank):
    small = recompress(LowRank(random_matrix(6, rank), np.zeros((7, rank))), Truncation(rtol=0.0))
    assert (small.rank, small.shape) == (0, (6, 7))


def test_recompress_leaves_its_input_alone():
    block = LowRank(random_matrix(9, 3), random_matrix(8, 3))
    U, V = block.U.copy(), block.V.copy()
    recompress(block, Truncation(max_rank=1))
    assert equal_bits(block.U, U)
    assert equal_bits(block.V, V)


@pytest.mark.parametrize(("m", "n", "k"), [(5, 4, 2), (1, 7, 1), (7, 1, 0)])
def test_low_rank(m, n, k):
    block = LowRank(random_matrix(m, k), random_matrix(n, k))
    assert (block.rank, block.shape) == (k, (m, n))
    np.testing.assert_array_equal(block.to_dense(), block.U @ block.V.T)
    assert np.linalg.matrix_rank(block.to_dense()) == k


@pytest.mark.parametrize(("U", "V"), [((4, 2), (5, 3)), ((4,), (5, 1)), ((4, 1), (5,)), ((4, 0), (5, 1))])
def test_factors_that_do_not_fit(U, V):
    with pytest.raises(ArgumentError, match=r"factors.*give \(m, k\) and \(n, k\)"):
        LowRank(np.zeros(U), np.zeros(V))


def test_deficient_block_in_float32():
    A = deficient(40, 30, 4).astype(np.float32)
    block = truncated_svd(A, Truncation(rtol=1e-5))
    assert (block.rank, block.U.dtype, block.V.dtype) == (4, np.float32, np.float32)


@pytest.mark.parametrize("compressor", [TruncatedSVD(), PivotedQR(), RandomizedSVD()])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(4))
def test_an_error_that_equals_the_tolerance_meets_it(compressor, dtype, seed):
    """All singular values of an orthogonal matrix are 1: without 48 of 64 half of its norm is left."""
    turned = np.linalg.qr(random_matrix(64, 64, seed=seed))[0].astype(dtype)
    assert compressor(turned, Truncation(rtol=0.5)).rank == 48


def test_a_tolerance_is_not_exceeded_by_more_than_a_part_of_it():
    rule = Truncation(atol=1e-3)
    assert rule.choose(np.array([1.0, 1e-3 + 1e-9, 0.0]), 1.0, (2, 2), rounding=1e-2) == 1
    assert rule.choose(np.array([1.0, 1e-3 + 1e-7, 0.0]), 1.0, (2, 2), rounding=1e-2) == 2
    assert Truncation(rtol=0.0).choose(np.array([1.0, 1e-9, 0.0]), 1.0, (2, 2), rounding=1e-2) == 2
