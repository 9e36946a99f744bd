import numpy as np
import pytest
import scipy.linalg

from hmatrix.allocation.search.spectra import energies, leading_directions


def decaying(m, n, rate, seed=0):
    """A float32 matrix with singular values ``exp(-rate i)``."""
    rng = np.random.default_rng(seed)
    k = min(m, n)
    U, V = (np.linalg.qr(rng.standard_normal((size, k)))[0] for size in (m, n))
    return ((U * np.exp(-rate * np.arange(k))) @ V.T).astype(np.float32)


def triangle(n, seed=1):
    rng = np.random.default_rng(seed)
    return (np.triu(rng.standard_normal((n, n))) / n + np.eye(n)).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (3, 7), (40, 40), (300, 50), (50, 600)])
@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_energies_are_squares_of_singular_values(shape, rate):
    block = decaying(*shape, rate)
    expected = np.linalg.svd(block.astype(np.float64), compute_uv=False)
    # Sums of max(shape) products, eigenvalues of min(shape) rows, and singular values, whose squares double the error.
    rounding = (max(shape) + 3 * min(shape)) * np.finfo(np.float64).eps * expected[0] ** 2
    np.testing.assert_allclose(energies(block), expected**2, rtol=0, atol=rounding)


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (300, 30), (30, 300), (25, 25)])
@pytest.mark.parametrize("rank", [1, 5, 20])
@pytest.mark.parametrize("rooted", [False, True])
def test_directions_leave_no_more_than_the_truncated_svd(shape, rank, rooted):
    block = decaying(*shape, 0.7)
    root = triangle(shape[1]) if rooted else None
    product = block.astype(np.float64) @ (np.eye(shape[1]) if root is None else root)
    directions = leading_directions(block, root, rank)
    assert directions.dtype == np.float32
    assert directions.shape == (shape[1], rank)
    singular = scipy.linalg.svdvals(product)
    # Eigenvectors of a Gram matrix mix by its rounding over the distance of their eigenvalues, the squares: of two
    # directions the inner product is the rounding over the product of their values. Then entries are float32.
    values, held = singular[:rank] / singular[0], directions.astype(np.float64)
    mixed = np.sqrt(min(shape)) * np.finfo(np.float64).eps / np.multiply.outer(values, values)
    assert (abs(held.T @ held - np.eye(rank)) <= mixed + np.finfo(np.float32).eps).all()
    left = np.linalg.norm(product - product @ held @ held.T)
    # Rounding of the directions on either side of the projection, and of the product that they are those of.
    rounding = (1 + np.sqrt(shape[1]) * rooted) * np.finfo(np.float32).eps * np.linalg.norm(singular)
    assert left <= np.linalg.norm(singular[rank:]) + rounding


@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
def test_only_nonzero_values_have_directions(shape):
    rng = np.random.default_rng(0)
    low = (rng.standard_normal((shape[0], 3)) @ rng.standard_normal((3, shape[1]))).astype(np.float64)
    assert leading_directions(low, None, 10).shape == (shape[1], 3)
    assert leading_directions(np.zeros(shape, np.float32), None, 10).shape == (shape[1], 0)
    assert leading_directions(low, None, 2).shape == (shape[1], 2)
