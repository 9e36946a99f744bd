from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matrices import (
    equal_bits,
    leaf,
    partitions,
    permutation,
    random_leaves,
    random_matrix,
    stored,
    stored_partitions,
)

from hmatrix.codes.encoding import decode, encode
from hmatrix.codes.precision import Precision, from_words, to_words
from hmatrix.errors import ArgumentError
from hmatrix.lowrank.factors import LowRank
from hmatrix.packed.packing import PackedLeaf, pack
from hmatrix.packed.schedule import LONGEST_RUN

RNG = np.random.default_rng(0)
CODES = [precision for precision in Precision if precision.is_integer]


def arrays_of(block):
    return (block.U, block.V) if isinstance(block, LowRank) else (block,)


def as_stored(matrix, part):
    """What becomes of a matrix ``(m, n)`` of a leaf."""
    if not part.stored.is_integer:
        return from_words(to_words(matrix, part.stored), part.stored, matrix.shape[1])
    return decode(encode(matrix, part.stored, min(part.group or LONGEST_RUN, LONGEST_RUN)))


def expected_arrays(part):
    """The arrays of a leaf as its packed form gives them back; of codes, the columns of U have norm 1 first."""
    if not isinstance(part.block, LowRank):
        return (as_stored(part.block, part),)
    U, V = part.block.U, part.block.V
    if part.stored.is_integer:
        norms = np.linalg.norm(U.astype(float), axis=0).astype(U.dtype)
        norms[norms == 0] = 1
        U, V = U / norms, V * norms
    return as_stored(U, part), as_stored(V.T, part).T


def check_round_trip(shape, leaves, *, quantized=False):
    packed = pack(shape, leaves, quantized=quantized)
    assert (packed.shape, packed.quantized) == (shape, quantized)
    for number, given_leaf in enumerate(leaves):
        before, after = expected_arrays(given_leaf), arrays_of(packed.block(number))
        assert len(before) == len(after)
        assert all(equal_bits(a, b) for a, b in zip(before, after, strict=True))
    return packed


@given(partitions())
def test_round_trip(drawn):
    shape, leaves = drawn
    packed = check_round_trip(shape, leaves)
    # Each coefficient is there once, and nothing else is.
    coefficients = np.concatenate([array.ravel() for part in leaves for array in arrays_of(part.block)])
    assert packed.data.dtype == (np.float64 if coefficients.dtype == np.float64 else np.uint32)
    np.testing.assert_array_equal(np.sort(packed.data.view(coefficients.dtype)), np.sort(coefficients))


@settings(deadline=None, max_examples=50)
@given(stored_partitions(100), st.booleans())
def test_round_trip_of_all_precisions_together(drawn, quantized):
    shape, leaves = drawn
    packed = check_round_trip(shape, leaves, quantized=quantized)
    for number, part in enumerate(leaves):
        expected = (part.rows.start, part.rows.stop, part.columns.start, part.columns.stop, part.rank)
        assert packed.leaves[number].tolist() == [*expected, part.stored, part.group]


@pytest.mark.parametrize("rank", [None, 0, 1, 64, 65, 200])
@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (64, 64), (129, 63)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip_of_one_leaf(rank, shape, dtype):
    packed = check_round_trip(shape, [leaf((0, shape[0]), (0, shape[1]), rank, RNG, dtype)])
    assert packed.dtype == dtype


@pytest.mark.parametrize("precision", list(Precision)[1:])
@pytest.mark.parametrize("rank", [None, 0, 1, 33])
@pytest.mark.parametrize("shape", [(1, 1), (3, 31), (33, 1), (65, 101)])
@pytest.mark.parametrize("group", [0, 1, 13, 1000])
def test_round_trip_of_one_leaf_of_each_precision(precision, rank, shape, group):
    part = leaf((0, shape[0]), (0, shape[1]), rank, RNG)
    packed = check_round_trip(shape, stored([part], [precision], [group]))
    assert (packed.dtype, packed.data.dtype) == (np.float32, np.uint32)


@pytest.mark.parametrize("precision", CODES)
def test_round_trip_of_a_row_longer_than_a_run(precision):
    n = LONGEST_RUN + 5
    check_round_trip((2, n), stored([leaf((0, 2), (0, n), None, RNG, np.float32)], [precision]))


@pytest.mark.parametrize("precision", CODES)
def test_quantized_activations_change_no_block(precision):
    leaves = stored(random_leaves((80, 70)), [precision], [0, 13])
    exact, quantized = pack((80, 70), leaves), pack((80, 70), leaves, quantized=True)
    assert exact.dense_words <= quantized.dense_words
    for number in range(len(leaves)):
        pairs = zip(arrays_of(exact.block(number)), arrays_of(quantized.block(number)), strict=True)
        assert all(equal_bits(a, b) for a, b in pairs)


@pytest.mark.parametrize("precision", CODES)
def test_zeros_of_codes(precision):
    leaves = [PackedLeaf(slice(0, 4), slice(0, 5), np.zeros((4, 5)), precision)]
    leaves.append(PackedLeaf(slice(0, 4), slice(5, 9), LowRank(np.zeros((4, 2)), np.zeros((4, 2))), precision))
    packed = pack((4, 9), leaves)
    for number in (0, 1):
        assert all((array == 0).all() for array in arrays_of(packed.block(number)))


def test_round_trip_of_clusters_that_do_not_nest():
    rows = [leaf((a, b), (c, d), k, RNG) for a, b, c, d, k in ((0, 70, 0, 5, 2), (70, 90, 0, 5, None))]
    check_round_trip((90, 9), [*rows, leaf((0, 30), (5, 9), None, RNG), leaf((30, 90), (5, 9), 3, RNG)])


