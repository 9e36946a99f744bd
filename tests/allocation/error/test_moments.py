import numpy as np
import pytest
from correlations import correlated, in_parts
from matrices import random_matrix
from scipy.stats import multivariate_normal

from hmatrix.allocation.error import damping as module
from hmatrix.allocation.error.damping import Damping, upper_root
from hmatrix.allocation.error.moments import Moments, moments
from hmatrix.errors import ArgumentError

WEIGHT = random_matrix(30, 40, np.float32)


def expected(X, damping, weight=WEIGHT):
    """The covariance of the module's docstring, written out in float64."""
    S = np.cov(X.T, bias=True)
    variances = (1 - damping.variances) * np.diag(S) + damping.variances * np.diag(S).mean()
    units = weight.astype(float) / np.linalg.norm(weight.astype(float), axis=0)
    target = (1 - damping.weight) * np.eye(len(S)) + damping.weight * units.T @ units
    R = (1 - damping.correlations) * np.corrcoef(X.T) + damping.correlations * target
    return R * np.sqrt(np.outer(variances, variances))


def test_the_covariance_is_what_the_damping_says():
    X = correlated(60, 40)
    found = moments(WEIGHT, X)
    assert found.damping.correlations < 1
    wanted = expected(X, found.damping)
    np.testing.assert_allclose(found.covariance(), wanted, atol=1e-5 * np.abs(wanted).max())
    np.testing.assert_allclose(found.mean, X.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.variances, np.diag(found.covariance()), rtol=1e-5)


def test_the_root_is_upper_triangular():
    found = moments(WEIGHT, correlated(60, 40))
    assert not np.tril(found.root, -1).any()
    assert (np.diag(found.root) > 0).all()
    np.testing.assert_allclose(found.root @ found.root.T, found.covariance(), rtol=1e-6)


def test_innovations_are_what_later_columns_do_not_tell():
    found = moments(WEIGHT, correlated(60, 40))
    C = found.covariance().astype(float)
    for j in (0, 17, 39):
        later = slice(j + 1, None)
        told = C[j, later] @ np.linalg.solve(C[later, later], C[later, j]) if j < 39 else 0
        assert found.innovations[j] == pytest.approx(C[j, j] - told, rel=1e-2)


def test_permuted():
    found = moments(WEIGHT, correlated(60, 40))
    order = np.random.default_rng(3).permutation(40)
    other = found.permuted(order)
    np.testing.assert_allclose(other.covariance(), found.covariance()[np.ix_(order, order)], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(other.mean, found.mean[order])
    part = found.permuted(order[:7])
    few = found.covariance()[np.ix_(order[:7], order[:7])]
    np.testing.assert_allclose(part.covariance(), few, rtol=1e-4, atol=1e-5)
    assert Moments.of_root(None, 40).permuted(order).root is None


def test_the_error_that_matters():
    found = moments(WEIGHT, correlated(60, 40))
    E = random_matrix(300, 40, np.float32, seed=5)
    C = found.covariance().astype(float)
    assert found.error(E) == pytest.approx(np.trace(E @ C @ E.T), rel=1e-4)
    assert Moments.of_root(None, 40).error(E) == pytest.approx(np.square(E, dtype=float).sum(), rel=1e-6)


def test_a_singular_covariance_has_a_root():
    factor = random_matrix(3, 20, np.float32)
    root = upper_root(np.hstack([factor.T, np.zeros((20, 17), np.float32)]))
    np.testing.assert_allclose(root @ root.T, factor.T @ factor, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 7), (6, 40)])
def test_a_root_is_upper_triangular_and_its_factor_stays(shape):
    factor = random_matrix(*shape, np.float32)
    given = factor.copy()
    root = upper_root(factor)
    np.testing.assert_array_equal(factor, given)
    np.testing.assert_array_equal(root, np.triu(root))
    assert (np.diag(root) > 0).all()
    np.testing.assert_allclose(root @ root.T, factor @ factor.T, atol=1e-4)


