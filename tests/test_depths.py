import numpy as np
import pytest
from matrices import random_matrix

from hmatrix.allocation.depths import Depth, best_scales
from hmatrix.precision import Precision, decode


def grid(depth):
    """Its values, in units of the scale, as the leaves have them."""
    levels = np.arange(depth.lowest, depth.highest + 1, dtype=np.uint8)[None]
    return sum(decode(plane) for plane in depth.split(levels, np.ones((1, 1)), levels.shape[1]))[0]


every_depth = pytest.mark.parametrize("depth", Depth)


@every_depth
def test_leaves_add_up_to_one_grid(depth):
    levels = np.arange(depth.lowest, depth.highest + 1, dtype=np.uint8)
    planes = depth.split(levels[None], np.array([[0.5]]), len(levels))
    assert [plane.precision for plane in planes] == list(depth.value)
    np.testing.assert_array_equal(sum(decode(plane) for plane in planes)[0], 0.5 * depth.values[depth.lowest :])
    np.testing.assert_array_equal(depth.levels(depth.values), np.arange(2**depth.bits))
    assert (np.diff(depth.values) > 0).all()
    if depth.is_even:
        np.testing.assert_array_equal(depth.values, np.arange(2**depth.bits) - depth.zero)
    else:
        np.testing.assert_array_equal(depth.values, -depth.values[::-1])


@pytest.mark.parametrize(("depth", "most"), [(Depth.LLOYD, 0.85), (Depth.FIVE, 0.88), (Depth.SIX, 0.96)])
def test_uneven_grids_leave_less_of_normally_distributed_numbers(depth, most):
    x = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    even = np.arange(2**depth.bits, dtype=np.float32) - depth.highest / 2

    def least(error, scales):
        return min(np.square(x - error(x / scale) * scale).mean() for scale in scales.astype(np.float32))

    ours = least(depth.nearest, np.linspace(0.017, 0.030, 27))
    step = 5.0 / 2**depth.bits
    plain = least(lambda z: np.clip(np.floor(z) + 0.5, even[0], even[-1]), step * np.linspace(0.7, 1.7, 41))
    assert ours < most * plain


def test_bits():
    assert [depth.bits for depth in Depth] == [1, 2, 3, 4, 4, 5, 6, 8]
    assert [depth.highest + 1 for depth in Depth] == [2, 4, 8, 16, 16, 32, 64, 256]
    assert [depth.is_even for depth in Depth] == [True, True, True, True, False, False, False, True]
    assert (Depth.THREE.zero, Depth.FOUR.zero, Depth.SIX.zero, Depth.EIGHT.zero) == (3.5, 8, 31.5, 128)
    assert (Depth.FOUR.sides, Depth.EIGHT.sides, Depth.FIVE.sides) == ((8, 7), (127, 127), (130.5, 130.5))
    assert sum(len(depth.value) > 1 for depth in Depth) == 3
    assert all(precision in Precision for depth in Depth for precision in depth.value)


def nearest(block, depth, scales):
    """The weighted error of each row on its grid, by trying all levels."""
    return np.abs(block[:, :, None] - scales[:, None, None].astype(float) * grid(depth)).min(axis=2)


@every_depth
def test_the_nearest_values(depth):
    wanted = np.concatenate([np.random.default_rng(0).uniform(-300, 300, (20, 200)), random_matrix(20, 200)])
    wanted = wanted.astype(np.float32)
    found = depth.nearest(wanted)
    assert np.isin(found, grid(depth)).all()
    assert depth.nearest(np.array([-np.inf, np.inf], np.float32)).tolist() == [-depth.sides[0], depth.sides[1]]
    np.testing.assert_allclose(np.abs(wanted - found), nearest(wanted, depth, np.ones(40)), rtol=1e-5)


@every_depth
def test_errors_are_those_of_the_scales(depth):
    block = random_matrix(7, 90, np.float32)
    weights = np.random.default_rng(1).uniform(0.5, 2, 90).astype(np.float32)
    scales, errors = best_scales(block, depth, weights)
    # The scale was fitted once more after rounding, so that rounding anew can only gain.
    actual = np.square(nearest(block.astype(float), depth, scales)) @ weights
    assert (actual <= errors * (1 + 1e-4)).all()
    assert (actual >= 0.8 * errors).all()


@every_depth
def test_scales_are_about_the_best_of_all(depth):
    block = random_matrix(5, 200, np.float32, seed=2)
    ones = np.ones(200, np.float32)
    _, errors = best_scales(block, depth, ones)
    span = np.abs(block).max(axis=1) / max(depth.sides)
    tried = [
        np.square(nearest(block.astype(float), depth, sign * fraction * span)).sum(axis=1)
        for fraction in np.linspace(0.1, 2.1, 81)
        for sign in (1, -1)
    ]
    assert errors.sum() <= 1.1 * np.min(tried, axis=0).sum()


@every_depth
def test_zero_rows_cost_nothing(depth):
    block = random_matrix(3, 20, np.float32)
    block[1] = 0
    scales, errors = best_scales(block, depth, np.ones(20, np.float32))
    assert (scales[1], errors[1]) == (0, 0)


def test_the_longer_side_of_the_grid_lies_where_the_larger_entries_are():
    block = np.array([[3, -1, 0.5], [-3, 1, 0.5]], np.float32)
    assert Depth.FOUR.signs(block).tolist() == [-1, 1]
    assert Depth.TWO.signs(block).tolist() == [1, 1]
    assert Depth.EIGHT.signs(block).tolist() == [1, 1]
