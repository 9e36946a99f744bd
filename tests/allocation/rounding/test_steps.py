import numpy as np
import pytest
from matrices import random_matrix

from hmatrix import _core
from hmatrix.allocation.rounding.steps import steps_of
from hmatrix.codes.precision import Precision

integers = pytest.mark.parametrize("precision", [p for p in Precision if p.is_integer and p is not Precision.LLOYD4])
N = 75


def root(n=N):
    return np.triu(random_matrix(n, n, np.float32, seed=3) / 3) + np.eye(n, dtype=np.float32)


@integers
def test_steps_cover_the_columns(precision):
    columns = slice(20, 70)
    steps = steps_of(columns, precision, root())
    assert [step.columns.start for step in steps[1:]] == [step.columns.stop for step in steps[:-1]]
    assert (steps[0].columns.start, steps[-1].columns.stop) == (20, 70)
    for step in steps:
        assert (step.within.start, step.within.stop) == (step.columns.start - 20, step.columns.stop - 20)
        assert sorted(step.order) == list(range(step.columns.stop - step.columns.start))


@integers
def test_what_is_owed_when_columns_before_are_known(precision):
    """The error of the columns up to the step: what its visits owe, and their own errors, by another root."""
    R = root().astype(float)
    for step in steps_of(slice(20, 70), precision, root()):
        errors = random_matrix(4, N, seed=5)
        errors[:, step.columns.stop :] = 0
        before = slice(0, step.columns.start)
        owed = step.forward.owed((errors[:, before] @ R[before, step.columns]).astype(np.float32))
        cost = np.square(owed + errors[:, step.columns][:, step.order] @ step.forward.root).sum(axis=1)
        np.testing.assert_allclose(cost, np.square((errors @ R)[:, step.columns]).sum(axis=1), rtol=1e-4)
        np.testing.assert_array_equal(step.forward.root, np.triu(step.forward.root))


@integers
def test_what_is_owed_when_all_others_are_known(precision):
    """Costs differ by as much as the error of the output does."""
    R = root().astype(float)
    C = R @ R.T
    for step in steps_of(slice(20, 70), precision, root()):
        one, other = random_matrix(4, N, seed=6), random_matrix(4, N, seed=6)
        other[:, step.columns] = random_matrix(4, step.columns.stop - step.columns.start, seed=7)
        rest = one.copy()
        rest[:, step.columns] = 0
        owed = step.descending.owed((rest @ C[:, step.columns]).astype(np.float32))
        costs = [step.cost(errors[:, step.columns].astype(np.float32), owed) for errors in (one, other)]
        whole = [np.square(errors @ R).sum(axis=1) for errors in (one, other)]
        np.testing.assert_allclose(costs[1] - costs[0], whole[1] - whole[0], rtol=1e-3, atol=1e-3 * whole[0].max())
        np.testing.assert_array_equal(step.descending.root, np.triu(step.descending.root))


@integers
def test_codes_stand_for_the_values(precision):
    scale = np.float32(0.3)
    for step in steps_of(slice(20, 70), precision, root()):
        n = step.columns.stop - step.columns.start
        target, owed = random_matrix(6, n, np.float32), random_matrix(6, n, np.float32, seed=1)
        inverse = np.full((6, 1), 1 / scale, np.float32)
        for debts, factor in ((owed, step.forward), (None, None)):
            codes, values = step.nearest(target, inverse, factor, debts, 8)
            np.testing.assert_array_equal(precision.values(codes), values)
            assert codes.max() < 2**precision.bits


@pytest.mark.parametrize(("lowest", "highest", "zero"), [(1, 255, 128), (0, 15, 8), (0, 3, 1.5), (0, 1, 0.5)])
def test_evenly_spaced_values_make_up_for_the_columns_before(lowest, highest, zero):
    target, owed = 3 * random_matrix(7, 20, np.float32), random_matrix(7, 20, np.float32, seed=1)
    R = root(20)
    R[4, 4] = 0
    values = np.empty_like(target)
    _core.round_columns(target, owed, R, lowest, highest, zero, values)
    debts = owed.astype(float)
    for j in range(20):
        wanted = target[:, j] + (debts[:, j] / R[j, j] if R[j, j] else 0)
        nearest = np.clip(np.rint(wanted + zero), lowest, highest) - zero
        clear = np.abs(wanted + zero - np.floor(wanted + zero) - 0.5) > 1e-3
        np.testing.assert_array_equal(values[clear, j], nearest[clear])
        debts += np.multiply.outer(target[:, j] - values[:, j].astype(float), R[j])


def test_wrong_shapes_are_refused():
    a = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="shapes of some columns"):
        _core.round_columns(a, a, a, 0, 3, 1.5, a.copy())
