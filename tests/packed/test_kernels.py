import numpy as np
import pytest
from matrices import assembled, equal_bits, leaf, permutation, random_leaves, stored
from multiplying import CODES, FLOATS32, KERNELS, every_code, every_kernel, every_type, multiply

from hmatrix.codes.precision import Precision
from hmatrix.lowrank.factors import LowRank
from hmatrix.packed.kernels import LEAST_LARGEST, REFERENCE, quantize_activations
from hmatrix.packed.packing import PackedLeaf, pack

BATCHES = [None, 0, 1, 2, 7, 130]
"""Rows of a batch; ``None`` is a vector."""

SHAPES = [
    (1, 1),
    (1, 1000),
    (3, 31),
    (31, 3),
    (33, 65),
    (64, 64),
    (65, 33),
    (65, 1001),
    (1000, 64),
    (1001, 1000),
]

LARGEST = 10**6


def check(packed, dense, magnitude, kernel, batches=BATCHES):
    """Compare with the dense product in float64.

    Each entry is a sum of at most ``w = m + n + intermediate`` products of at most three factors, added in
    some order: its error is below ``(w + 3) eps`` times the same sum of absolute values.
    """
    rng = np.random.default_rng(1)
    m, n = packed.shape
    bound = (m + n + packed.schedule.intermediate + 3) * np.finfo(packed.dtype).eps
    for transposed, size in ((False, n), (True, m)):
        A, B = (dense, magnitude) if transposed else (dense.T, magnitude.T)
        for batch in batches:
            x = rng.standard_normal(size if batch is None else (batch, size)).astype(packed.dtype)
            y = multiply(packed, kernel, x, transposed)
            assert (np.abs(y - x.astype(float) @ A) <= bound * (np.abs(x.astype(float)) @ B)).all()


def checked(shape, leaves, kernel, permuted=False, batches=BATCHES):
    permutations = [permutation(size, seed=3) for size in shape] if permuted else [None, None]
    dense, magnitude = (assembled(shape, leaves, *permutations, of=of) for of in (np.asarray, np.abs))
    check(pack(shape, leaves, *permutations), dense, magnitude, kernel, batches)


@every_kernel
@every_type
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("permuted", [False, True], ids=["", "permuted"])
def test_product(kernel, dtype, shape, permuted):
    # The largest shape takes its time in the tests themselves.
    batches = BATCHES if shape[0] * shape[1] < LARGEST else [None, 7]
    checked(shape, random_leaves(shape, dtype=dtype, seed=sum(shape)), kernel, permuted, batches)


@every_kernel
@every_type
@pytest.mark.parametrize("rank", [None, 0, 1, 33])
@pytest.mark.parametrize("shape", [(1, 1), (33, 65), (130, 33)], ids=str)
def test_one_leaf(kernel, dtype, rank, shape):
    rng = np.random.default_rng(0)
    checked(shape, [leaf((0, shape[0]), (0, shape[1]), rank, rng, dtype)], kernel)


@every_kernel
@pytest.mark.parametrize("ranks", [(0,), (0, 1), (None,), (33,), (64, 65)], ids=str)
def test_leaves_of_the_same_kind(kernel, ranks):
    checked((150, 130), random_leaves((150, 130), ranks=ranks), kernel, batches=[None, 2, 7])


@every_kernel
@every_type
def test_dense_leaf_at_the_right_of_the_first_low_rank_one(kernel, dtype):
    # In the source of the second stage the last column of x is next to the first entry of t.
    rng = np.random.default_rng(0)
    leaves = [leaf((0, 70), (0, 40), 3, rng, dtype), leaf((0, 70), (40, 90), None, rng, dtype)]
    checked((70, 90), leaves, kernel)


@every_kernel
def test_rank_0_everywhere_gives_zeros(kernel):
    packed = pack((70, 50), random_leaves((70, 50), ranks=(0,)))
    for transposed, size in ((False, 50), (True, 70)):
        np.testing.assert_array_equal(multiply(packed, kernel, np.ones((3, size)), transposed), 0.0)


