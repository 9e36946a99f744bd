import numpy as np
import pytest
import scipy.linalg
from matrices import BLOCKS, deficient, equal_bits, inverse_distance, random_matrix, relative

import hmatrix as hm
from hmatrix.errors import ArgumentError
from hmatrix.lowrank.aca import FullACA, PartialACA
from hmatrix.lowrank.compressors import PivotedQR, RandomizedSVD, TruncatedSVD
from hmatrix.lowrank.entries import Entries, EntryBlock

EXACT = [TruncatedSVD(), PivotedQR(), RandomizedSVD(), FullACA()]
"""Compressors that know their error."""

every_exact = pytest.mark.parametrize("compressor", EXACT, ids=lambda c: type(c).__name__)
every = pytest.mark.parametrize("compressor", [*EXACT, PartialACA()], ids=lambda c: type(c).__name__)
every_block = pytest.mark.parametrize("A", BLOCKS.values(), ids=BLOCKS.keys())


def pivoted_qr_error(A, rank):
    R, _ = scipy.linalg.qr(A, mode="r", pivoting=True)
    return np.linalg.norm(R[rank:])


@every_exact
@every_block
@pytest.mark.parametrize("rtol", [0.3, 1e-3, 1e-8])
def test_error_bound(compressor, A, rtol):
    assert relative(A, compressor(A, hm.Truncation(rtol=rtol)).to_dense()) <= rtol + 1e-14


@every_exact
@every_block
@pytest.mark.parametrize("atol", [1.0, 1e-4])
def test_absolute_error_bound(compressor, A, atol):
    block = compressor(A, hm.Truncation(atol=atol))
    assert np.linalg.norm(A - block.to_dense()) <= atol
    assert block.rank < min(A.shape) or A is BLOCKS["random"]


@every_exact
@every_block
def test_error_bound_in_float32(compressor, A):
    block = compressor(A.astype(np.float32), hm.Truncation(rtol=1e-3))
    assert block.U.dtype == block.V.dtype == np.float32
    assert relative(A, block.to_dense()) <= 1e-3 + 1e-6


@every_block
@pytest.mark.parametrize("rank", [1, 3, 10])
def test_svd_is_the_optimum(A, rank):
    block = TruncatedSVD()(A, hm.Truncation(max_rank=rank))
    s = scipy.linalg.svdvals(A)
    assert block.rank == rank
    assert np.linalg.norm(A - block.to_dense()) == pytest.approx(np.linalg.norm(s[rank:]), rel=1e-8, abs=1e-13)


@every_block
@pytest.mark.parametrize("rtol", [0.3, 1e-3, 1e-8])
def test_svd_has_the_smallest_rank(A, rtol):
    s = scipy.linalg.svdvals(A)
    sufficient = [k for k in range(len(s) + 1) if np.linalg.norm(s[k:]) <= rtol * np.linalg.norm(s)]
    assert TruncatedSVD()(A, hm.Truncation(rtol=rtol)).rank == sufficient[0]


@every_block
@pytest.mark.parametrize("rtol", [0.3, 1e-3, 1e-8])
def test_qr_has_the_smallest_rank_of_its_order(A, rtol):
    rank = PivotedQR()(A, hm.Truncation(rtol=rtol)).rank
    assert pivoted_qr_error(A, rank) <= rtol * np.linalg.norm(A) < pivoted_qr_error(A, rank - 1)


@every_block
@pytest.mark.parametrize("rtol", [0.3, 1e-3, 1e-8])
def test_full_aca_has_the_smallest_rank_of_its_order(A, rtol):
    rank = FullACA()(A, hm.Truncation(rtol=rtol)).rank
    assert rank == 1 or relative(A, FullACA()(A, hm.Truncation(max_rank=rank - 1)).to_dense()) > rtol


@every_block
@pytest.mark.parametrize("rtol", [0.3, 1e-3])
def test_randomized_svd_is_nearly_the_optimum(A, rtol):
    best = TruncatedSVD()(A, hm.Truncation(rtol=rtol)).rank
    rank = RandomizedSVD()(A, hm.Truncation(rtol=rtol)).rank
    assert best <= rank <= best + 1
    error = relative(A, RandomizedSVD()(A, hm.Truncation(max_rank=best)).to_dense())
    assert error <= 1.02 * relative(A, TruncatedSVD()(A, hm.Truncation(max_rank=best)).to_dense()) + 1e-14


@every
@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("rtol", [None, 1e-12])
def test_rank_is_capped(compressor, rank, rtol):
    assert compressor(BLOCKS["random"], hm.Truncation(max_rank=rank, rtol=rtol)).rank == rank


@every
def test_cap_is_not_filled_where_the_tolerance_is_met(compressor):
    rank = compressor(BLOCKS["rank 5"], hm.Truncation(max_rank=20, rtol=1e-10)).rank
    # Partial ACA learns from a sixth cross that five were enough.
    assert rank == (6 if isinstance(compressor, PartialACA) else 5)


