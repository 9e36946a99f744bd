import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matrices import equal_bits, leaf, partitions, permutation, random_leaves, random_matrix

from hmatrix.errors import ArgumentError
from hmatrix.lowrank import LowRank
from hmatrix.packed import PackedBlocks, PackedLeaf, pack

RNG = np.random.default_rng(0)


def arrays_of(block):
    return (block.U, block.V) if isinstance(block, LowRank) else (block,)


def unpacked(packed, number):
    return packed.dense(number) if packed.leaves[number, 4] == -1 else packed.low_rank(number)


def check_round_trip(shape, leaves):
    packed = pack(shape, leaves)
    assert packed.shape == shape
    for number, given_leaf in enumerate(leaves):
        before, after = arrays_of(given_leaf.block), arrays_of(unpacked(packed, number))
        assert len(before) == len(after)
        assert all(equal_bits(a, b) for a, b in zip(before, after, strict=True))
    return packed


@given(partitions())
def test_round_trip(drawn):
    shape, leaves = drawn
    packed = check_round_trip(shape, leaves)
    # Each coefficient is there once, and nothing else is.
    coefficients = np.concatenate([array.ravel() for part in leaves for array in arrays_of(part.block)])
    np.testing.assert_array_equal(np.sort(packed.data), np.sort(coefficients))


@pytest.mark.parametrize("rank", [None, 0, 1, 64, 65, 200])
@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (64, 64), (129, 63)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip_of_one_leaf(rank, shape, dtype):
    packed = check_round_trip(shape, [leaf((0, shape[0]), (0, shape[1]), rank, RNG, dtype)])
    assert packed.dtype == dtype


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


@given(partitions(), st.booleans(), st.booleans())
def test_bytes(drawn, with_rows, with_columns):
    shape, leaves = drawn
    rows = permutation(shape[0]) if with_rows else None
    columns = permutation(shape[1]) if with_columns else None
    packed = pack(shape, leaves, rows, columns)
    assert packed.data.nbytes == sum(array.nbytes for part in leaves for array in arrays_of(part.block))
    tables = [*packed.schedule.far.tables, *packed.schedule.near.tables, packed.leaves]
    kept = [p for p in (rows, columns) if p is not None and not np.array_equal(p, np.arange(len(p)))]
    assert packed.index_nbytes == sum(array.nbytes for array in [*tables, *kept])


def test_permutations_that_change_nothing_are_dropped():
    backwards = np.arange(3, dtype=np.int32)[::-1].copy()
    packed = pack((4, 3), [leaf((0, 4), (0, 3), None, RNG)], np.arange(4, dtype=np.int32), backwards)
    assert packed.row_permutation is None
    np.testing.assert_array_equal(packed.column_permutation, backwards)


def test_blocks_are_copies():
    part = leaf((0, 4), (0, 3), None, RNG)
    packed = pack((4, 3), [part])
    before = packed.data.copy()
    part.block[:] = 0
    packed.dense(0)[:] = 0
    np.testing.assert_array_equal(packed.data, before)


@pytest.mark.parametrize(
    ("leaves", "message"),
    [
        ([], "leaves: have the shape"),
        ([PackedLeaf(slice(0, 4), slice(0, 3), np.zeros((3, 4)))], r"leaf: has a block of shape \(3, 4\); give \(4, 3"),
        ([PackedLeaf(slice(0, 4), slice(0, 3), np.zeros(12))], "leaf: has a block of shape"),
        ([PackedLeaf(slice(0, 4), slice(0, 3), LowRank(np.zeros((3, 1)), np.zeros((4, 1))))], "leaf: has a block"),
        ([PackedLeaf(slice(0, 4), slice(0, 2), np.zeros((4, 2)))], "leaves: overlap or leave a gap"),
        ([PackedLeaf(slice(0, 4), slice(0, 3), np.zeros((4, 3), np.int64))], "data: have the type int64"),
        ([PackedLeaf(slice(0, 4), slice(0, 3), np.zeros((4, 3), np.float16))], "data: have the type float16"),
        ([PackedLeaf(slice(0, 4), slice(0, 3), np.full((4, 3), np.nan))], "data: have NaN"),
        ([PackedLeaf(slice(0, 4), slice(0, 3), LowRank(np.zeros((4, 1)), np.zeros((3, 1), "f4")))], "float32.*float64"),
        (
            [
                PackedLeaf(slice(0, 2), slice(0, 3), np.zeros((2, 3))),
                PackedLeaf(slice(2, 4), slice(0, 3), np.zeros((2, 3), np.float32)),
            ],
            r"leaves: have the types \['float32', 'float64'\]",
        ),
    ],
)
def test_leaves_that_cannot_be_packed(leaves, message):
    with pytest.raises(ArgumentError, match=message):
        pack((4, 3), leaves)


