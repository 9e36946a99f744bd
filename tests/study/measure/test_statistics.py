import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmatrix.errors import ArgumentError
from hmatrix.study.measure.statistics import paired_interval


@st.composite
def counts(draw):
    samples = draw(st.integers(1, 10**6))
    lost = draw(st.integers(0, samples))
    return samples, lost, draw(st.integers(0, samples - lost))


def test_hand_computed_survey():
    # 1600 people asked twice (Agresti): 150 changed one way, 86 the other.
    # d = 64 / 1602 = 0.0399501, sd = sqrt(237 - 64^2 / 1602) / 1602 = 0.00955774, z sd = 0.0187328
    lower, upper = paired_interval(1600, 150, 86)
    assert lower == pytest.approx(0.0212173, abs=1e-6)
    assert upper == pytest.approx(0.0586829, abs=1e-6)


def test_hand_computed_without_differing_pairs():
    # d = 0, sd = sqrt(0 + 0 + 1) / 100
    lower, upper = paired_interval(98, 0, 0)
    assert (lower, upper) == pytest.approx((-0.01959964, 0.01959964), abs=1e-8)


def test_hand_computed_confidence():
    # z of 0.90 is 1.6448536
    assert paired_interval(98, 0, 0, confidence=0.9)[1] == pytest.approx(0.016448536, abs=1e-9)


@pytest.mark.parametrize(("lost", "gained", "end", "bound"), [(1, 0, 1, 1.0), (0, 1, 0, -1.0)])
def test_clipped(lost, gained, end, bound):
    # d = 1/3, sd = sqrt(2 - 1/3) / 3 = 0.430, so the free end would be at 1.18.
    interval = paired_interval(1, lost, gained)
    assert interval[end] == bound
    assert abs(interval[1 - end]) == pytest.approx(0.5101, abs=1e-4)


@given(counts())
def test_symmetry(count):
    samples, lost, gained = count
    lower, upper = paired_interval(samples, lost, gained)
    assert paired_interval(samples, gained, lost) == pytest.approx((-upper, -lower))


@given(counts())
def test_contains_the_shrunk_difference_and_grows_with_confidence(count):
    samples, lost, gained = count
    lower, upper = paired_interval(samples, lost, gained, 0.8)
    wider = paired_interval(samples, lost, gained, 0.99)
    assert -1 <= wider[0] <= lower < (lost - gained) / (samples + 2) < upper <= wider[1] <= 1


@pytest.mark.parametrize(
    ("samples", "lost", "gained"), [(100, 0.10, 0.04), (1000, 0.06, 0.01), (200, 0.02, 0.02), (50, 0.3, 0.2)]
)
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_coverage(samples, lost, gained, confidence):
    """The interval holds the true difference about as often as it says."""
    rng = np.random.default_rng(20050729)
    draws = rng.multinomial(samples, [lost, gained, 1 - lost - gained], size=4000)
    covered = 0
    for b, c, _ in draws.tolist():
        lower, upper = paired_interval(samples, b, c, confidence)
        covered += lower <= lost - gained <= upper
    # Counts are discrete, and the method leans to the safe side, most for few differing pairs.
    assert confidence - 0.012 < covered / len(draws) < confidence + 0.035


def test_pairing_narrows():
    """For two independent samples of the same accuracies the interval would be several times as wide."""
    lower, upper = paired_interval(1000, 20, 10)
    independent = 1.96 * math.sqrt(2 * 0.7 * 0.3 / 1000)
    assert upper - lower < independent


@pytest.mark.parametrize(
    ("arguments", "subject"),
    [
        ((0, 0, 0), "samples"),
        ((-3, 0, 0), "samples"),
        ((10, -1, 0), "lost"),
        ((10, 0, -1), "gained"),
        ((10, 6, 5), "lost and gained"),
        ((10, 1, 1, 0.0), "confidence"),
        ((10, 1, 1, 1.0), "confidence"),
        ((10, 1, 1, 95), "confidence"),
        ((10, 1, 1, math.nan), "confidence"),
    ],
)
def test_arguments(arguments, subject):
    with pytest.raises(ArgumentError) as caught:
        paired_interval(*arguments)
    assert caught.value.subject == subject