@every
@pytest.mark.parametrize("truncation", [hm.Truncation(max_rank=3), hm.Truncation(rtol=1e-3), hm.Truncation(atol=0.0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zero_block(compressor, truncation, dtype):
    block = compressor(np.zeros((7, 9), dtype), truncation)
    assert (block.rank, block.shape) == (0, (7, 9))
    assert block.U.dtype == block.V.dtype == dtype


@every
@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (1, 1)])
@pytest.mark.parametrize("truncation", [hm.Truncation(max_rank=3), hm.Truncation(rtol=1e-3)])
def test_one_row_or_column(compressor, shape, truncation):
    A = random_matrix(*shape)
    block = compressor(A, truncation)
    assert (block.rank, block.shape) == (1, shape)
    np.testing.assert_allclose(block.to_dense(), A, rtol=1e-14)


@every
@pytest.mark.parametrize("truncation", [hm.Truncation(max_rank=99), hm.Truncation(rtol=0.0)])
@pytest.mark.parametrize("shape", [(12, 9), (9, 12)])
def test_full_rank(compressor, truncation, shape):
    A = random_matrix(*shape)
    block = compressor(A, truncation)
    assert block.rank == 9
    assert relative(A, block.to_dense()) <= 1e-13


@every
def test_a_tolerance_above_the_norm_gives_rank_0(compressor):
    block = compressor(BLOCKS["Hilbert"], hm.Truncation(atol=100.0))
    assert block.rank == (1 if isinstance(compressor, PartialACA) else 0)


@every
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("truncation", [hm.Truncation(max_rank=3), hm.Truncation(rtol=1e-2)])
def test_block_is_not_changed(compressor, order, truncation):
    A = np.array(BLOCKS["Hilbert"], order=order)
    before = A.copy()
    A.flags.writeable = False
    compressor(A, truncation)
    assert equal_bits(A, before)


@every
def test_same_bits_again(compressor):
    first, second = (compressor(BLOCKS["1/|x-y|"], hm.Truncation(rtol=1e-6)) for _ in range(2))
    assert equal_bits(first.U, second.U)
    assert equal_bits(first.V, second.V)


@every
def test_entries_give_what_their_array_gives(compressor):
    A = BLOCKS["1/|x-y|"]
    rows, columns = np.arange(5, 55), np.arange(40)[::-1].copy()
    block = EntryBlock(Entries(lambda i, j: A[np.ix_(i, j)], A.shape), rows, columns)
    first = compressor(block, hm.Truncation(rtol=1e-6))
    second = compressor(A[np.ix_(rows, columns)], hm.Truncation(rtol=1e-6))
    assert equal_bits(first.U, second.U)
    assert equal_bits(first.V, second.V)


def check_scale(compressor, dtype, exponent, rank):
    """Scaling a block by a power of two changes no bit but the exponents', so neither rank nor error."""
    A = deficient(60, 50, 5).astype(dtype)
    block = compressor(np.ldexp(A, exponent), hm.Truncation(rtol=1e-3))
    assert block.rank == rank
    assert relative(A, np.ldexp(block.to_dense(), -exponent)) <= 1e-3


@every
@pytest.mark.parametrize("exponent", [-80, 80])
def test_scale_in_float32(compressor, exponent):
    check_scale(compressor, np.float32, exponent, 6 if isinstance(compressor, PartialACA) else 5)


@every_exact
@pytest.mark.parametrize("exponent", [-600, 600])
def test_scale_in_float64(compressor, exponent):
    check_scale(compressor, np.float64, exponent, 5)


def test_seed_of_the_randomized_svd():
    A, truncation = BLOCKS["random"], hm.Truncation(max_rank=3)
    seeds = [RandomizedSVD(rng=seed)(A, truncation).U for seed in (0, 1)]
    assert not np.array_equal(*seeds)
    assert equal_bits(RandomizedSVD(rng=np.random.default_rng(1))(A, truncation).U, seeds[1])


@pytest.mark.parametrize("name", ["oversampling", "power_iterations"])
@pytest.mark.parametrize("value", [-1, 1.5, True, None])
def test_bad_arguments_of_the_randomized_svd(name, value):
    with pytest.raises(ArgumentError, match=name):
        RandomizedSVD(**{name: value})


@pytest.mark.parametrize("power_iterations", [0, 1])
@pytest.mark.parametrize("oversampling", [0, 3])
def test_tolerance_holds_however_the_range_is_found(power_iterations, oversampling):
    compressor = RandomizedSVD(oversampling, power_iterations)
    for A in (inverse_distance(200, 150), random_matrix(60, 80)):
        assert relative(A, compressor(A, hm.Truncation(rtol=1e-4)).to_dense()) <= 1e-4


@pytest.mark.parametrize("seed", range(3))
def test_tolerance_holds_where_the_range_just_suffices(seed):
    # Singular values decay slowly and the range is found badly, so what it misses counts.
    Q, R = (np.linalg.qr(random_matrix(120, 120, seed=seed + k))[0] for k in (10, 20))
    A = Q * (1.0 / (1.0 + np.arange(120))) @ R
    for rtol in np.logspace(-0.5, -2, 12):
        assert relative(A, RandomizedSVD(2, 0, rng=seed)(A, hm.Truncation(rtol=rtol)).to_dense()) <= rtol
