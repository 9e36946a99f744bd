import numpy as np
import pytest
from marks import slow
from matrices import random_matrix
from roundings import decoded, problem
from roundings import rounded as plainly

from hmatrix.allocation.error.moments import Moments
from hmatrix.allocation.rounding.second_order import Cell, round_cells
from hmatrix.allocation.search.depths import Depth

every_depth = pytest.mark.parametrize("depth", Depth)


def whole(weight, depth):
    return Cell(slice(0, len(weight)), slice(0, weight.shape[1]), depth)


@every_depth
@pytest.mark.parametrize("n", [slow(300), 5, 64])
def test_what_is_left_is_told(depth, n):
    weight, inputs = problem(n=n)
    rest = weight.copy()
    (leaves,) = round_cells(rest, [whole(weight, depth)], inputs)
    assert [leaf.precision for leaf in leaves] == list(depth.value)
    assert {leaf.group for leaf in leaves} == {n}
    np.testing.assert_allclose(rest, weight - decoded(leaves), atol=1e-5)


@every_depth
def test_less_is_left_of_the_output_than_by_rounding_to_the_nearest(depth):
    weight, inputs = problem()
    plain = inputs.error(weight - plainly(weight, depth))
    rest = weight.copy()
    round_cells(rest, [whole(weight, depth)], inputs)
    assert inputs.error(rest) < 0.75 * plain


@every_depth
def test_without_moments_entries_are_those_of_plain_rounding_or_better(depth):
    weight, unweighted = random_matrix(9, 133, np.float32), Moments.of_root(None, 133)
    rest = weight.copy()
    round_cells(rest, [whole(weight, depth)], unweighted)
    assert np.square(rest).sum() <= 1.001 * np.square(weight - plainly(weight, depth)).sum()


def test_no_single_word_is_far_from_the_best():
    """Of three columns, against all words that there are, by the scale that was found."""
    weight, inputs = problem(m=6, n=3)
    rest = weight.copy()
    ((leaf,),) = round_cells(rest, [whole(weight, Depth.FOUR)], inputs)
    codes = np.stack(np.meshgrid(*[np.arange(16, dtype=np.uint8)] * 3), axis=-1).reshape(-1, 3)
    values = leaf.precision.values(codes)
    for i in range(6):
        tried = np.square((weight[i] - leaf.scales[i] * values) @ inputs.root).sum(axis=1)
        assert np.square(rest[i] @ inputs.root).sum() <= 1.1 * tried.min() + 1e-9


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
        stored[cell.rows, cell.columns] = decoded(result)
    np.testing.assert_allclose(rest, weight - stored, atol=1e-5)
    assert not stored[9:12, 30:].any()
    # Columns that are stored make up for those that are not.
    alone = weight.copy()
    for cell in cells:
        part = alone[cell.rows, cell.columns].copy()
        (result,) = round_cells(part, [whole(part, cell.depth)], Moments.of_root(None, part.shape[1]))
        alone[cell.rows, cell.columns] -= decoded(result)
    assert inputs.error(rest) < inputs.error(alone)


def test_rows_do_not_depend_on_each_other(monkeypatch):
    weight, inputs = problem(m=200)
    (all_rows,) = round_cells(weight.copy(), [whole(weight, Depth.TWO)], inputs)
    monkeypatch.setattr("hmatrix.allocation.rounding.second_order._ENTRIES", 1)
    (strips,) = round_cells(weight.copy(), [whole(weight, Depth.TWO)], inputs)
    # Products of other shapes round otherwise, which may tip a level here and there.
    assert (all_rows[0].codes != strips[0].codes).mean() < 0.02


@every_depth
def test_zero_rows_stay_zero(depth):
    weight, inputs = problem()
    weight[3] = 0
    rest = weight.copy()
    (leaves,) = round_cells(rest, [whole(weight, depth)], inputs)
    assert not rest[3].any()
    assert not decoded(leaves)[3].any()


def test_no_cells():
    weight, inputs = problem()
    rest = weight.copy()
    assert round_cells(rest, [], inputs) == []
    np.testing.assert_array_equal(rest, weight)