@every_kernel
@pytest.mark.parametrize("seed", range(20))
def test_many_partitions(kernel, seed):
    shape = tuple(np.random.default_rng(seed).integers(1, 300, 2).tolist())
    leaves = random_leaves(shape, seed=seed, most=40, dtype=(np.float32, np.float64)[seed % 2])
    checked(shape, leaves, kernel, permuted=seed % 3 == 0, batches=[None, 3])


# All precisions.

SMALL_BATCHES = [None, 0, 1, 2, 7, 64]


def decoded(packed):
    """The leaves of a packed matrix as it gives them back."""
    return [
        PackedLeaf(slice(first, end), slice(left, right), packed.block(number))
        for number, (first, end, left, right, *_) in enumerate(packed.leaves.tolist())
    ]


def magnitude_of(packed, of=np.abs):
    """The matrix of the decoded blocks in float64; `of` is applied to their coefficients."""
    return assembled(packed.shape, decoded(packed), packed.row_permutation, packed.column_permutation, of)


def quantisation_bound(packed, x):
    """How far quantised activations may be from exact ones at most, for x ``(batch, n)``; ``(batch, m)``.

    An entry of a vector that is quantised with the largest magnitude M is off by M / 254 at most, and M is
    no more than the largest of all entries that the leaf meets, in x and in t.
    """
    x = np.abs(x.astype(float))
    x = x if packed.column_permutation is None else x[:, packed.column_permutation]
    error = np.zeros((len(x), packed.shape[0]))
    for part, precision in zip(decoded(packed), packed.leaves[:, 5].tolist(), strict=True):
        if not Precision(precision).is_integer or part.rank == 0:
            continue
        mine = x[:, part.columns]
        step = mine.max(axis=1, keepdims=True) / 254
        if isinstance(part.block, LowRank):
            U, V = np.abs(part.block.U.astype(float)), np.abs(part.block.V.astype(float))
            of_t = step * V.sum(axis=0)
            largest = (mine @ V + of_t).max(axis=1, keepdims=True)
            error[:, part.rows] += (of_t + largest / 254) @ U.T
        else:
            error[:, part.rows] += step * np.abs(part.block).sum(axis=1)
    if packed.row_permutation is None:
        return error
    result = np.empty_like(error)
    result[:, packed.row_permutation] = error
    return result


def check_all(packed, batches=SMALL_BATCHES, kernels=KERNELS):
    """Compare all kernels with the dense product in float64, and with the reference."""
    m, n = packed.shape
    rng = np.random.default_rng(2)
    dense, magnitude = magnitude_of(packed, np.asarray), magnitude_of(packed)
    # As in `check`; each factor is decoded and scaled with up to four roundings more.
    rounding = (m + n + packed.schedule.intermediate + 12) * np.finfo(packed.dtype).eps
    codes_only = all(Precision(precision).is_integer for precision in packed.leaves[:, 5])
    for transposed, size in ((False, n), (True, m)):
        A, B = (dense, magnitude) if transposed else (dense.T, magnitude.T)
        for batch in batches:
            x = rng.standard_normal(size if batch is None else (batch, size)).astype(packed.dtype)
            bound = rounding * (np.abs(x.astype(float)) @ B)
            quantised = np.zeros(())
            if packed.quantized and not transposed:
                quantised = quantisation_bound(packed, np.atleast_2d(x)).reshape(bound.shape)
            reference = multiply(packed, REFERENCE, x, transposed)
            for kernel in kernels:
                y = multiply(packed, kernel, x, transposed)
                assert (np.abs(y - x.astype(float) @ A) <= bound + quantised * (1 + 4 * rounding)).all()
                assert (np.abs(y.astype(float) - reference) <= 2 * bound + 4 * rounding * quantised).all()
                if packed.quantized and codes_only and not transposed:
                    np.testing.assert_array_equal(y, reference)


RANKS = {"dense": (None,), "low rank": (1, 5, 33), "both": (None, 0, 1, 5, 33)}


