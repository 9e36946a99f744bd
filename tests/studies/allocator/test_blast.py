import numpy as np
import pytest

from hmatrix.errors import ArgumentError
from studies.allocator.blast import Blast, fit_blast, largest_rank


def product(U, V, couplings):
    """The definition, block by block, in float64."""
    b = len(couplings)
    rows, columns = np.array_split(np.arange(len(U)), b), np.array_split(np.arange(len(V)), b)
    A = np.zeros((len(U), len(V)))
    for i in range(b):
        for j in range(b):
            A[np.ix_(rows[i], columns[j])] = U[rows[i]] @ np.diag(couplings[i, j]) @ V[columns[j]].T
    return A


def random_parts(m, n, b, r, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in ((m, r), (n, r), (b, b, r))]


def relative(A, fit):
    return np.linalg.norm(A - fit.to_dense()) / np.linalg.norm(A)


@pytest.mark.parametrize(("m", "n", "b"), [(12, 20, 4), (13, 22, 4), (5, 7, 1), (6, 6, 6)])
def test_to_dense_is_the_definition(m, n, b):
    U, V, couplings = random_parts(m, n, b, 3)
    np.testing.assert_allclose(Blast(U, V, couplings).to_dense(), product(U, V, couplings), rtol=1e-5, atol=1e-5)


def test_bytes_are_those_of_the_coefficients():
    fit = Blast(*random_parts(30, 50, 4, 3))
    assert fit.nbytes == 4 * 3 * (30 + 50 + 16)
    assert largest_rank((30, 50), 4, fit.nbytes) == 3
    assert largest_rank((30, 50), 4, fit.nbytes - 1) == 2
    assert largest_rank((30, 50), 4, 4) == 0
    assert largest_rank((30, 50), 4, 1e9) == 30


def test_one_block_is_the_truncated_svd():
    A = np.random.default_rng(0).standard_normal((24, 31)).astype(np.float32)
    s = np.linalg.svd(A.astype(np.float64), compute_uv=False)
    expected = np.sqrt(np.square(s[5:]).sum() / np.square(s).sum())
    assert relative(A, fit_blast(A, 1, 5)) == pytest.approx(expected, rel=1e-4)


def test_rounds_only_improve():
    A = product(*random_parts(40, 48, 4, 6)) + 0.01 * np.random.default_rng(1).standard_normal((40, 48))
    errors = [relative(A, fit_blast(A, 4, 6, iterations)) for iterations in (0, 1, 3, 10, 30)]
    assert np.all(np.diff(errors) < 0)
    # Far below what the same rank reaches without couplings.
    assert errors[-1] < 0.25 * errors[0]


def test_a_zero_matrix_stays_zero():
    assert not fit_blast(np.zeros((8, 12)), 2, 3).to_dense().any()


@pytest.mark.parametrize(
    ("changed", "subject"),
    [
        ({"blocks": 0}, "blocks"),
        ({"blocks": 9}, "blocks"),
        ({"rank": 0}, "rank"),
        ({"rank": 9}, "rank"),
        ({"iterations": -1}, "iterations"),
        ({"weight": np.full((8, 12), np.nan)}, "weight"),
    ],
)
def test_wrong_arguments(changed, subject):
    with pytest.raises(ArgumentError) as caught:
        fit_blast(**{"weight": np.ones((8, 12)), "blocks": 2, "rank": 2, "iterations": 1, **changed})
    assert caught.value.subject == subject
