"""Weights and inputs of any magnitude that float32 holds: powers of two change nothing but the exponents."""

import numpy as np
import pytest
from correlations import correlated
from marks import slow
from matrices import equal_bits, random_matrix

import hmatrix as hm
from hmatrix.allocation.error.scaling import exponent_of
from hmatrix.errors import ArgumentError

m, n = 48, 60
WEIGHT = (random_matrix(m, 3, np.float32, seed=1) @ random_matrix(3, n, np.float32, seed=2)) + random_matrix(
    m, n, np.float32, seed=3
)
WEIGHT /= np.float32(2 * np.abs(WEIGHT).max())
INPUTS = correlated(60, n) + np.float32(1)
DERIVATIVES = random_matrix(4 * 9, n, np.float32, seed=5).reshape(4, 9, n)
ROW_DERIVATIVES = random_matrix(4 * 9, m, np.float32, seed=6).reshape(4, 9, m)
BUDGET = hm.Budget(storage=0.2)

ARGUMENTS = {
    "alone": {},
    "calibration": {"calibration": INPUTS},
    "int8": {"calibration": INPUTS, "activations": "int8"},
    "row weights": {"row_weights": np.linspace(1, 9, m)},
    "derivatives": {"calibration": INPUTS, "derivatives": DERIVATIVES, "row_derivatives": ROW_DERIVATIVES},
}
every_kind = pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)


def times(array, exponent):
    return np.ldexp(np.asarray(array, np.float64), exponent)


@every_kind
@pytest.mark.parametrize(
    ("exponent", "dtype", "unbiased"),
    [slow(66, np.float32, False), (120, np.float64, True), slow(-66, np.float64, False), (-96, np.float32, True)],
)
def test_a_power_of_two_in_the_weight_is_one_in_the_result(arguments, exponent, dtype, unbiased):
    expected = hm.allocate(WEIGHT, BUDGET, unbiased=unbiased, **arguments)
    found = hm.allocate(times(WEIGHT, exponent).astype(dtype), BUDGET, unbiased=unbiased, **arguments)
    assert found.measured_error == expected.measured_error < 0.2
    assert found.predicted_error == expected.predicted_error
    assert found.arrangement == expected.arrangement
    dense = expected.matrix.to_dense()
    np.testing.assert_allclose(
        times(found.matrix.to_dense(), -exponent), dense, rtol=0, atol=1e-6 * np.abs(dense).max()
    )
    if exponent > 0:
        assert equal_bits(times(found.matrix.to_dense(), -exponent).astype(np.float32), dense)
    np.testing.assert_array_equal(
        found.bias_correction, times(expected.bias_correction, exponent).astype(np.float32), strict=True
    )


@pytest.mark.parametrize("name", ["calibration", "derivatives", "row_derivatives"])
@pytest.mark.parametrize("exponent", [126, slow(-120)])
@pytest.mark.parametrize("activations", ["exact", "int8"])
def test_a_power_of_two_in_what_errors_are_measured_by_changes_no_code(name, exponent, activations):
    # Without a damping of their own, errors and what int8 adds to them have different units.
    arguments = {**ARGUMENTS["calibration" if name == "calibration" else "derivatives"], "activations": activations}
    expected = hm.allocate(WEIGHT, BUDGET, **arguments)
    scaled = {**arguments, name: times(arguments[name], exponent)}
    found = hm.allocate(WEIGHT, BUDGET, **scaled)
    assert equal_bits(found.matrix.pack().data, expected.matrix.pack().data)
    assert found.measured_error == expected.measured_error
    assert found.damping == expected.damping
    power = exponent if name == "calibration" else 0
    np.testing.assert_array_equal(found.bias_correction, times(expected.bias_correction, power).astype(np.float32))


def test_samples_of_any_size_are_weighed():
    """Squares of large numbers overflow, and all of them would count alike."""
    inputs = times(INPUTS, 66)
    assert hm.allocate(WEIGHT, BUDGET, calibration=inputs).damping.correlations < 1


