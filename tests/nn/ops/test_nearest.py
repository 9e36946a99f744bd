"""Which codes stand for what is nearest to coefficients that are trained."""

import numpy as np
import pytest

from hmatrix.codes.precision import Precision

torch = pytest.importorskip("torch")
from hmatrix.nn.layers.trainable_factor import TrainableFactor  # noqa: E402
from hmatrix.nn.ops.coefficients import Coefficients, Columns  # noqa: E402

INTEGERS = [precision.name.lower() for precision in Precision if precision.is_integer]
TRELLISES = [precision.name.lower() for precision in Precision if precision.trellis]


@pytest.mark.parametrize("precision", TRELLISES)
@pytest.mark.parametrize("lengths", [(1,), (7, 3), (45, 1, 64, 33)], ids=str)
def test_stored_codes_are_found_again(precision, lengths):
    """Whatever codes were stored, those of words that are not full, too; by the nearest values alone."""
    precision, rng = Precision.of(precision), np.random.default_rng(0)
    columns = Columns(precision, lengths, tuple(range(len(lengths))))
    codes = torch.from_numpy(rng.integers(0, 2**precision.bits, (2, 50, sum(lengths)), np.uint8))
    scales = torch.from_numpy(rng.standard_normal((2, 50, len(lengths))).astype(np.float32))
    coefficients = Coefficients.of(columns, codes, scales)
    factor = TrainableFactor(coefficients, quantized=False)
    torch.testing.assert_close(factor.values(), coefficients.values(), rtol=1e-5, atol=0)
    assert torch.equal(factor.coefficients().units, coefficients.units)
    assert torch.equal(factor.coefficients().scales, scales)


@pytest.mark.parametrize("precision", INTEGERS)
def test_steps_are_from_value_to_value(precision):
    """On average over the codes of the neighbours, which choose among which values an entry may have."""
    precision, rng = Precision.of(precision), np.random.default_rng(0)
    columns = precision.per_word
    codes = rng.integers(0, 2**precision.bits, (4000, 1, columns)).astype(np.uint8).repeat(2**precision.bits, axis=1)
    codes[:, :, 0] = np.arange(2**precision.bits)
    values = precision.values(codes.reshape(-1, columns))[:, 0].reshape(4000, -1)
    coefficients = Coefficients.of(
        Columns(precision, (columns,), (0,)), torch.zeros(1, 2, columns), -torch.ones(1, 2, 1)
    )
    steps = TrainableFactor(coefficients, quantized=False).steps().expand(1, 2, columns)
    np.testing.assert_allclose(steps, np.diff(np.sort(values, axis=1)).mean(), rtol=0.01)