@pytest.mark.parametrize("group", [0, 13])
@pytest.mark.parametrize("quantized", [False, True], ids=["exact", "int8"])
@pytest.mark.parametrize("kind", RANKS)
@pytest.mark.parametrize("precision", Precision, ids=lambda precision: precision.name)
def test_precisions(precision, kind, quantized, group):
    shape = (97, 133)
    leaves = stored(random_leaves(shape, ranks=RANKS[kind], seed=3, most=7), [precision], [group])
    check_all(pack(shape, leaves, permutation(shape[0]), permutation(shape[1]), quantized=quantized))


@pytest.mark.parametrize("groups", [(0,), (13,), (0, 1, 64, 13)], ids=str)
@pytest.mark.parametrize("quantized", [False, True], ids=["exact", "int8"])
@pytest.mark.parametrize("precisions", [list(Precision)[1:], CODES], ids=["all", "codes"])
@pytest.mark.parametrize("seed", range(2))
def test_precisions_together(precisions, quantized, groups, seed):
    shape = (130, 101)
    leaves = stored(random_leaves(shape, seed=seed, most=14), precisions, groups)
    check_all(pack(shape, leaves, permutation(130), permutation(101), quantized=quantized), [None, 2, 7])


ODD_SHAPES = [(1, 1), (1, 3), (3, 1), (3, 31), (31, 3), (33, 31), (1, 1001), (1001, 1), (33, 1000), (1000, 33)]


@pytest.mark.parametrize("quantized", [False, True], ids=["exact", "int8"])
@pytest.mark.parametrize("shape", ODD_SHAPES, ids=str)
@pytest.mark.parametrize("precision", [*FLOATS32, *CODES], ids=lambda precision: precision.name)
def test_precisions_of_odd_shapes(precision, shape, quantized):
    rng = np.random.default_rng(0)
    one = leaf((0, shape[0]), (0, shape[1]), None, rng)
    for leaves in ([one], random_leaves(shape, ranks=RANKS["both"], seed=sum(shape))):
        check_all(pack(shape, stored(leaves, [precision], [0, 13]), quantized=quantized), [None, 3])


@pytest.mark.parametrize("quantized", [False, True], ids=["exact", "int8"])
@pytest.mark.parametrize("shape", [(1001, 1000), (1000, 1001)], ids=str)
def test_precisions_of_large_shapes(shape, quantized):
    leaves = stored(random_leaves(shape, ranks=(1, 5, 33), most=9), [*CODES, *FLOATS32], [0, 64])
    check_all(pack(shape, leaves, quantized=quantized), [None, 7])


@every_code
def test_the_largest_sums_of_codes_stay_within_32_bits(precision):
    # All codes at an end, all activations at 127 or -127, in the longest run.
    n = 1 << 14
    block = np.ones((3, n), np.float32)
    block[1] = -1
    packed = pack((3, n), [PackedLeaf(slice(0, 3), slice(0, n), block, precision)], quantized=True)
    check_all(packed, [])
    for x in (np.ones(n, np.float32), -np.ones(n, np.float32)):
        for kernel in KERNELS:
            np.testing.assert_allclose(multiply(packed, kernel, x, False), x[0] * n * block[:, 0], rtol=1e-5)


def depends(packed, entry):
    """Which rows of the matrix have a leaf of a rank other than 0 at an entry of x."""
    place = entry if packed.column_permutation is None else np.flatnonzero(packed.column_permutation == entry)[0]
    rows = np.zeros(packed.shape[0], bool)
    for first, end, left, right, rank, *_ in packed.leaves.tolist():
        rows[first:end] |= rank != 0 and left <= place < right
    if packed.row_permutation is None:
        return rows
    result = np.empty_like(rows)
    result[packed.row_permutation] = rows
    return result


