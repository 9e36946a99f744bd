"""What distillation is told: losses and settings."""

import numpy as np
import pytest
import torch

import hmatrix.nn as hnn
from hmatrix.errors import ArgumentError


def test_losses():
    generator = torch.Generator().manual_seed(0)
    given, wanted = (torch.randn(5, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = ((given - wanted) ** 2).mean() / wanted.numpy().var()
    torch.testing.assert_close(hnn.SquaredError()(given, wanted), expected)
    assert hnn.SquaredError()(torch.tensor([[3.0]]), torch.tensor([[1.0]])) == 4
    p, q = ((x / 3).softmax(dim=1) for x in (wanted, given))
    torch.testing.assert_close(hnn.Divergence(3)(given, wanted), 9 * (p * (p / q).log()).sum() / 5)


def test_the_rate_rises_and_falls():
    rates = [hnn.Finetuning(rate=2.0).rate_at(fraction) for fraction in np.linspace(0, 1, 101)]
    peak = int(np.argmax(rates))
    assert 0 < rates[0] < 0.5
    assert 1.9 < rates[peak] <= 2
    assert 5 <= peak <= 10
    assert np.all(np.diff(rates[peak:]) < 0)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seconds": 0}, "seconds: got 0"),
        ({"steps": 0}, "steps"),
        ({"rate": 0}, "rate: got 0"),
        ({"codes": -1}, "codes: got -1"),
        ({"rate": float("nan")}, "rate: got nan"),
        ({"matching": -1}, "matching: got -1"),
        ({"matching": float("inf")}, "matching: got inf"),
        ({"measurements": 0}, "measurements"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ArgumentError, match=message):
        hnn.Finetuning(**settings)


def test_ten_minutes_unless_steps_are_given():
    assert hnn.Finetuning().seconds == 600
    assert hnn.Finetuning(steps=3).seconds is None
    assert hnn.Finetuning(seconds=1, steps=3).seconds == 1


def test_a_temperature_is_positive():
    with pytest.raises(ArgumentError, match="temperature: got 0"):
        hnn.Divergence(0)
