"""Numbers that the precisions in which they are kept or counted do not hold are refused in words, others are held."""

import warnings

import numpy as np
import pytest
from matrices import random_matrix

import hmatrix as hm
from hmatrix.codes.precision import Precision
from hmatrix.errors import ArgumentError

A, X = random_matrix(40, 30), random_matrix(50, 30, seed=1)
HALF = hm.Budget(storage=0.5)
ONES = np.ones(40)


@pytest.fixture(autouse=True)
def _no_number_is_lost_on_the_way():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


def with_one(array, value):
    changed = array.copy()
    changed.flat[5] = value
    return changed


REFUSED = {
    "quantize small": (lambda: hm.quantize(A * 1e-300, "float32"), "weight: has no entries above 1.18e-38; .*multiply"),
    "quantize denormal": (lambda: hm.quantize(A * 1e-42, "int8"), "weight: has no entries above"),
    "quantize large": (lambda: hm.quantize(A * 1e200, "lloyd4"), "weight: has entries up to .*e.200; float32 holds"),
    "bfloat16": (
        lambda: hm.quantize(np.full((9, 9), np.finfo(np.float32).max), "bfloat16"),
        "weight: .*bfloat16 holds",
    ),
    "astype small": (
        lambda: hm.build(A * 1e-300, truncation=hm.Truncation(max_rank=2)).astype("float32"),
        "matrix: has no entries above",
    ),
    "astype large": (lambda: hm.quantize(A * 1e200, "float64").astype("int8"), "matrix: has entries up to"),
    "calibration": (
        lambda: hm.allocate(A, HALF, calibration=with_one(X, 1e200)),
        "calibration: has entries up to 1e.200",
    ),
    "head small": (lambda: hm.progressive(A * 1e-300), "weight: has no entries above"),
    "head large": (lambda: hm.progressive(A * 1e200), "weight: has entries up to"),
    "bias": (lambda: hm.progressive(A, ONES * 1e200), "bias: has entries up to 1e.200"),
    "inputs of a head": (lambda: hm.progressive(A, calibration=X * 1e-200), "calibration: has no entries above"),
    "one input": (lambda: hm.progressive(A, calibration=with_one(X, 2e19)), "calibration: has entries up to 2e.19; sq"),
    "outputs": (lambda: hm.progressive(A * 1e37, calibration=X), "weight: has entries up to .*; outputs allow"),
}


@pytest.mark.parametrize(("use", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_held_is_refused(use, message):
    with pytest.raises(ArgumentError, match=message):
        use()


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("power", [-110, 100])
def test_a_power_of_two_changes_no_error_of_rounding(precision, power):
    weight = random_matrix(40, 30, np.float32)
    scaled = hm.quantize(weight * np.float32(2.0**power), precision).to_dense()
    ordinary = hm.quantize(weight, precision).to_dense()
    np.testing.assert_allclose(np.ldexp(scaled.astype(np.float64), -power), ordinary, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("weights", [with_one(ONES, 1e300), ONES * 1e307, ONES * 5e-324, with_one(ONES, 1e-300)])
def test_row_weights_of_any_size_count(weights):
    found = hm.allocate(A, HALF, row_weights=weights, coordinates=hm.Index())
    rows = np.square(A - found.matrix.to_dense()).sum(axis=1) / np.square(A).sum(axis=1)
    assert rows[weights == weights.max()].max() < 0.01


@pytest.mark.parametrize("value", [2e19, 1e30])
@pytest.mark.parametrize("activations", ["exact", "int8"])
def test_one_entry_far_out_is_counted(value, activations):
    for weight, inputs in ((A, with_one(X, value)), (with_one(A, value), X)):
        found = hm.allocate(weight, HALF, calibration=inputs, coordinates=hm.Index(), activations=activations)
        assert found.measured_error < 0.05


@pytest.mark.parametrize("budget", [hm.Budget(storage=1e-6), hm.Budget(bytes=7), hm.Budget(storage=1.5)])
def test_impossible_budgets_are_refused_before_errors_are_counted(budget, monkeypatch):
    monkeypatch.setattr("hmatrix.allocation.allocator.WeightedMatrix", None)
    with pytest.raises(ArgumentError, match="budget: is "):
        hm.allocate(A, budget)
