"""What NumPy, SciPy and Python's own operators see in an H-matrix and in its transpose."""

import numpy as np
import pytest
import scipy.sparse.linalg
from hmatrices import close, m, make
from matrices import equal_bits, random_matrix

import hmatrix as hm
from hmatrix.errors import ArgumentError


@pytest.fixture(params=["matrix", "transpose"])
def sided(request):
    """An operator, and its array."""
    H, A = make()
    return (H, A) if request.param == "matrix" else (H.T, A.T)


def test_as_an_array_it_is_the_dense_matrix(sided):
    H, _ = sided
    dense = np.asarray(H)
    assert equal_bits(dense, H.to_dense())
    assert (dense.shape, dense.ndim) == (H.shape, H.ndim)
    for dtype in (np.float32, np.float64):
        assert equal_bits(np.asarray(H, dtype), H.to_dense().astype(dtype))
    assert equal_bits(np.array(H), dense)
    # As NumPy 1.26 calls it.
    assert equal_bits(H.__array__(), dense)
    assert equal_bits(H.__array__(np.float32), dense.astype(np.float32))


def test_as_an_array_it_is_a_copy(sided):
    H, _ = sided
    np.asarray(H)[:] = 0
    assert H.to_dense().any()
    with pytest.raises(ArgumentError, match="copy: is False"):
        H.__array__(copy=False)


@pytest.mark.parametrize("batch", [None, 0, 1, 2, 9, 130])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_products_from_the_left(sided, batch, dtype):
    H, A = sided
    size = A.shape[0]
    x = (10 * (random_matrix(1, size)[0] if batch is None else random_matrix(batch, size))).astype(dtype)
    for left in (x, x.tolist(), np.asfortranarray(x)):
        if batch == 0 and isinstance(left, list):
            continue
        y = left @ H
        assert type(y) is np.ndarray
        assert y.shape == (x @ A).shape
        close(y, x @ A, H.dtype) if y.size else None
    assert (x @ H).dtype == (x @ np.asarray(H)).dtype


@pytest.mark.parametrize("x", [3, np.float64(3), np.ones(()), np.ones(5), np.ones((3, 5)), np.ones((2, 2, 90)), "text"])
def test_what_cannot_be_multiplied_from_the_left(x):
    H, _ = make()
    with pytest.raises(ArgumentError, match=r"x: .*; give "):
        x @ H


def test_the_shape_of_what_is_given_is_told_from_the_left_too():
    message = r"x: has the shape \(5,\); give \(90,\) or \(batch, 90\) for a matrix of shape \(90, 70\)"
    with pytest.raises(ArgumentError, match=message):
        np.ones(5) @ make()[0]


def test_complex_numbers_from_the_left():
    with pytest.raises(ArgumentError, match="complex128"):
        np.ones(m, complex) @ make()[0]


def test_scipy_takes_it_for_a_linear_operator(sided):
    H, A = sided
    operator = scipy.sparse.linalg.aslinearoperator(H)
    assert (operator.shape, operator.dtype) == (H.shape, H.dtype)
    (rows, columns), X = A.shape, random_matrix(A.shape[1], 5)
    Y = random_matrix(rows, 5)
    close(operator.matvec(X[:, 0]), A @ X[:, 0], H.dtype)
    close(operator.matmat(X[:, :1]), A @ X[:, :1], H.dtype)
    close(operator.matmat(X), A @ X, H.dtype)
    close(operator.rmatvec(Y[:, 0]), A.T @ Y[:, 0], H.dtype)
    close(operator.rmatmat(Y), A.T @ Y, H.dtype)
    close(operator @ X, A @ X, H.dtype)
    close(operator.H @ Y, A.T @ Y, H.dtype)
    close(operator.T @ Y, A.T @ Y, H.dtype)
    close(H.matmat(X), A @ X, H.dtype)
    integers = np.arange(columns)
    close(operator.matvec(integers), A @ integers, H.dtype)
    with pytest.raises(ValueError, match="dimension mismatch"):
        operator.matvec(np.ones(columns + 1))


