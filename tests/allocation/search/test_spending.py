from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from matrices import random_matrix

from hmatrix.allocation.error.moments import Moments, moments
from hmatrix.allocation.search.arrangements import of_index
from hmatrix.allocation.search.candidates import Candidates
from hmatrix.allocation.search.costs import Bytes
from hmatrix.allocation.search.depths import Depth
from hmatrix.allocation.search.leaf_forms import DENSE_FORMS, Form, rank_grid
from hmatrix.allocation.search.sides import Side
from hmatrix.allocation.search.spending import Pruner, spend
from hmatrix.codes.precision import Precision
from hmatrix.partitions.cluster import build_cluster_tree
from hmatrix.partitions.coordinates import Points
from hmatrix.partitions.splitters import Automatic


def side(size, leaf_size):
    index = of_index(leaf_size)
    return Side(build_cluster_tree(index.coordinates(size), index.splitter))


def block_matrix(m=40, n=48, seed=0):
    """Blocks of very different sizes, some of low rank, one zero."""
    A = random_matrix(m, n, np.float32, seed)
    A[: m // 2, : n // 2] = 5 * random_matrix(m // 2, 1, np.float32) @ random_matrix(1, n // 2, np.float32)
    A[m // 2 :, n // 2 :] = 0
    A[: m // 4, n // 2 :] *= 0.01
    return A


def candidates(A, leaf_size=20, inputs=None):
    m, n = A.shape
    inputs = Moments.of_root(None, n) if inputs is None else inputs
    return Candidates(A, inputs, side(m, leaf_size), side(n, leaf_size))


def least(found, cost, price, levels=(0, 0), row=0, column=0):
    """The least ``error + price cost`` of a block, by trying everything."""
    r, c = levels
    rows, columns = found.rows, found.columns
    sizes = rows.sizes[r][row : row + 1][:, None], columns.sizes[c][column : column + 1]
    costs = [float(cost.of_form(form, *sizes)[0, 0]) for form in found.forms(levels)]
    options = [float((found.errors(levels)[row, column] + price * np.array(costs)).min())]
    if r < rows.depth:
        sons = [son for son in rows.sons[r][row] if son < len(rows.levels[r + 1])]
        options.append(sum(least(found, cost, price, (r + 1, c), son, column) for son in sons))
    if c < columns.depth:
        sons = [son for son in columns.sons[c][column] if son < len(columns.levels[c + 1])]
        options.append(sum(least(found, cost, price, (r, c + 1), row, son) for son in sons))
    return min(options)


def sizes(piece):
    return np.array(piece.rows.stop - piece.rows.start), np.array(piece.columns.stop - piece.columns.start)


def coverage(pieces, shape):
    times = np.zeros(shape, int)
    for piece in pieces:
        times[piece.rows, piece.columns] += 1
    return times


@pytest.mark.parametrize("price", [1e3, 3.0, 0.1, 3e-3, 1e-5, 0.0])
@pytest.mark.parametrize("leaf_size", [12, 20])
def test_nothing_is_better_than_what_is_found(price, leaf_size):
    A = block_matrix()
    found, cost = candidates(A, leaf_size), Bytes()
    value, *_ = Pruner(found, cost)._solve(price)
    assert value == pytest.approx(least(found, cost, price), rel=1e-9)


@pytest.mark.parametrize("price", [10.0, 0.1, 1e-3])
def test_pieces_cover_the_matrix_once(price):
    A = block_matrix(41, 53)
    pieces = Pruner(candidates(A, 7), Bytes()).prune(price)
    assert (coverage(pieces, A.shape) == 1).all()


def test_the_structure_is_found():
    A = block_matrix()
    pieces = Pruner(candidates(A), Bytes()).prune(2e-3)
    of = {(piece.rows.start, piece.columns.start): piece.form for piece in pieces}
    assert of[0, 0].rank == 1
    assert next(p.form for p in pieces if p.rows.start >= 20 and p.columns.start >= 24) == Form()


def test_neighbours_of_one_form_are_joined():
    A = random_matrix(40, 48, np.float32)
    found = candidates(A, 10)
    for price in np.geomspace(1, 1e-6, 12):
        pieces = Pruner(found, Bytes()).prune(price)
        for one in pieces:
            for other in pieces:
                same = one.form == other.form and not one.form.rank
                beside = one.rows == other.rows and one.columns.stop == other.columns.start
                below = one.columns == other.columns and one.rows.stop == other.rows.start
                assert not (same and (beside or below))


def test_the_bound_lies_below_what_prices_reach():
    found, cost = candidates(block_matrix()), Bytes()
    pruner = Pruner(found, cost)
    previous = np.inf
    for price in np.geomspace(1e2, 1e-6, 25):
        pieces = pruner.prune(price)
        error = sum(piece.error for piece in pieces)
        spent = sum(float(cost.of_form(p.form, *sizes(p))) for p in pieces)
        # Joining saves bytes that the bound does not know of.
        assert pruner.dual.bound(spent + 400) <= error * (1 + 1e-9) + 1e-12
        assert error <= previous + 1e-9
        previous = error


def test_the_curve_is_convex_and_falls():
    costs, errors = Pruner(candidates(block_matrix()), Bytes()).curve()
    assert (np.diff(costs) > 0).all()
    assert (np.diff(errors) <= 0).all()
    slopes = np.diff(errors) / np.diff(costs)
    assert (np.diff(slopes) >= -1e-9 * np.abs(slopes).max()).all()


def test_spending_stays_within_what_is_left():
    A = random_matrix(64, 64, np.float32)
    cost = Bytes()
    pieces = Pruner(candidates(A, 32), cost).prune(1e-2)

    def total(pieces):
        return sum(float(cost.of_form(p.form, *sizes(p))) for p in pieces)

    for left in (0, 30, 300, 1000):
        richer = spend(pieces, left, cost, rounds=False)
        assert (coverage(richer, A.shape) == 1).all()
        assert total(richer) <= total(pieces) + left
        assert sum(p.error for p in richer) <= sum(p.error for p in pieces)
    assert spend(pieces, 0, cost, rounds=False) is pieces
    assert sum(p.error for p in spend(pieces, 1000, cost, rounds=False)) < sum(p.error for p in pieces)


def test_predicted_errors_of_floats_and_ranks_are_exact():
    A = block_matrix()
    found = candidates(A)
    for piece in found.whole():
        form = piece.form
        if form == Form():
            assert piece.error == pytest.approx(np.square(A, dtype=float).sum(), rel=1e-5)
        elif form == Form(Precision.FLOAT32):
            assert piece.error == 0
        elif form.dense is None and form.factors is Precision.FLOAT32:
            tail = np.linalg.svd(A.astype(float), compute_uv=False)[form.rank :]
            assert piece.error == pytest.approx(np.square(tail).sum(), rel=1e-3, abs=1e-4)


def test_errors_count_by_the_moments():
    A = random_matrix(40, 48, np.float32)
    X = np.random.default_rng(0).standard_normal((60, 48)) * np.where(np.arange(48) < 24, 10, 0.1)
    inputs = moments(A, X)
    pieces = {piece.form: piece for piece in candidates(A, inputs=inputs).whole()}
    assert pieces[Form()].error == pytest.approx(inputs.error(A), rel=1e-4)
    tail = np.linalg.svd((A @ inputs.root).astype(float), compute_uv=False)[3:]
    assert pieces[Form(None, 3, Precision.FLOAT32)].error == pytest.approx(np.square(tail).sum(), rel=1e-3)


def test_trees_with_leaves_on_several_levels():
    points = np.concatenate([np.linspace(0, 0.01, 14), [0.5, 1.0]])
    tree = build_cluster_tree(Points(points)(16), Automatic(leaf_size=4, balance=0.01))
    one = Side(tree)
    for level in one.levels:
        assert [level[0].start, *(cluster.stop for cluster in level)] == [0, *(c.stop for c in level)]
        assert all(a.stop == b.start for a, b in pairwise(level))
    A = random_matrix(16, 16, np.float32)
    found = Candidates(A, Moments.of_root(None, 16), one, one)
    value, *_ = Pruner(found, Bytes())._solve(1e-2)
    assert value == pytest.approx(least(found, Bytes(), 1e-2), rel=1e-9)
    assert (coverage(Pruner(found, Bytes()).prune(1e-2), (16, 16)) == 1).all()


def test_rank_grid():
    assert rank_grid(9) == (1, 2, 3, 4, 5, 6, 7, 8, 9)
    assert rank_grid(1) == (1,)
    grid = rank_grid(1000)
    assert grid[-1] <= 1000
    assert max(b / a for a, b in pairwise(grid[8:])) <= 1.13


def test_forms():
    assert DENSE_FORMS[0] == Form()
    assert Form(Depth.SIX).planes == (Precision.TRELLIS4P, Precision.TRELLIS2)
    assert Form(Precision.BFLOAT16).planes == (Precision.BFLOAT16,)
    assert Form(None, 3).planes == ()


@dataclass(frozen=True)
class _Free:
    """A cost that is nothing."""

    unit = 1.0

    def of_form(self, form, rows, columns):  # noqa: ARG002
        return np.zeros(np.broadcast_shapes(rows.shape, columns.shape))


def test_what_costs_nothing_is_kept_exactly():
    pieces = Pruner(candidates(block_matrix()), _Free()).prune(1.0)
    assert sum(piece.error for piece in pieces) == 0