def parts(**changes):
    """The arguments of a packed form, with changes."""
    shape = (80, 70)
    packed = pack(shape, random_leaves(shape), permutation(shape[0]), permutation(shape[1]))
    arguments = {
        name: getattr(packed, name) for name in ("shape", "leaves", "data", "row_permutation", "column_permutation")
    }
    return arguments | {
        name: change(arguments[name]) if callable(change) else change for name, change in changes.items()
    }


def with_entry(index, value):
    def change(array):
        array = array.copy()
        array[index] = value
        return array

    return change


def test_the_same_parts_again():
    packed = PackedBlocks(**parts())
    assert packed.schedule == pack((80, 70), random_leaves((80, 70))).schedule
    assert PackedBlocks(**parts(row_permutation=None)).row_permutation is None


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("shape", (0, 70), "shape"),
        ("shape", (80,), "shape: has 1 dimensions"),
        ("shape", (80.0, 70), "shape"),
        ("shape", (80, 2**31), r"shape: got .*2\^31"),
        ("shape", (81, 70), "leaves: cover rows 0 to 80"),
        ("shape", (80, 71), "leaves: overlap or leave a gap"),
        ("shape", (79, 70), "leaves: leaf . has a bad row range"),
        ("leaves", lambda a: a.astype(np.int64), "leaves: have the type int64"),
        ("leaves", lambda a: a.astype(np.uint32), "leaves: have the type uint32"),
        ("leaves", lambda a: a[:, :4], "leaves: have the shape"),
        ("leaves", lambda a: a[1:], "data: have the shape|leaves: overlap or leave a gap"),
        ("leaves", lambda a: np.concatenate([a, a[:1]]), "data: have the shape|leaves: overlap or leave a gap"),
        ("leaves", with_entry((0, 4), 3), "data: have the shape"),
        ("leaves", np.asfortranarray, "leaves: .*contiguous"),
        ("data", lambda a: a.astype(np.float16), "data: have the type float16"),
        ("data", lambda a: a.astype(complex), "data: have the type complex128"),
        ("data", lambda a: a.astype(np.int32), "data: have the type int32"),
        ("data", lambda a: a[:-1], "data: have the shape"),
        ("data", lambda a: np.append(a, 0.0), "data: have the shape"),
        ("data", lambda a: a[None], "data: have the shape"),
        ("data", lambda a: np.repeat(a, 2)[::2], "data: .*contiguous"),
        ("data", with_entry(7, np.nan), "data: have NaN or infinity"),
        ("data", with_entry(-1, -np.inf), "data: have NaN or infinity"),
        ("row_permutation", lambda p: p.astype(np.int64), r"row_permutation: is int64 \(80,\)"),
        ("row_permutation", lambda p: p[:-1], r"row_permutation: is int32 \(79,\); give int32 \(80,\)"),
        ("column_permutation", lambda p: p[:, None], "column_permutation: is int32"),
        ("column_permutation", with_entry(0, 70), "column_permutation: is no permutation; give each of 0 to 69 once"),
        ("column_permutation", with_entry(0, -1), "column_permutation: is no permutation"),
        ("row_permutation", lambda p: p.clip(max=78), "row_permutation: is no permutation"),
        ("row_permutation", lambda p: p[::-1], "row_permutation: .*contiguous"),
    ],
)
def test_parts_that_do_not_fit(name, change, message):
    with pytest.raises(ArgumentError, match=message):
        PackedBlocks(**parts(**{name: change}))
