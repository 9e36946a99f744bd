import numpy as np
import pytest
from matrices import random_matrix

from hmatrix.allocation.depths import Depth, best_scales
from hmatrix.precision import Precision, decode

every_depth = pytest.mark.parametrize("depth", Depth)


@every_depth
def test_leaves_add_up_to_one_uniform_grid(depth):
    levels = np.arange(depth.lowest, depth.highest + 1, dtype=np.uint8)[None]
    n = levels.shape[1]
    planes = depth.split(levels, np.array([[0.5]]), n)
    assert [plane.precision for plane in planes] == list(depth.value)
    np.testing.assert_array_equal(sum(decode(plane) for plane in planes), 0.5 * (levels - depth.zero))


def test_bits():
    assert [depth.bits for depth in Depth] == [1, 2, 3, 4, 5, 6, 8]
    assert [depth.highest + 1 for depth in Depth] == [2, 4, 8, 16, 32, 64, 256]
    assert (Depth.THREE.zero, Depth.FOUR.zero, Depth.SIX.zero, Depth.EIGHT.zero) == (3.5, 8, 33.5, 128)
    assert sum(len(depth.value) > 1 for depth in Depth) == 3
    assert all(precision in Precision for depth in Depth for precision in depth.value)


def nearest(block, depth, scales):
    """The weighted error of each row on its grid, by trying all levels."""
    grid = np.arange(depth.lowest, depth.highest + 1) - depth.zero
    return np.abs(block[:, :, None] - scales[:, None, None].astype(float) * grid).min(axis=2)


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
    span = np.abs(block).max(axis=1) / max(depth.zero - depth.lowest, depth.highest - depth.zero)
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
