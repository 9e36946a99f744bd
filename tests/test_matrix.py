import copy
import pickle

import numpy as np
import pytest
from matrices import assembled, equal_bits, permutation, random_leaves, random_matrix, relative

import hmatrix as hm
from hmatrix import kernels
from hmatrix.errors import ArgumentError
from hmatrix.lowrank import LowRank
from hmatrix.packing import PackedLeaf

SHAPE = m, n = 90, 70
PERMUTATIONS = permutation(m, seed=1), permutation(n, seed=2)
TYPES = [np.float32, np.float64]


@pytest.fixture(autouse=True, params=[kernels.backend().available[0], kernels.REFERENCE])
def kernel(request, monkeypatch):
    monkeypatch.setattr(kernels, "_name", lambda: request.param)


def make(dtype=np.float64):
    """A random H-matrix and the same as an array in float64."""
    leaves = random_leaves(SHAPE, dtype=dtype, seed=5)
    return hm.HMatrix.from_leaves(SHAPE, leaves, *PERMUTATIONS), assembled(SHAPE, leaves, *PERMUTATIONS)


@pytest.fixture(params=TYPES, ids=["float32", "float64"])
def both(request):
    return make(request.param)


@pytest.fixture(params=["matrix", "transpose"])
def sided(request, both):
    """An operator, its array, and its array's transpose."""
    H, A = both
    return (H, A) if request.param == "matrix" else (H.T, A.T)


def close(actual, expected, dtype):
    np.testing.assert_allclose(actual, expected, atol=2000 * np.finfo(dtype).eps * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("batch", [None, 0, 1, 2, 9, 130])
def test_product(sided, batch):
    H, A = sided
    size = A.shape[1]
    x = random_matrix(size, 1)[:, 0] if batch is None else random_matrix(size, batch)
    y, before = H @ x, x.copy()
    assert y.shape == (A @ x).shape
    close(y, A @ x, H.dtype) if y.size else None
    assert equal_bits(x, before)


@pytest.mark.parametrize("batch", [None, 0, 1, 2, 9, 130])
def test_apply(sided, batch):
    H, A = sided
    size = A.shape[1]
    x = random_matrix(1, size)[0] if batch is None else random_matrix(batch, size)
    y = H.apply(x)
    assert y.shape == (x @ A.T).shape
    close(y, x @ A.T, H.dtype) if y.size else None
    assert batch is None or y.flags.c_contiguous


def test_adjoint(both):
    H, _ = both
    for seed in range(5):
        u, v = random_matrix(n, 1, seed=seed)[:, 0], random_matrix(1, m, seed=seed + 9)[0]
        scale = np.linalg.norm(u) * np.linalg.norm(v) * hm.norm(H)
        assert abs((H @ u) @ v - u @ (H.T @ v)) <= 100 * np.finfo(H.dtype).eps * scale


def test_transpose(both):
    H, A = both
    assert (H.T.shape, H.T.dtype, H.T.T) == ((n, m), H.dtype, H)
    np.testing.assert_array_equal(H.T.to_dense(), H.to_dense().T)
    close(H.T.to_dense(), A.T, H.dtype)


def test_to_dense(both):
    H, A = both
    assert (H.shape, H.ndim, H.to_dense().dtype) == (SHAPE, 2, H.dtype)
    close(H.to_dense(), A, H.dtype)


def test_to_dense_holds_dense_leaves_to_the_bit():
    A = random_matrix(50, 40)
    H = hm.build(A, splitter=hm.Cardinality(10), admissibility=hm.Strong(1e-3), truncation=hm.Truncation(max_rank=1))
    assert len(H.far_field) == 0
    assert len(H.near_field) > 1
    assert equal_bits(H.to_dense(), A)


def test_leaves(both):
    H, _ = both
    leaves = random_leaves(SHAPE, dtype=H.dtype, seed=5)
    for leaf, given in zip(H.leaves(), leaves, strict=True):
        assert (leaf.rows, leaf.columns) == (given.rows, given.columns)
        if isinstance(given.block, LowRank):
            assert leaf.rank == given.block.rank
            assert equal_bits(leaf.block.U, given.block.U)
            assert equal_bits(leaf.block.V, given.block.V)
        else:
            assert leaf.rank is None
            assert equal_bits(leaf.block, given.block)
    assert {leaf.rank for leaf in H.near_field} == {None}
    assert None not in {leaf.rank for leaf in H.far_field}
    assert len(H.near_field) + len(H.far_field) == len(leaves)


def test_storage(both):
    H, _ = both
    storage, packed = H.storage(), H.pack()
    assert storage.near_field == sum(leaf.block.nbytes for leaf in H.near_field)
    assert storage.far_field == sum(leaf.block.U.nbytes + leaf.block.V.nbytes for leaf in H.far_field)
    assert storage.near_field + storage.far_field == packed.data.nbytes
    assert storage.index == packed.index_nbytes
    assert storage.index > sum(p.nbytes for p in PERMUTATIONS)
    assert storage.uncompressed == m * n * H.dtype.itemsize
    assert storage.total == storage.near_field + storage.far_field + storage.index
    assert storage.ratio == storage.total / storage.uncompressed


def test_astype(both):
    H, A = both
    for dtype in TYPES:
        other = H.astype(dtype)
        assert other.dtype == (other @ np.ones(n, dtype)).dtype == dtype
        close(other.to_dense(), A, np.float32)
    assert H.astype(H.dtype) is H
    assert H.astype(np.float64).astype(np.float32).storage().total == H.astype(np.float32).storage().total


@pytest.mark.parametrize("dtype", [np.float16, np.int32, complex, object, "float128"])
def test_astype_of_another_type(dtype):
    with pytest.raises(
        ArgumentError, match=r"precision: got .*; give one of float64, float32, bfloat16, int8, int4, int2"
    ):
        make()[0].astype(dtype)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda H: pickle.loads(pickle.dumps(H))])
