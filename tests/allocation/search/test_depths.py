import numpy as np
import pytest
from matrices import random_matrix
from roundings import rounded

from hmatrix.allocation.search.depths import Depth, even_errors, scales_of
from hmatrix.codes.encoding import decode, encode
from hmatrix.codes.precision import Precision

every_depth = pytest.mark.parametrize("depth", Depth)
every_bits = pytest.mark.parametrize("bits", [1, 2, 4, 8])
EVEN = {1: Precision.INT1, 2: Precision.INT2, 4: Precision.INT4, 8: Precision.INT8}


def test_bits():
    assert [depth.bits for depth in Depth] == [1, 2, 4, 1, 2, 3, 4, 4, 5, 6, 7, 8]
    assert {depth.value[0] for depth in Depth if depth.name.startswith("EVEN")} == set(list(EVEN.values())[:3])
    assert sum(len(depth.value) > 1 for depth in Depth) == 3


@every_depth
def test_the_error_of_normally_distributed_entries_is_known(depth):
    block = np.random.default_rng(0).standard_normal((60, 800)).astype(np.float32)
    ones = np.ones(800, np.float32)
    actual = np.square(block - rounded(block, depth)).sum()
    predicted = depth.left * even_errors(block, depth.even, ones).sum()
    assert actual == pytest.approx(predicted, rel=0.05)


@every_depth
def test_scales_are_those_of_each_leaf_by_itself(depth):
    block = random_matrix(5, 70, np.float32)
    held = np.zeros_like(block)
    for precision, scale in zip(depth.value, scales_of(block, depth), strict=True):
        encoded = encode(block - held, precision)
        np.testing.assert_array_equal(scale, encoded.scales[:, 0])
        held = held + decode(encoded)


@every_bits
def test_errors_are_about_those_of_the_best_scales(bits):
    block = random_matrix(7, 200, np.float32)
    weights = np.random.default_rng(1).uniform(0.5, 2, 200).astype(np.float32)
    best = np.square(block - decode(encode(block, EVEN[bits]))) @ weights
    errors = even_errors(block, EVEN[bits], weights)
    assert errors.sum() == pytest.approx(best.sum(), rel=0.05)
    assert even_errors(block, EVEN[bits], weights, every=4).sum() <= 1.3 * errors.sum()


@every_bits
def test_what_lies_on_the_grid_and_zero_rows_cost_nothing(bits):
    codes = np.random.default_rng(2).integers(0 if bits < 8 else 1, 2**bits, (4, 90)).astype(np.uint8)
    codes[:, :2] = [[2**bits - 1, 0 if bits < 8 else 1]]
    block = EVEN[bits].values(codes) * np.float32(0.37)
    block[1] = 0
    # The search does not try the very scale, but comes close to it, and fits it then.
    assert (even_errors(block, EVEN[bits], np.ones(90, np.float32)) <= 1e-6 * np.square(block).sum(axis=1)).all()


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("scale", [1.0, 0.013, 0.37])
def test_what_lies_on_the_grid_costs_nothing_at_all(bits, scale):
    """Otherwise a trellis, which cannot hold it, would seem to leave a part of the rounding of its sums."""
    codes = np.random.default_rng(2).integers(0 if bits < 8 else 1, 2**bits, (40, 300)).astype(np.uint8)
    codes[:, :2] = [[2**bits - 1, 0 if bits < 8 else 1]]
    block = EVEN[bits].values(codes) * np.float32(scale)
    assert not even_errors(block, EVEN[bits], np.ones(300, np.float32), every=4).any()
    moved = block + np.float32(0.1 * scale)
    assert even_errors(moved, EVEN[bits], np.ones(300, np.float32), every=4).any()
