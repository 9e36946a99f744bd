import numpy as np
import pytest
from marks import slow
from matrices import random_matrix, slopes

import hmatrix as hm
from hmatrix.allocation.error.gains import unbiased_gains
from hmatrix.allocation.error.moments import Moments, moments

M, N = 300, 80


def inputs(samples, seed=1):
    """Correlated inputs with a mean."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(7).standard_normal((N, N)) * np.exp(-np.arange(N) / 20)
    return (rng.standard_normal((samples, N)) @ mix.T + 2).astype(np.float32)


@pytest.mark.parametrize("storage", [slow(0.07), 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_outputs_are_right_on_average(storage, weighted):
    A, X = random_matrix(M, N, np.float32), inputs(4000)
    row_weights = np.linspace(1, 9, M) if weighted else None
    given = {"calibration": X, "row_weights": row_weights}
    biased = hm.allocate(A, hm.Budget(storage=storage), **given)
    found = hm.allocate(A, hm.Budget(storage=storage), unbiased=True, **given)
    unseen = inputs(20000, seed=2)
    before = slopes(A, biased.matrix.to_dense(), unseen)
    after = slopes(A, found.matrix.to_dense(), unseen)
    # All shrink before. Afterwards what is left is what damping makes of the moments of the inputs.
    assert abs(after.mean() - 1) < 0.5 * (1 - before.mean())
    assert np.quantile(after, 0.01) > 0.98 > before.min()
    assert found.matrix.storage() == biased.matrix.storage()
    # The means of outputs are right, too, and the error that is told is that of what is returned.
    lacking = (A - found.matrix.to_dense()) @ X.mean(axis=0)
    np.testing.assert_allclose(found.bias_correction, lacking, atol=1e-3 * np.abs(lacking).max())
    assert biased.measured_error < found.measured_error < 1.1 * biased.measured_error
    scales = np.sqrt(np.ones(M) if row_weights is None else row_weights / row_weights.mean())[:, None]
    weight = (scales * A).astype(np.float32)
    C = moments(weight, X).covariance().astype(np.float64)
    E = scales * (A - found.matrix.to_dense())
    errors = [np.einsum("ij,jk,ik->", B, C, B, optimize=True) for B in (E, weight.astype(np.float64))]
    assert found.measured_error == pytest.approx(np.sqrt(errors[0] / errors[1]), rel=1e-4)


def test_without_inputs_rows_keep_their_own_size():
    A = random_matrix(M, N, np.float32)
    H = hm.allocate(A, hm.Budget(storage=0.08), unbiased=True).matrix.to_dense()
    np.testing.assert_allclose((A * H).sum(axis=1), (A**2).sum(axis=1), rtol=1e-5)


def test_gains_are_those_of_the_definition():
    A, X = random_matrix(M, N, np.float32), inputs(500)
    found = moments(A, X)
    C = found.covariance().astype(np.float64)
    E = np.random.default_rng(3).uniform(0, 0.3, (M, 1)) * A + 0.1 * random_matrix(M, N, np.float32, seed=4)
    quotient = np.einsum("ij,ij->i", A @ C, A) / np.einsum("ij,ij->i", A @ C, A - E)
    np.testing.assert_allclose(unbiased_gains(A, E.astype(np.float32), found), quotient, rtol=1e-3)


def test_rows_that_are_nearly_whole_or_nearly_lost():
    A = random_matrix(4, N, np.float32)
    lost = np.array([0, 5e-4, 0.9, 1], np.float32)
    gains = unbiased_gains(A, lost[:, None] * A, Moments.of_root(None, N))
    # Nothing worth mending; so little kept that the right size would be all noise.
    np.testing.assert_array_equal(gains, [1, 1, 2, 2])
    assert unbiased_gains(
        np.zeros((3, N), np.float32), np.zeros((3, N), np.float32), Moments.of_root(None, N)
    ).tolist() == [1, 1, 1]


def test_a_dropped_matrix_stays_zero():
    A = random_matrix(M, N, np.float32)
    smallest, _ = hm.Allocator(A).limits
    found = hm.allocate(A, hm.Budget(bytes=smallest), unbiased=True)
    assert not found.matrix.to_dense().any()
    assert found.measured_error == pytest.approx(1)
