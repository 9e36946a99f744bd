"""What int8 activations add to the error counts when forms are chosen, and when the error is measured."""

from dataclasses import replace

import numpy as np
import pytest
from marks import slow

import hmatrix as hm
from hmatrix.allocation.error.moments import Moments, moments
from hmatrix.allocation.error.rounded_inputs import RoundedInputs
from hmatrix.allocation.search import leaf_forms

N = 96


def inputs(seed):
    """Samples with a few inputs that are much larger than the others."""
    X = np.random.default_rng(seed).standard_normal((300, N)).astype(np.float32)
    X[:, [3, 50, 51]] *= 20
    return X


@pytest.fixture
def weight():
    return np.random.default_rng(0).standard_normal((120, N)).astype(np.float32)


def error_of(weight, found, X):
    """The relative error of the deployed product in float64, each output's mean removed."""
    reference = X.astype(np.float64) @ weight.astype(np.float64).T
    lost = found.matrix.apply(X) + found.bias_correction - reference
    return np.sqrt(lost.var(axis=0).sum() / reference.var(axis=0).sum())


@pytest.mark.parametrize("columns", [slice(0, N), slice(10, 60), slice(3, 4)])
def test_what_rounding_adds_to_inputs(columns):
    X = inputs(1)[:200]
    entries = X[:, columns].astype(np.float64)
    steps = np.abs(entries).max(axis=1, keepdims=True) / 127
    expected = np.square(entries - steps * np.rint(entries / steps)).mean(axis=0)
    np.testing.assert_allclose(RoundedInputs(X).added(columns), expected, rtol=1e-3, atol=1e-9)


def test_a_few_samples_tell():
    X = inputs(1)
    few = RoundedInputs(X)
    assert len(few.samples) == 256
    np.testing.assert_allclose(few.added(slice(0, N)), RoundedInputs(X[:200]).added(slice(0, N)), rtol=0.3)


def test_inputs_that_are_zero_lose_nothing():
    X = np.maximum(inputs(1), 0)
    X[:, 7] = 0
    assert RoundedInputs(X).added(slice(0, N))[7] == 0


def test_only_int8_activations_are_rounded(weight):
    assert moments(weight, inputs(1)).rounded is None
    assert Moments.of_root(None, N).rounded is None
    order = np.arange(N)[::-1]
    found = moments(weight, inputs(1), quantized=True)
    first, last = found.permuted(order).rounded.added(slice(0, 9)), found.rounded.added(slice(N - 9, N))
    np.testing.assert_array_equal(first, last[::-1])


@pytest.mark.parametrize("storage", [0.15, 0.3, 0.45])
def test_errors_are_those_of_the_product_as_it_runs(weight, storage):
    found = hm.allocate(weight, hm.Budget(storage=storage), calibration=inputs(1), activations="int8")
    assert found.measured_error == pytest.approx(error_of(weight, found, inputs(2)), rel=0.15)


def test_large_inputs_do_not_spoil_the_others(weight):
    """A matrix that was chosen for exact activations and runs with int8 ones has a third more error."""
    budget, X, held_out = hm.Budget(storage=0.3), inputs(1), inputs(2)
    aware = hm.allocate(weight, budget, calibration=X, activations="int8")
    exact = hm.allocate(weight, budget, calibration=X)
    run = replace(exact, matrix=hm.HMatrix(replace(exact.matrix.pack(), quantized=True)))
    assert aware.matrix.storage().ratio <= 0.3
    assert error_of(weight, aware, held_out) < 0.75 * error_of(weight, run, held_out)


@pytest.mark.parametrize("storage", [slow(0.15), 0.26, slow(0.3)])
@pytest.mark.parametrize("factor", [4, 20])
def test_inputs_of_other_sizes_are_not_rounded_together(factor, storage):
    """Half of the inputs are larger, and their weights smaller: blocks of one form beside each other stay apart."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((128, 128)).astype(np.float32)
    X, held_out = rng.standard_normal((2, 400, 128)).astype(np.float32)
    weight[:, :64] /= factor
    for samples in (X, held_out):
        samples[:, :64] *= factor
    found = hm.allocate(weight, hm.Budget(storage=storage), calibration=X, activations="int8")
    assert found.measured_error == pytest.approx(found.predicted_error, rel=0.1)
    # The measured error is in proportion to a damped second moment, in which small inputs are larger.
    assert error_of(weight, found, held_out) < 1.6 * found.measured_error


@pytest.mark.parametrize("storage", [slow(0.1), 0.15, slow(0.2)])
def test_sums_that_were_predicted_too_well_are_not_taken(weight, storage, monkeypatch):
    budget, X = hm.Budget(storage=storage), inputs(1)
    found = hm.allocate(weight, budget, calibration=X)
    monkeypatch.setattr(leaf_forms, "_SUMMED", ())
    without = hm.allocate(weight, budget, calibration=X)
    assert found.measured_error <= without.measured_error * (1 + 1e-6)