@every_code
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("group", [0, 13])
def test_quantised_activations_that_are_not_finite(precision, value, group):
    shape = (100, 90)
    leaves = stored(random_leaves(shape, seed=1, ranks=(None, 0, 3)), [precision], [group])
    packed = pack(shape, leaves, permutation(100), permutation(90), quantized=True)
    x = np.random.default_rng(0).standard_normal((3, 90)).astype(np.float32)
    for entry in (0, 17, 89):
        spoilt = x.copy()
        spoilt[1, entry] = value
        rows = depends(packed, entry)
        assert rows.any()
        for kernel in KERNELS:
            y, expected = multiply(packed, kernel, spoilt, False), multiply(packed, kernel, x, False)
            np.testing.assert_array_equal(np.isnan(y[1]), rows)
            assert equal_bits(y[1, ~rows], expected[1, ~rows])
            assert equal_bits(y[::2], expected[::2])
            np.testing.assert_array_equal(np.isnan(multiply(packed, kernel, spoilt[1], False)), rows)


@every_code
def test_quantised_activations_all_not_finite(precision):
    packed = pack((9, 7), stored([leaf((0, 9), (0, 7), 2, np.random.default_rng(0))], [precision]), quantized=True)
    for value in (np.nan, np.inf):
        for kernel in KERNELS:
            assert np.isnan(multiply(packed, kernel, np.full(7, value), False)).all()


@every_code
@pytest.mark.parametrize("size", [0.0, -0.0, 1e-45, 4.5e-41, 4.7e-41, 1e-38, 3.6e-37, 9.9e-37, 1.01e-36, 1e-30, 1e30])
def test_quantised_activations_of_any_size(precision, size):
    shape = (50, 40)
    packed = pack(shape, stored(random_leaves(shape), [precision], [0, 13]), quantized=True)
    x = (np.random.default_rng(0).uniform(-1, 1, (3, 40)) * size).astype(np.float32)
    x[:, ::7] = np.float32(size)
    reference = multiply(packed, REFERENCE, x, False)
    for kernel in KERNELS:
        y = multiply(packed, kernel, x, False)
        np.testing.assert_array_equal(y, reference)
        if size < LEAST_LARGEST:
            np.testing.assert_array_equal(y, 0)
        elif size >= 1e-38:
            # Smaller steps have fewer digits than float32 has elsewhere.
            lost = 1e-4 if size >= 1e-30 else 1e-2
            bound = quantisation_bound(packed, x) + lost * np.abs(x.astype(float)) @ magnitude_of(packed).T
            assert (np.abs(y - x.astype(float) @ magnitude_of(packed, np.asarray).T) <= bound).all()


def test_steps_and_codes_of_activations():
    x = np.array([[1, -2, 0.5], [0, 0, 0], [2e-41, 0, 0], [np.nan, 1, 2], [np.inf, 1, 2]], np.float32)
    codes, steps = quantize_activations(x)
    assert (codes.dtype, steps.dtype) == (np.int8, np.float32)
    # 63.5 and 31.75 round to even, and up.
    assert codes.tolist() == [[64, -127, 32], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(steps, np.array([np.float32(2) / np.float32(127), 0, 0, np.nan, np.nan], np.float32))


@every_code
@pytest.mark.parametrize("quantized", [False, True], ids=["exact", "int8"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_of_a_batch_do_not_meet(precision, quantized, kernel):
    # More than go through the stages at once.
    shape = (40, 50)
    packed = pack(shape, stored(random_leaves(shape), [precision], [13]), quantized=quantized)
    x = np.random.default_rng(0).standard_normal((131, 50)).astype(np.float32)
    y = multiply(packed, kernel, x, False)
    for row in (0, 1, 127, 128, 130):
        alone = multiply(packed, kernel, x[row], False)
        if quantized:
            np.testing.assert_array_equal(y[row], alone)
        else:
            np.testing.assert_allclose(y[row], alone, rtol=1e-4, atol=1e-4)


def test_permutations_of_any_layout():
    shape = (30, 20)
    leaves, rows, columns = random_leaves(shape), permutation(30), permutation(20)
    expected = multiply(pack(shape, leaves, rows, columns), "portable", np.ones(20), False)
    spread = [np.repeat(order, 2)[::2] for order in (rows, columns)]
    assert equal_bits(multiply(pack(shape, leaves, *spread), "portable", np.ones(20), False), expected)
