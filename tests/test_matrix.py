"""What an H-matrix does as an operator, whatever is in it."""

import copy
import pickle

import numpy as np
import pytest
from hmatrices import PERMUTATIONS, SHAPE, TYPES, close, m, make, n
from matrices import equal_bits, random_leaves, random_matrix

import hmatrix as hm
from hmatrix.errors import ArgumentError
from hmatrix.lowrank.factors import LowRank
from hmatrix.packed.packing import PackedLeaf

pytestmark = pytest.mark.usefixtures("any_kernel")


@pytest.fixture(params=["matrix", "transpose"])
def sided(request, both):
    """An operator, its array, and its array's transpose."""
    H, A = both
    return (H, A) if request.param == "matrix" else (H.T, A.T)


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
    message = r"x: has the shape \(5,\); give \(70,\) or \(70, batch\) for a matrix of shape \(90, 70\)"
    with pytest.raises(ArgumentError, match=message):
        H @ np.ones(5)
    with pytest.raises(ArgumentError, match=r"x: has the shape \(5, 3\).*give \(70,\) or \(batch, 70\)"):
        H.apply(np.ones((5, 3)))


@pytest.mark.parametrize(
    "use",
    [
        lambda H: np.matmul(np.ones((3, m)), H),
        lambda H: np.ones(SHAPE) * H,
        lambda H: np.ones(SHAPE) + H,
        lambda H: np.float64(2.0) * H,
        lambda H: 2 * H,
        lambda H: H + H,
    ],
)
def test_what_an_h_matrix_does_not_do(use):
    with pytest.raises(TypeError, match=r"unsupported operand|does not support ufuncs|not implemented"):
        use(make()[0])


def test_an_h_matrix_times_another_is_refused():
    H, _ = make()
    for multiply in (lambda: H @ H.T, lambda: H.T @ H, lambda: H.apply(H)):
        with pytest.raises(ArgumentError, match=r"x: is (a H|an H|a T).*to_dense"):
            multiply()


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
    assert "zero" not in repr(H)
    assert "_packed" not in repr(next(H.leaves()))
    small = H.astype("float32").astype("trellis4")
    assert "stored in: trellis4" in repr(small)
    zero = LowRank(np.zeros((8, 0), np.float32), np.zeros((9, 0), np.float32))
    nothing = hm.HMatrix.from_leaves((8, 9), [PackedLeaf(slice(0, 8), slice(0, 9), zero)])
    assert "leaves: 1 zero, stored in: nothing" in repr(nothing)
    assert repr(H.T) == f"{H!r}.T"


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
def test_smallest_shapes(shape):
    A = random_matrix(*shape)
    H = hm.build(A, truncation=hm.Truncation(max_rank=1))
    np.testing.assert_allclose(H @ np.ones(shape[1]), A.sum(axis=1))
    np.testing.assert_allclose(H.T @ np.ones(shape[0]), A.sum(axis=0))
