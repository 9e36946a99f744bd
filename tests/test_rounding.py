import numpy as np
import pytest
from matrices import random_matrix
from test_depths import grid
from test_moments import correlated

from hmatrix.allocation.depths import Depth, best_scales
from hmatrix.allocation.moments import Moments, moments
from hmatrix.allocation.rounding import Cell, round_cells

every_depth = pytest.mark.parametrize("depth", Depth)


def decoded(rounded, depth):
    return rounded.scales[:, None].astype(float) * depth.values[rounded.levels]


def nearest(scaled, depth):
    """The nearest values of the grid, found by trying all."""
    values = grid(depth).astype(np.float32)
    return values[np.abs(scaled[:, :, None] - values).argmin(axis=2)]


def problem(m=20, n=300, samples=400):
    weight = random_matrix(m, n, np.float32, seed=4)
    return weight, moments(weight, correlated(samples, n))


def whole(weight, depth):
    return Cell(slice(0, len(weight)), slice(0, weight.shape[1]), depth)


@every_depth
def test_what_is_left_is_told(depth):
    weight, inputs = problem()
    rest = weight.copy()
    (rounded,) = round_cells(rest, [whole(weight, depth)], inputs)
    assert depth.lowest <= rounded.levels.min()
    assert rounded.levels.max() <= depth.highest
    np.testing.assert_allclose(rest, weight - decoded(rounded, depth), atol=1e-5)


@every_depth
def test_less_is_left_of_the_output_than_by_rounding_to_the_nearest(depth):
    weight, inputs = problem()
    scales, _ = best_scales(weight, depth, np.ones(300, np.float32))
    plain = inputs.error(weight - scales[:, None] * nearest(weight / scales[:, None], depth))
    rest = weight.copy()
    round_cells(rest, [whole(weight, depth)], inputs)
    assert inputs.error(rest) < 0.75 * plain


@every_depth
def test_without_moments_each_entry_has_the_nearest_level(depth):
    weight, unweighted = random_matrix(9, 33, np.float32), Moments.of_root(None, 33)
    (rounded,) = round_cells(weight.copy(), [whole(weight, depth)], unweighted)
    scaled = weight / rounded.scales[:, None]
    # But where two are about as near.
    apart = np.abs(scaled[:, :, None] - grid(depth))
    apart.sort(axis=2)
    clear = apart[:, :, 1] - apart[:, :, 0] > 2e-4
    np.testing.assert_array_equal(depth.values[rounded.levels][clear], nearest(scaled, depth)[clear])


def test_no_single_level_is_far_from_the_best():
    """Coordinate descent ends where changing one level gains nothing, but for the last fit of scales."""
    weight, inputs = problem(m=6, n=24)
    rest = weight.copy()
    (rounded,) = round_cells(rest, [whole(weight, Depth.TWO)], inputs)
    error = inputs.error(rest)
    gains = []
    for i, j in np.ndindex(weight.shape):
        for level in range(4):
            other = rest.copy()
            other[i, j] = weight[i, j] - rounded.scales[i] * (level - 1.5)
            gains.append(error - inputs.error(other))
    assert max(gains) <= 1e-3 * error


def test_cells_are_rounded_together_and_nothing_else_is_stored():
    weight, inputs = problem(n=70)
    cells = [
        Cell(slice(0, 20), slice(0, 30), Depth.FOUR),
        Cell(slice(0, 9), slice(30, 70), Depth.TWO),
        Cell(slice(12, 20), slice(40, 70), Depth.SIX),
    ]
    rest = weight.copy()
    rounded = round_cells(rest, cells, inputs)
    stored = np.zeros(weight.shape)
    for cell, result in zip(cells, rounded, strict=True):
        stored[cell.rows, cell.columns] = decoded(result, cell.depth)
    np.testing.assert_allclose(rest, weight - stored, atol=1e-5)
    assert not stored[9:12, 30:].any()
    # Columns that are stored make up for those that are not.
    alone = weight.copy()
    for cell in cells:
        part = alone[cell.rows, cell.columns].copy()
        (result,) = round_cells(part, [whole(part, cell.depth)], Moments.of_root(None, part.shape[1]))
        alone[cell.rows, cell.columns] -= decoded(result, cell.depth)
    assert inputs.error(rest) < inputs.error(alone)


def test_rows_do_not_depend_on_each_other(monkeypatch):
    weight, inputs = problem(m=200)
    (all_rows,) = round_cells(weight.copy(), [whole(weight, Depth.TWO)], inputs)
    monkeypatch.setattr("hmatrix.allocation.rounding._ENTRIES", 1)
    (strips,) = round_cells(weight.copy(), [whole(weight, Depth.TWO)], inputs)
    # Products of other shapes round otherwise, which may tip a level here and there.
    assert (all_rows.levels != strips.levels).mean() < 0.01


@every_depth
def test_zero_rows_stay_zero(depth):
    weight, inputs = problem()
    weight[3] = 0
    rest = weight.copy()
    (rounded,) = round_cells(rest, [whole(weight, depth)], inputs)
    assert not rest[3].any()
    assert not decoded(rounded, depth)[3].any()


def test_no_cells():
    weight, inputs = problem()
    rest = weight.copy()
    assert round_cells(rest, [], inputs) == []
    np.testing.assert_array_equal(rest, weight)
