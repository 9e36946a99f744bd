import numpy as np
import pytest
from correlations import correlated, in_parts
from matrices import random_matrix
from roundings import decoded, problem

import hmatrix as hm
from hmatrix.allocation.error.row_moments import RowMoments
from hmatrix.allocation.rounding.second_order import Cell, round_cells
from hmatrix.allocation.search.depths import Depth
from hmatrix.errors import ArgumentError

M = 40


def coupled(m=M, seed=3):
    """Moments of rows that act mostly together, and their matrix in float64."""
    vectors = correlated(500, m, seed=seed).astype(np.float32).reshape(5, 100, m)
    found = RowMoments.of(vectors, m)
    root = found.root.astype(float)
    return found, root @ root.T


def together(B, E, inputs):
    return np.trace(B @ E @ (inputs.root.astype(float) @ inputs.root.T) @ E.T)


def test_the_second_moment_is_that_of_the_derivatives():
    vectors = correlated(3000, M, seed=1).reshape(5, 600, M)
    found = RowMoments.of(vectors, M)
    flat = vectors.reshape(-1, M)
    wanted = flat.T @ flat
    B = found.root.astype(float) @ found.root.T
    # A tenth of the correlations is the least that is taken from them.
    np.testing.assert_allclose(B / np.trace(B), wanted / np.trace(wanted), atol=0.12 * wanted.max() / np.trace(wanted))
    assert not np.tril(found.root, -1).any()


def test_independent_rows_hardly_act_together():
    B = RowMoments.of(in_parts(5, 20), M).root
    if B is not None:
        B = B.astype(float) @ B.T
        assert np.abs(B - np.diag(np.diag(B))).max() < 0.1 * np.diag(B).min()
    E = random_matrix(M, 7)
    assert RowMoments().weighted(E) is E
    assert RowMoments().owed(E, slice(8, 16)) is None


def test_what_is_owed_is_what_leaves_the_least_when_later_rows_answer_too():
    moments, B = coupled()
    E = random_matrix(M, 7, np.float32)
    rows = slice(12, 20)
    best = np.linalg.solve(B[12:, 12:], -B[12:, :12] @ E[:12])
    np.testing.assert_allclose(moments.owed(E, rows), -best[:8], atol=1e-4)
    assert moments.owed(E, slice(0, 8)) is None


def test_weighted_rows_count_by_themselves():
    moments, B = coupled()
    E = random_matrix(M, 7, np.float32)
    assert np.square(moments.weighted(E)).sum() == pytest.approx(np.trace(E.T @ B @ E), rel=1e-4)


def test_permuted():
    moments, B = coupled()
    order = np.random.default_rng(0).permutation(M)
    root = moments.permuted(order).root.astype(float)
    np.testing.assert_allclose(root @ root.T, B[np.ix_(order, order)], rtol=1e-3, atol=1e-3)
    assert RowMoments().permuted(order).root is None


@pytest.mark.parametrize("depth", [Depth.TWO, Depth.THREE, Depth.FOUR, Depth.FIVE, Depth.EVEN_FOUR, Depth.EIGHT])
def test_rows_make_up_for_those_before_them(depth):
    m, n = 128, 96
    weight, inputs = problem(m, n)
    moments, B = coupled(m)
    # The last columns of the first rows are not stored, and are left out of the comparison.
    cells = [Cell(slice(0, 70), slice(0, 64), depth), Cell(slice(70, m), slice(0, n), depth)]
    left = {}
    for name, given in (("alone", RowMoments()), ("together", moments)):
        rest = weight.copy()
        rounded = round_cells(rest, cells, inputs, given)
        stored = np.zeros(weight.shape)
        for cell, leaves in zip(cells, rounded, strict=True):
            stored[cell.rows, cell.columns] = decoded(leaves)
        np.testing.assert_allclose(rest, weight - stored, atol=2e-5)
        left[name] = together(B, rest[:, :64].astype(float), _first(inputs, 64))
    assert left["together"] < 0.8 * left["alone"]


def _first(inputs, n):
    return inputs.permuted(np.arange(n))


@pytest.mark.parametrize("coordinates", [hm.Index(), hm.Points(random_matrix(64, 1)), None])
@pytest.mark.parametrize("activations", ["exact", "int8"])
def test_the_error_is_that_of_rows_together(activations, coordinates):
    weight, X = random_matrix(64, 48, np.float32), correlated(200, 48).astype(np.float32)
    vectors = correlated(500, 64, seed=3).reshape(5, 100, 64)
    sides = None if coordinates is None else (coordinates, hm.Index())
    allocator = hm.Allocator(weight, calibration=X, row_derivatives=vectors, activations=activations, coordinates=sides)
    found = allocator.allocate(hm.Budget(storage=0.2))
    B = RowMoments.of(vectors, 64).root.astype(float)
    C = allocator._weighted.moments.root.astype(float)
    E = weight - found.matrix.to_dense().astype(float)
    lost = np.square(B.T @ E @ C).sum()
    if activations == "int8":
        exact = X @ found.matrix.to_dense().T
        lost += np.square((found.matrix.apply(X) - exact) @ B).sum(axis=1).mean()
    wanted = np.sqrt(lost / np.square(B.T @ weight @ C).sum())
    assert found.measured_error == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            np.ones((5, 8, 39)),
            r"row_derivatives: has the shape \(5, 8, 39\); give \(parts, rows, 40\), at least 2 parts",
        ),
        (np.full((2, 4, 40), np.nan), "row_derivatives: has 320 entries that are NaN or infinite"),
    ],
)
def test_unusable_derivatives(rows, message):
    with pytest.raises(ArgumentError, match=message):
        hm.Allocator(random_matrix(40, 30), row_derivatives=rows)


def test_rows_are_weighted_one_way():
    weight = random_matrix(40, 30)
    with pytest.raises(ArgumentError, match="row_derivatives: are given with row_weights"):
        hm.Allocator(weight, row_weights=np.ones(40), row_derivatives=np.ones((2, 4, 40)))
