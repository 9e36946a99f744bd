import numpy as np
import pytest

from hmatrix.errors import ArgumentError
from hmatrix.partitions.cluster import Supports, build_cluster_tree
from hmatrix.partitions.splitters import Automatic, Cardinality, Geometric, PrincipalDirection

SPLITTERS = [Cardinality, Geometric, PrincipalDirection, Automatic]
every_splitter = pytest.mark.parametrize("splitter", SPLITTERS)


@every_splitter
def test_cut_across_the_longest_side(splitter):
    points = np.array([[x, y] for x in (0.0, 1.0) for y in (0.0, 9.0, 2.0, 7.0)])
    tree = build_cluster_tree(Supports(points), splitter(4))
    lower, upper = (set(points[tree.permutation[son.slice], 1]) for son in tree.root.sons)
    assert (lower, upper) == ({0.0, 2.0}, {7.0, 9.0})


@pytest.mark.parametrize(
    ("splitter", "first"), [(Cardinality(1), 2), (Geometric(1), 3), (Automatic(1), 3), (Automatic(1, 0.3), 2)]
)
def test_where_it_cuts(splitter, first):
    order, count = splitter(np.array([[10.0], [2.0], [1.0], [0.0]]))
    np.testing.assert_array_equal(order, [3, 2, 1, 0])
    assert count == first


def test_principal_direction_ascends_along_its_largest_component():
    points = np.arange(5.0)[:, None] * np.array([2.0, -1.0])
    order, count = PrincipalDirection(1)(points[::-1])
    np.testing.assert_array_equal(order, [4, 3, 2, 1, 0])
    assert count == 3


def test_principal_direction_is_not_the_longest_side():
    # A stick along (1, 1), and beside it a point because of which the box is longer in y.
    points = np.array([*([t, t] for t in range(6)), [0.2, 5.2]])
    assert PrincipalDirection(1)(points)[0].tolist() == [0, 1, 2, 6, 3, 4, 5]
    assert Cardinality(1)(points)[0].tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_points_are_not_changed():
    points = np.random.default_rng(0).standard_normal((50, 2))
    before = points.copy()
    build_cluster_tree(Supports(points), Geometric(3))
    np.testing.assert_array_equal(points, before)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8])
def test_points_of_other_types(dtype):
    points = np.array([[9], [0], [3], [6]], dtype=dtype)
    tree = build_cluster_tree(Supports(points, 0.5), Cardinality(1))
    np.testing.assert_array_equal(tree.permutation, [1, 2, 3, 0])
    assert (tree.root.lower[0], tree.root.upper[0]) == (-0.5, 9.5)


@every_splitter
@pytest.mark.parametrize("leaf_size", [0, -1, 2.0, True, "2", None])
def test_bad_leaf_sizes(splitter, leaf_size):
    with pytest.raises(ArgumentError, match="leaf_size"):
        splitter(leaf_size)


@pytest.mark.parametrize("balance", [0.0, -0.1, 0.51, np.nan, "0.3"])
def test_bad_balances(balance):
    with pytest.raises(ArgumentError, match="balance"):
        Automatic(balance=balance)