@pytest.mark.parametrize("used", [False, True])
def test_copies(both, duplicate, used):
    H, _ = both
    x = np.ones(n)
    expected = H @ x if used else None
    other = duplicate(H)
    assert equal_bits(other.to_dense(), H.to_dense())
    assert equal_bits(other @ x, H @ x if expected is None else expected)
    assert other.storage() == H.storage()


INPUTS = {
    "bool": lambda x: x > 0,
    "int8": lambda x: (10 * x).astype(np.int8),
    "uint8": lambda x: (10 * np.abs(x)).astype(np.uint8),
    "int16": lambda x: (10 * x).astype(np.int16),
    "int32": lambda x: (10 * x).astype(np.int32),
    "int64": lambda x: (10 * x).astype(np.int64),
    "float16": lambda x: x.astype(np.float16),
    "float32": lambda x: x.astype(np.float32),
    "float64": lambda x: x,
    "list": lambda x: x.tolist(),
    "steps": lambda x: np.repeat(x, 2, axis=0)[::2],
    "backwards": lambda x: x[::-1],
    "Fortran": np.asfortranarray,
    "read-only": lambda x: np.broadcast_to(x, x.shape),
}


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("batch", [None, 3])
def test_inputs(sided, kind, batch):
    H, A = sided
    x = INPUTS[kind](random_matrix(A.shape[1], 1)[:, 0] if batch is None else random_matrix(A.shape[1], batch))
    expected = A @ np.asarray(x)
    for y in (H @ x, H.apply(np.asarray(x).T).T):
        close(y, expected, H.dtype)
        # As NumPy's product of an array of the matrix's type.
        assert y.dtype == np.result_type(H.dtype, np.asarray(x).dtype)