@pytest.mark.parametrize("samples", [2, 3])
def test_too_few_to_validate_are_unweighted(samples):
    X = correlated(samples, 40)
    found = moments(WEIGHT, X)
    assert found.damping == Damping(1.0, 0.0, 1.0)
    assert found.root is None
    np.testing.assert_allclose(found.mean, X.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_independent_inputs_are_damped_all_the_way():
    rng = np.random.default_rng(0)
    found = moments(rng.standard_normal((30, 40)), rng.standard_normal((30, 40)))
    assert found.damping.correlations >= 0.9
    assert found.damping.weight == 0


def test_the_weight_helps_where_inputs_lie_along_its_rows():
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((200, 6)) @ rng.standard_normal((6, 40))
    X = rng.standard_normal((24, 200)) @ weight / 10 + 0.5 * rng.standard_normal((24, 40))
    assert moments(weight, X).damping.weight > 0


def test_constant_inputs_and_columns_that_never_vary():
    assert moments(WEIGHT, np.ones((10, 40))).root is None
    X = correlated(60, 40)
    X[:, 5] = 3.0
    found = moments(WEIGHT, X)
    assert found.damping.variances > 0
    assert np.isfinite(found.root).all()
    zero = WEIGHT.copy()
    zero[:, 7] = 0
    assert np.isfinite(moments(zero, X).root).all()


@pytest.mark.parametrize("samples", [25, 90])
def test_log_likelihoods(samples):
    train, test = correlated(samples, 40, seed=1), correlated(7, 40, seed=2)
    found = module._log_likelihoods(train.astype(np.float32), test.astype(np.float32))
    constant = -0.5 * 7 * 40 * np.log(2 * np.pi)
    for share, value in zip(module._SAMPLE_SHARES, found, strict=True):
        C = (1 - share) * train.T @ train / samples + share * np.eye(40)
        assert value + constant == pytest.approx(multivariate_normal(cov=C).logpdf(test).sum(), rel=1e-4)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.ones((5, 39)), r"calibration: has the shape \(5, 39\); give \(samples, 40\)"),
        (np.ones((5, 3, 39)), r"calibration: has the shape \(5, 3, 39\); give .* or \(samples, vectors, 40\)"),
        (np.ones((1, 5, 40)), "calibration: has 1 sample; give at least 2"),
        (np.ones((5, 0, 40)), "calibration: has 3 dimensions"),
        (np.full((2, 3, 40), np.inf), "calibration: has 240 entries that are NaN or infinite"),
        (np.ones(40), "calibration: has 1 dimensions"),
        (np.ones((1, 40)), "calibration: has 1 sample; give at least 2"),
        (np.full((5, 40), np.nan), "calibration: has 200 entries that are NaN"),
        (np.full((5, 40), "a"), "calibration"),
    ],
)
def test_unusable_calibration_data(X, message):
    with pytest.raises(ArgumentError, match=message):
        moments(WEIGHT, X)


def test_vectors_of_a_sample_are_left_out_together():
    rng = np.random.default_rng(0)
    # Of independent entries nothing can be learned from one another, but copies seem to tell of each other.
    X = rng.standard_normal((20, 1, 40)) + 0.1 * rng.standard_normal((20, 15, 40))
    apart, together = moments(WEIGHT, X.reshape(-1, 40)), moments(WEIGHT, X)
    assert apart.damping.correlations <= 0.2
    assert together.damping.correlations >= 0.8
    learned, damped = (np.eye(40) if each.root is None else each.covariance() for each in (apart, together))
    assert np.linalg.norm(damped - np.eye(40)) < np.linalg.norm(learned - np.eye(40))
    np.testing.assert_array_equal(together.mean, apart.mean)


def test_two_samples_of_many_vectors_are_too_few_to_choose_by():
    assert moments(WEIGHT, correlated(60, 40).reshape(2, 30, 40)).root is None


def test_nothing_is_changed():
    X, weight = correlated(20, 40).astype(np.float32), WEIGHT.copy()
    before = X.copy()
    moments(weight, X)
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(weight, WEIGHT)


def test_derivatives_take_the_place_of_inputs():
    X, rows = correlated(60, 40) + 3, in_parts(4, 30, seed=1, same=True)
    found = moments(WEIGHT, X, derivatives=rows)
    assert found.damping.correlations == module._SAMPLE_SHARES[0]
    np.testing.assert_allclose(found.mean, X.mean(axis=0), rtol=1e-5)
    # Nothing is subtracted from derivatives: the same rows with both signs have no mean.
    flat = rows.reshape(-1, 40)
    flat *= np.sqrt(X.var(axis=0).sum() / np.square(flat).mean(axis=0).sum())
    wanted = expected(np.vstack([flat, -flat]), found.damping)
    np.testing.assert_allclose(found.covariance(), wanted, atol=1e-5 * np.abs(wanted).max())


def test_independent_parts_are_damped_all_the_way():
    assert moments(WEIGHT, correlated(60, 40), derivatives=in_parts(5, 8)).damping.correlations >= 0.9


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.ones((5, 8, 39)), r"derivatives: has the shape \(5, 8, 39\); give \(parts, rows, 40\), at least 2 parts"),
        (np.ones((1, 8, 40)), r"derivatives: has the shape \(1, 8, 40\)"),
        (np.ones((8, 40)), r"derivatives: has the shape \(8, 40\)"),
        (np.full((2, 4, 40), np.inf), "derivatives: has 320 entries that are NaN or infinite"),
    ],
)
def test_unusable_derivatives(rows, message):
    with pytest.raises(ArgumentError, match=message):
        moments(WEIGHT, correlated(60, 40), derivatives=rows)