@pytest.mark.parametrize("largest", [2.0**-24, 1e-5, 0.3, 1.0, 77.0, 2.0**24])
def test_ordinary_numbers_are_left_alone(largest):
    assert exponent_of(np.array([[largest, -largest / 2]])) == 0
    assert exponent_of(np.array([[largest / 2, -largest]])) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_others_are_brought_near_one(dtype):
    for largest in (1e20, 3e38, 1e-10, 1e-36):
        exponent = exponent_of(np.array([[largest, -largest / 2]], dtype))
        assert 1 <= largest / 2.0**exponent < 2
    assert exponent_of(np.zeros((2, 2), dtype)) == 0


def test_several_budgets_share_the_exponent():
    allocator = hm.Allocator(times(WEIGHT, 100))
    for storage in (0.1, 0.3):
        found = allocator.allocate(hm.Budget(storage=storage))
        assert hm.relative_error(times(WEIGHT, 100), found.matrix) == pytest.approx(found.measured_error, rel=1e-4)


def test_a_search_sees_the_matrix_as_it_is():
    weight = times(WEIGHT, 90)
    seen = []

    def evaluate(matrix, correction):
        seen.append(np.abs(matrix.to_dense()).max() / np.abs(weight).max())
        assert not correction.any()
        return 100 * (1 - hm.relative_error(weight, matrix))

    found = hm.allocate(weight, hm.Budget(max_drop=10.0), evaluate=evaluate)
    assert found.measured_error < 0.11
    assert 0.5 < min(seen) <= max(seen) < 1.5


@pytest.mark.parametrize("largest", [1e39, 1e300])
def test_weights_too_large_for_float32_are_refused_at_once(largest, monkeypatch):
    monkeypatch.setattr("hmatrix.allocation.allocator.Layout", None)
    weight = WEIGHT.astype(np.float64) * largest
    with pytest.raises(ArgumentError, match=r"weight: has entries up to .*; float32.*"):
        hm.allocate(weight * 2, BUDGET)


@pytest.mark.parametrize("largest", [1e-39, 1e-43, 1e-300])
def test_weights_too_small_for_float32_are_refused_at_once(largest, monkeypatch):
    monkeypatch.setattr("hmatrix.allocation.allocator.Layout", None)
    with pytest.raises(ArgumentError, match=r"weight: has no entries above .*; .*multiply"):
        hm.allocate(WEIGHT.astype(np.float64) * 2 * largest, BUDGET)


def test_what_rounding_makes_too_large_is_refused():
    """Codes stand for numbers that may be larger than those that were rounded."""
    most = float(np.finfo(np.float32).max)
    weight = np.where(np.arange(n) % 2, 1.0, -0.9) * np.where(np.arange(m) % 3, most, 0.8 * most)[:, None]
    weight += 0.3 * most * random_matrix(m, n).clip(-3, 3) * -np.sign(weight) * (random_matrix(m, n, seed=8) > 0)
    weight = weight.clip(-most, most)
    with pytest.raises(ArgumentError, match=r"weight: has a result outside the range of float32; multiply"):
        hm.allocate(weight, hm.Budget(storage=0.08))
    found = hm.allocate(weight / 4, hm.Budget(storage=0.08))
    assert hm.relative_error(weight / 4, found.matrix) == pytest.approx(found.measured_error, rel=1e-3)


def test_weights_near_the_smallest_numbers_of_float32():
    weight = (WEIGHT * 2e-36).astype(np.float32)
    found = hm.allocate(weight, BUDGET)
    expected = hm.allocate(WEIGHT, BUDGET)
    assert found.measured_error == pytest.approx(expected.measured_error, rel=0.01)
    assert hm.relative_error(weight, found.matrix) == pytest.approx(found.measured_error, rel=1e-3)
    x = random_matrix(n, 1, seed=9)[:, 0]
    y = found.matrix @ (x * 1e30)
    np.testing.assert_allclose(y, found.matrix.to_dense().astype(np.float64) @ (x * 1e30), rtol=1e-3, atol=1e-8)


def test_a_correction_that_float32_does_not_hold_is_refused():
    with pytest.raises(ArgumentError, match=r"calibration: .*float32"):
        hm.allocate(times(WEIGHT, 110), hm.Budget(storage=0.05), calibration=times(INPUTS, 100))


def test_zeros_stay_zeros():
    found = hm.allocate(np.zeros((m, n)), BUDGET)
    assert not found.matrix.to_dense().any()
    assert found.measured_error == 0