@pytest.mark.parametrize("order", ["C", "F"])
def test_blocks_of_any_layout(order):
    block = np.array(random_matrix(70, 30), order=order)[::-1, ::2]
    factors = LowRank(np.array(random_matrix(70, 3), order=order), np.array(random_matrix(20, 3), order=order))
    check_round_trip(
        (70, 35),
        [
            PackedLeaf(slice(0, 70), slice(0, 15), np.ascontiguousarray(block) if order == "C" else block),
            PackedLeaf(slice(0, 70), slice(15, 35), factors),
        ],
    )


@settings(deadline=None, max_examples=50)
@given(stored_partitions(60), st.booleans(), st.booleans())
def test_bytes_of_what_is_beside_the_coefficients(drawn, with_rows, with_columns):
    shape, leaves = drawn
    rows = permutation(shape[0]) if with_rows else None
    columns = permutation(shape[1]) if with_columns else None
    packed = pack(shape, leaves, rows, columns, quantized=True)
    schedule = packed.schedule
    kept = [p for p in (rows, columns) if p is not None and not np.array_equal(p, np.arange(len(p)))]
    arrays = [*schedule.far.tables, *schedule.near.tables, schedule.segments, packed.leaves, *kept]
    assert packed.index_nbytes == sum(array.nbytes for array in arrays)


@given(partitions(), st.booleans(), st.booleans())
def test_bytes(drawn, with_rows, with_columns):
    shape, leaves = drawn
    rows = permutation(shape[0]) if with_rows else None
    columns = permutation(shape[1]) if with_columns else None
    packed = pack(shape, leaves, rows, columns)
    assert packed.data.nbytes == sum(array.nbytes for part in leaves for array in arrays_of(part.block))
    tables = [*packed.schedule.far.tables, *packed.schedule.near.tables, packed.schedule.segments, packed.leaves]
    kept = [p for p in (rows, columns) if p is not None and not np.array_equal(p, np.arange(len(p)))]
    assert packed.index_nbytes == sum(array.nbytes for array in [*tables, *kept])


def test_permutations_that_change_nothing_are_dropped():
    backwards = np.arange(3, dtype=np.int32)[::-1].copy()
    packed = pack((4, 3), [leaf((0, 4), (0, 3), None, RNG)], np.arange(4, dtype=np.int32), backwards)
    assert packed.row_permutation is None
    np.testing.assert_array_equal(packed.column_permutation, backwards)


@pytest.mark.parametrize("precision", Precision)
def test_blocks_are_copies(precision):
    part = replace(leaf((0, 4), (0, 3), None, RNG), precision=precision)
    packed = pack((4, 3), [part])
    before = packed.data.copy()
    part.block[:] = 0
    packed.block(0)[:] = 0
    np.testing.assert_array_equal(packed.data, before)


@pytest.mark.parametrize(
    ("leaves", "message"),
    [
        ([], "leaves: have the shape"),
        ([PackedLeaf(slice(0, 4), slice(0, 3), np.zeros((3, 4)))], r"leaf: has a block of shape \(3, 4\); give \(4, 3"),
        ([PackedLeaf(slice(0, 4), slice(0, 3), np.zeros(12))], "leaf: has a block of shape"),
        ([PackedLeaf(slice(0, 4), slice(0, 3), LowRank(np.zeros((3, 1)), np.zeros((4, 1))))], "leaf: has a block"),
        ([PackedLeaf(slice(0, 4), slice(0, 2), np.zeros((4, 2)))], "leaves: leave a gap"),
        ([PackedLeaf(slice(0, 4), slice(0, 3), np.zeros((4, 3), np.int64))], "precision: got 'int64'"),
        ([PackedLeaf(slice(0, 4), slice(0, 3), np.zeros((4, 3), np.float16))], "precision: got 'float16'"),
        (
            [PackedLeaf(slice(0, 4), slice(0, 3), np.full((4, 3), np.nan))],
            "leaf: has NaN or infinity in it, as float64",
        ),
        *(
            ([PackedLeaf(slice(0, 4), slice(0, 3), np.full((4, 3), value), precision)], "leaf: has NaN or infinity")
            for value in (np.nan, np.inf, -np.inf, 1e300)
            for precision in list(Precision)[1:]
        ),
        # Finite as float32, but not when rounded.
        ([PackedLeaf(slice(0, 4), slice(0, 3), np.full((4, 3), 3.4e38), Precision.BFLOAT16)], "data: have NaN"),
        (
            [PackedLeaf(slice(0, 4), slice(0, 3), LowRank(np.ones((4, 1)), np.full((3, 1), np.inf)), Precision.INT4)],
            "leaf: has NaN or infinity",
        ),
        ([PackedLeaf(slice(0, 4), slice(0, 3), np.zeros((4, 3)), Precision.INT8, -1)], "leaves: have a group of -1"),
        (
            [
                PackedLeaf(slice(0, 2), slice(0, 3), np.zeros((2, 3))),
                PackedLeaf(slice(2, 4), slice(0, 3), np.zeros((2, 3), np.float32)),
            ],
            "leaves: mix float64 with other precisions",
        ),
    ],
)
def test_leaves_that_cannot_be_packed(leaves, message):
    with pytest.raises(ArgumentError, match=message):
        pack((4, 3), leaves)


@pytest.mark.parametrize("shape", [(3, 5), (40, 30), (200, 170)])
def test_data_begin_on_a_cache_line(shape):
    for seed in range(4):
        packed = pack(shape, random_leaves(shape, seed=seed))
        assert packed.data.ctypes.data % 64 == 0