WRONG = {
    "too short": lambda size: np.ones(size - 1),
    "too long": lambda size: np.ones(size + 1),
    "a row": lambda size: np.ones((1, size)),
    "no column": lambda size: np.ones((size, 3))[:0],
    "three dimensions": lambda size: np.ones((size, 2, 2)),
    "a number": float,
    "complex": lambda size: np.ones(size, complex),
    "complex batch": lambda size: np.ones((size, 2), complex),
    "text": lambda size: np.full(size, "a"),
    "objects": lambda size: np.full(size, None),
    "longdouble": lambda size: np.ones(size, np.longdouble),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_inputs(sided, kind):
    H, A = sided
    with pytest.raises(ArgumentError, match=r"^x: has the (shape|type)"):
        H @ WRONG[kind](A.shape[1])


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_inputs_of_apply(sided, kind):
    H, A = sided
    with pytest.raises(ArgumentError, match=r"^x: has the (shape|type)"):
        H.apply(np.asarray(WRONG[kind](A.shape[1])).T)


def test_messages_name_the_shape_that_came():
    H, _ = make()
    with pytest.raises(ArgumentError, match=r"x: has the shape \(5, 3\).*\(90, 70\)"):
        H @ np.ones((5, 3))
    with pytest.raises(ArgumentError, match=r"x: has the shape \(5,\); give \(70,\) for a matrix of shape \(90, 70\)"):
        H @ np.ones(5)
    with pytest.raises(ArgumentError, match=r"x: has the shape \(5, 3\).*give \(batch, 70\)"):
        H.apply(np.ones((5, 3)))


@pytest.mark.parametrize(
    "use",
    [
        lambda H: np.ones((3, m)) @ H,
        lambda H: np.ones(m) @ H,
        lambda H: np.ones((3, n)) @ H.T,
        lambda H: np.matmul(np.ones((3, m)), H),
        lambda H: np.ones(SHAPE) * H,
        lambda H: np.ones(SHAPE) + H,
        lambda H: np.float64(2.0) * H,
        lambda H: [[1.0] * m] @ H,
        lambda H: 2 * H,
        lambda H: H + H,
    ],
)
def test_what_an_h_matrix_does_not_do(use):
    with pytest.raises(TypeError, match=r"unsupported operand|does not support ufuncs|not implemented"):
        use(make()[0])


def test_an_h_matrix_times_another_is_refused():
    H, _ = make()
    with pytest.raises(ArgumentError, match="x"):
        H @ H.T


def test_products_of_a_matrix_that_was_built_on_other_memory():
    A = random_matrix(m, n)
    H = hm.build(A, truncation=hm.Truncation(max_rank=2))
    before = H.to_dense()
    A[:] = 0
    assert equal_bits(H.to_dense(), before)
    np.testing.assert_allclose(H @ np.ones(n), before.sum(axis=1), atol=1e-12)


def test_results_are_new_each_time():
    H, _ = make()
    first = H @ np.ones(n)
    kept = first.copy()
    H @ np.zeros(n)
    assert equal_bits(first, kept)


def test_repr():
    H = hm.HMatrix.from_leaves(
        (8, 9),
        [
            PackedLeaf(slice(0, 8), slice(0, 4), np.zeros((8, 4))),
            PackedLeaf(slice(0, 8), slice(4, 9), LowRank(np.zeros((8, 2)), np.zeros((5, 2)))),
        ],
    )
    for part in ("shape=(8, 9)", "float64", "1 dense", "1 of low rank (at most 2)", f"{H.storage().ratio:.1%}"):
        assert part in repr(H)
    assert repr(H.T) == f"{H!r}.T"


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
def test_smallest_shapes(shape):
    A = random_matrix(*shape)
    H = hm.build(A, truncation=hm.Truncation(max_rank=1))
    np.testing.assert_allclose(H @ np.ones(shape[1]), A.sum(axis=1))
    np.testing.assert_allclose(H.T @ np.ones(shape[0]), A.sum(axis=0))


# Precisions.

PRECISIONS = [precision.name.lower() for precision in hm.Precision]
STEPS = {
    "float64": 2.0**-52,
    "float32": 2.0**-23,
    "bfloat16": 2.0**-8,
    "int8": 0.015,
    "int4": 0.2,
    "int2": 0.6,
    "int1": 1.0,
}
"""Relative Frobenius errors of normally distributed coefficients, at most."""


def parts_of(block):
    return (block.U, block.V) if isinstance(block, LowRank) else (block,)


def dense_of(block):
    """The block in float64."""
    factors = [part.astype(float) for part in parts_of(block)]
    return factors[0] @ factors[1].T if len(factors) == 2 else factors[0]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", [str.lower, str.upper, hm.Precision.of])
def test_astype_of_every_precision(both, precision, kind):
    H, _ = both
    other = H.astype(kind(precision))
    assert other.dtype == (np.float64 if precision == "float64" else np.float32)
    assert {leaf.precision for leaf in other.leaves()} == {hm.Precision.of(precision)}
    assert other.shape == H.shape
    for ours, theirs in zip(H.leaves(), other.leaves(), strict=True):
        assert (ours.rows, ours.columns, ours.rank) == (theirs.rows, theirs.columns, theirs.rank)
        if ours.rank == 0:
            continue
        expected, actual = (dense_of(leaf.block) for leaf in (ours, theirs))
        assert relative(expected, actual) <= 1.5 * STEPS[precision] * len(parts_of(ours.block)) ** 0.5
    x = random_matrix(n, 3)
    close(other @ x, other.to_dense().astype(float) @ x, np.float32)
    close(other.T @ (other @ x), other.to_dense().T.astype(float) @ (other @ x), np.float32)
    assert other.astype(precision) is other


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("wide", ["float32", "float64"])
def test_astype_and_back(precision, wide):
    """A wider type holds what a narrow one stands for; going back loses nothing that it had not lost."""
    narrow = make(np.float32)[0].astype(precision)
    back = narrow.astype(wide)
    assert back.astype(wide) is back
    for ours, theirs in zip(narrow.leaves(), back.leaves(), strict=True):
        for a, b in zip(parts_of(ours.block), parts_of(theirs.block), strict=True):
            np.testing.assert_array_equal(a, b)
    if precision in ("float32", "bfloat16"):
        assert equal_bits(back.astype(precision).pack().data, narrow.pack().data)


@pytest.mark.parametrize("group", [1, 3, 8, 16, 64, 2**14, 2**40])
@pytest.mark.parametrize("precision", ["int8", "int4", "int2", "int1"])
def test_groups(precision, group):
    H, _ = make(np.float32)
    grouped, whole = H.astype(precision, group=group), H.astype(precision)
    x = random_matrix(n, 2)
    close(grouped @ x, grouped.to_dense().astype(float) @ x, np.float32)
    errors = [relative(H.to_dense(), other.to_dense()) for other in (grouped, whole)]
    assert errors[0] <= 1.1 * errors[1]
    assert grouped.storage().total >= whole.storage().total
    assert grouped.astype(precision, group=group) is grouped


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
def test_groups_mean_nothing_without_scales(precision):
    H, _ = make(np.float32)
    assert equal_bits(H.astype(precision, group=8).pack().leaves, H.astype(precision).pack().leaves)
    assert H.astype("float32", group=8) is H


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("batch", [None, 1, 5])
def test_int8_activations(precision, batch):
    H, _ = make(np.float32)
    exact = H.astype(precision, activations="exact")
    other = H.astype(precision, activations=hm.Activations.INT8)
    assert (exact.activations, other.activations) == (hm.Activations.EXACT, hm.Activations.INT8)
    assert equal_bits(exact.to_dense(), other.to_dense())
    x = random_matrix(n, 1)[:, 0] if batch is None else random_matrix(n, batch)
    error = relative(exact @ x, other @ x)
    assert error <= (0.03 if hm.Precision.of(precision).is_integer else 1e-5)
    # The transpose has exact activations.
    close(other.T @ (exact @ x), exact.T @ (exact @ x), np.float32)
    # What is not said is kept.
    assert other.astype("int4").activations is hm.Activations.INT8
    assert other.astype("int4", activations="exact").activations is hm.Activations.EXACT


@pytest.mark.parametrize("precision", ["int8", "int4", "int2", "int1"])
def test_inputs_that_are_not_finite_do_not_pass_unseen(precision):
    H = make(np.float32)[0].astype(precision, activations="int8")
    for value in (np.nan, np.inf):
        x = np.ones(n, np.float32)
        x[7] = value
        with np.errstate(invalid="ignore"):
            assert np.isnan(H @ x).any()


@pytest.mark.parametrize("activations", ["EXACT", "int4", 8, True, ["int8"], np.int8])
def test_bad_activations(activations):
    H, _ = make()
    for use in (
        lambda: H.astype("int8", activations=activations),
        lambda: hm.quantize(np.eye(3), "int8", activations=activations),
        lambda: hm.HMatrix.from_leaves(
            (1, 1), [PackedLeaf(slice(0, 1), slice(0, 1), np.eye(1))], activations=activations
        ),
    ):
        with pytest.raises(ArgumentError, match=r"^activations: got .*; give 'exact' or 'int8'"):
            use()


@pytest.mark.parametrize("group", [-1, 1.5, None, True, "8"])
@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_bad_groups(group, precision):
    for use in (
        lambda: make()[0].astype(precision, group=group),
        lambda: hm.quantize(np.eye(3), precision, group=group),
    ):
        with pytest.raises(ArgumentError, match=r"^group: got .*; give an integer of at least 0"):
            use()


@pytest.mark.parametrize("precision", ["int3", "", "half", "float", None, 7, object(), np.uint8, [], "int8 "])
def test_bad_precisions(precision):
    for use in (lambda: make()[0].astype(precision), lambda: hm.quantize(np.eye(3), precision)):
        with pytest.raises(ArgumentError, match=r"^precision: got .*; give one of float64, float32, bfloat16, int8"):
            use()


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_coefficients_too_large_for_a_precision(precision):
    H = hm.quantize(np.diag([1e300, 1.0]), "float64")
    with pytest.raises(ArgumentError, match=r"leaf: .*infinity.*; give finite numbers"):
        H.astype(precision)


def padded(columns, precision):
    return -(-columns // hm.Precision.of(precision).per_word)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_storage_by_part_of_every_precision(precision):
    """Words of rows that are filled up, and scales of 32 bits: one of each row of D, U and V^T."""
    H = make(np.float32)[0].astype(precision)
    kind = hm.Precision.of(precision)
    size, scales = (8 if precision == "float64" else 4), int(kind.is_integer)
    near = far = 0
    for leaf in H.leaves():
        rows, columns = leaf.rows.stop - leaf.rows.start, leaf.columns.stop - leaf.columns.start
        if leaf.rank is None:
            near += rows * (padded(columns, precision) + scales)
        elif leaf.rank:
            far += rows * (padded(leaf.rank, precision) + scales) + leaf.rank * (padded(columns, precision) + scales)
    storage, packed = H.storage(), H.pack()
    assert (storage.near_field, storage.far_field) == (size * near, size * far)
    assert packed.dense_words * packed.data.itemsize == storage.near_field
    assert storage.near_field + storage.far_field == packed.schedule.words * packed.data.itemsize
    assert storage.index == packed.index_nbytes
    assert storage.uncompressed == m * n * size
    assert storage.total == storage.near_field + storage.far_field + storage.index


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("activations", ["exact", "int8"])
def test_ratio_is_nearly_that_of_the_bits(precision, activations):
    ratio = hm.quantize(random_matrix(512, 1024), precision, activations=activations).storage().ratio
    expected = 1.0 if precision == "float64" else hm.Precision.of(precision).bits / 32
    assert expected <= ratio <= expected + 1 / 1024 + 0.002


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("activations", ["exact", "int8"])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda H: pickle.loads(pickle.dumps(H))])
def test_copies_of_every_precision(precision, activations, duplicate):
    H = make()[0].astype(precision, activations=activations, group=16)
    other, x = duplicate(H), random_matrix(n, 2)
    assert equal_bits(other @ x, H @ x)
    assert (other.storage(), other.activations) == (H.storage(), H.activations)


def test_leaves_of_mixed_precision():
    leaves = random_leaves(SHAPE, dtype=np.float32, seed=5)
    kinds = list(hm.Precision)[1:]
    mixed = [
        PackedLeaf(leaf.rows, leaf.columns, leaf.block, kinds[number % len(kinds)])
        for number, leaf in enumerate(leaves)
    ]
    x = random_matrix(n, 3)
    for activations in hm.Activations:
        H = hm.HMatrix.from_leaves(SHAPE, mixed, *PERMUTATIONS, activations=activations)
        assert [leaf.precision for leaf in H.leaves()] == [leaf.precision for leaf in mixed]
        assert relative(H.to_dense().astype(float) @ x, H @ x) <= 0.03
        assert H.astype("float32").dtype == H.dtype == np.float32
        np.testing.assert_array_equal(H.astype("float32").to_dense(), H.to_dense())