@pytest.mark.parametrize("name", ["matvec", "rmatvec", "matmat", "rmatmat"])
def test_products_by_name_refuse_other_shapes(sided, name):
    H, _ = sided
    for x in (np.ones(5), np.ones((5, 2)), 3):
        with pytest.raises(ArgumentError, match=r"x: has the shape .*; give "):
            getattr(H, name)(x)


def test_scipy_finds_singular_values():
    H, A = make()
    found = scipy.sparse.linalg.svds(H, k=3, return_singular_vectors=False, random_state=0)
    np.testing.assert_allclose(np.sort(found)[::-1], np.linalg.svd(A, compute_uv=False)[:3], rtol=1e-9)


def test_the_transpose_has_an_h_matrix_of_its_own():
    for dtype in (np.float32, np.float64):
        H, _ = make(dtype)
        own = H.T.to_hmatrix()
        assert isinstance(own, hm.HMatrix)
        assert own.shape == H.T.shape
        close(own.to_dense(), H.to_dense().T, dtype)
        x = random_matrix(m, 1)[:, 0]
        close(own @ x, H.T @ x, dtype)
        pairs = list(zip(own.leaves(), H.leaves(), strict=True))
        for leaf, given in pairs:
            assert (leaf.rows, leaf.columns, leaf.rank) == (given.columns, given.rows, given.rank)
            if leaf.rank is None:
                assert equal_bits(leaf.block, given.block.T)
            else:
                assert equal_bits(leaf.block.U, given.block.V)
                assert equal_bits(leaf.block.V, given.block.U)
        # Where every number is the same, so is the transpose of the transpose.
        assert equal_bits(own.T.to_hmatrix().pack().data, H.pack().data)


def test_the_transpose_of_bfloat16_is_exact():
    H = make(np.float32)[0].astype("bfloat16")
    own = H.T.to_hmatrix()
    assert {leaf.precision for leaf in own.leaves()} == {hm.Precision.BFLOAT16}
    close(own.to_dense(), H.to_dense().T, np.float32)
    assert equal_bits(own.T.to_hmatrix().pack().data, H.pack().data)


@pytest.mark.parametrize("precision", ["int8", "trellis4"])
def test_the_transpose_of_codes_is_refused_in_words(precision, tmp_path):
    H = hm.quantize(random_matrix(40, 30, np.float32), precision)
    with pytest.raises(ArgumentError, match=rf"matrix: is the transpose of {precision}.*astype\('float32'\)\.T"):
        H.T.to_hmatrix()
    with pytest.raises(ArgumentError, match="matrix: is the transpose"):
        hm.save(H.T, tmp_path / "file.safetensors")
    assert list(tmp_path.iterdir()) == []
    # What the message says mends it.
    mended = H.astype("float32").T.to_hmatrix()
    assert equal_bits(mended.to_dense(), np.ascontiguousarray(H.to_dense().T))


def test_a_transpose_is_saved(tmp_path):
    H, _ = make()
    hm.save(H.T, tmp_path / "file.safetensors")
    found = hm.load(tmp_path / "file.safetensors")
    assert equal_bits(found.to_dense(), H.T.to_hmatrix().to_dense())


@pytest.mark.parametrize("other", [np.ones((3, 4)), "H", None])
def test_what_is_no_h_matrix_is_not_saved(other, tmp_path):
    with pytest.raises(ArgumentError, match=r"matrix: is a .*; give an H-matrix"):
        hm.save(other, tmp_path / "file.safetensors")
    with pytest.raises(ArgumentError, match=r"matrix: is a .*; give an H-matrix"):
        hm.norm(other)


@pytest.mark.parametrize("kind", hm.Norm)
def test_the_norm_of_a_transpose(kind):
    H, _ = make()
    assert hm.norm(H.T, kind) == pytest.approx(hm.norm(H, kind), rel=0.05)
