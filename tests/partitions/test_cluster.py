import itertools
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hmatrix.errors import ArgumentError
from hmatrix.partitions.cluster import Cluster, Supports, build_cluster_tree
from hmatrix.partitions.coordinates import Index
from hmatrix.partitions.splitters import Automatic, Cardinality, Geometric, PrincipalDirection

SPLITTERS = [Cardinality, Geometric, PrincipalDirection, Automatic]
every_splitter = pytest.mark.parametrize("splitter", SPLITTERS)
coordinate = st.one_of(st.sampled_from([0.0, 1.0, -1.0]), st.floats(-1e3, 1e3))


@st.composite
def supports(draw):
    size, dimension = draw(st.integers(1, 40)), draw(st.integers(1, 3))
    points = draw(arrays(np.float64, (size, dimension), elements=coordinate))
    return Supports(points, draw(st.sampled_from([0.0, 0.5])))


def depth(tree):
    deepest, level = 0, [tree.root]
    while level := [son for cluster in level for son in cluster.sons]:
        deepest += 1
    return deepest


@every_splitter
@given(supports=supports(), leaf_size=st.integers(1, 8))
def test_tree(splitter, supports, leaf_size):
    tree = build_cluster_tree(supports, splitter(leaf_size))
    assert sorted(tree.permutation) == list(range(len(supports.points)))
    assert tree.permutation.dtype == np.int32
    assert (tree.root.start, tree.root.stop, tree.size) == (0, len(supports.points), len(supports.points))
    for cluster in tree.clusters():
        inside = supports.points[tree.permutation[cluster.slice]]
        np.testing.assert_array_equal(cluster.lower, inside.min(axis=0) - supports.radius)
        np.testing.assert_array_equal(cluster.upper, inside.max(axis=0) + supports.radius)
        assert cluster.is_leaf == (cluster.size <= leaf_size) == (not cluster.sons)
        if cluster.sons:
            edges = [cluster.start, *(son.stop for son in cluster.sons)]
            assert [son.start for son in cluster.sons] == edges[:-1]
            assert edges[-1] == cluster.stop
            assert all(son.size > 0 for son in cluster.sons)


@given(supports=supports(), leaf_size=st.integers(1, 8))
def test_iteration_is_in_tree_order(supports, leaf_size):
    tree = build_cluster_tree(supports, Cardinality(leaf_size))
    assert [(cluster.start, -cluster.stop) for cluster in tree.clusters()] == sorted(
        (cluster.start, -cluster.stop) for cluster in tree.clusters()
    )
    leaves = list(tree.leaves())
    assert [leaf.start for leaf in leaves] == [0, *(leaf.stop for leaf in leaves[:-1])]


@given(supports=supports(), leaf_size=st.integers(1, 8), splitter=st.sampled_from([Cardinality, PrincipalDirection]))
def test_first_half_is_the_larger(supports, leaf_size, splitter):
    for cluster in build_cluster_tree(supports, splitter(leaf_size)).clusters():
        if cluster.sons:
            first, second = cluster.sons
            assert first.size - second.size in (0, 1)


@pytest.mark.parametrize(("size", "leaves"), [(1000, {31, 32}), (1280, {40}), (60, {60}), (61, {30, 31})])
def test_leaf_sizes_of_the_published_study(size, leaves):
    tree = build_cluster_tree(Index()(size), Cardinality(leaf_size=60))
    assert {leaf.size for leaf in tree.leaves()} == leaves
    np.testing.assert_array_equal(tree.permutation, np.arange(size))


def test_an_index_fills_its_interval():
    tree = build_cluster_tree(Index()(10), Cardinality(leaf_size=3))
    for cluster in tree.clusters():
        assert (cluster.lower[0], cluster.upper[0]) == (cluster.start, cluster.stop)


@every_splitter
@given(supports=supports())
def test_same_tree_again(splitter, supports):
    first, second = (build_cluster_tree(supports, splitter(2)) for _ in range(2))
    np.testing.assert_array_equal(first.permutation, second.permutation)


@every_splitter
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_equal_points_are_halved(splitter, dimension):
    tree = build_cluster_tree(Supports(np.ones((33, dimension))), splitter(1))
    assert (depth(tree), sum(1 for _ in tree.leaves())) == (6, 33)


@pytest.mark.parametrize(("splitter", "deepest"), [(Cardinality, 11), (Geometric, 550), (Automatic, 11)])
def test_exponentially_clustered_points(splitter, deepest):
    tree = build_cluster_tree(Supports(2.0 ** -np.arange(1050)[:, None]), splitter(1))
    np.testing.assert_array_equal(tree.permutation, np.arange(1050)[::-1])
    assert {leaf.size for leaf in tree.leaves()} == {1}
    assert depth(tree) == deepest


def test_principal_direction_of_exponentially_clustered_points():
    # The tails of these points are lost beside their mean, so that their order is not theirs; the tree is one.
    tree = build_cluster_tree(Supports(2.0 ** -np.arange(1050)[:, None]), PrincipalDirection(1))
    assert sorted(tree.permutation) == list(range(1050))
    assert (depth(tree), {leaf.size for leaf in tree.leaves()}) == (11, {1})


def box(*sides):
    lower, upper = np.array(sides, dtype=float).T
    return Cluster(0, 1, lower, upper)


@pytest.mark.parametrize(
    ("other", "distance"),
    [
        (box((4, 6), (5, 6)), 5.0),
        (box((1, 2), (1, 2)), 0.0),
        (box((0.5, 3), (0, 1)), 0.0),
        (box((-2, -1), (0, 1)), 1.0),
    ],
)
def test_distance_and_diameter(other, distance):
    cluster = box((0, 1), (0, 1))
    assert cluster.distance(other) == other.distance(cluster) == distance
    assert box((0, 3), (2, 6)).diameter == 5.0


@dataclass(frozen=True)
class UserSplitter:
    order: tuple[int, ...]
    first: int
    leaf_size: int = 2

    def __call__(self, points):  # noqa: ARG002
        return np.array(self.order), self.first


def test_a_users_splitter():
    tree = build_cluster_tree(Supports(np.arange(3.0)[:, None]), UserSplitter((2, 0, 1), 1))
    np.testing.assert_array_equal(tree.permutation, [2, 0, 1])
    assert [son.size for son in tree.root.sons] == [1, 2]


@dataclass(frozen=True)
class OneByOne:
    leaf_size: int = 1

    def __call__(self, points):
        return np.arange(len(points)), 1


def test_a_tree_deeper_than_the_stack():
    size = 2 * sys.getrecursionlimit()
    tree = build_cluster_tree(Supports(np.arange(size, dtype=float)[:, None]), OneByOne())
    assert depth(tree) == size - 1
    assert sum(1 for _ in tree.clusters()) == 2 * size - 1


@pytest.mark.parametrize(
    ("order", "first"), [((0, 1, 2), 0), ((0, 1, 2), 3), ((0, 1, 2), 4), ((0, 0, 1), 1), ((0, 1), 1), ((0, 1, 3), 1)]
)
def test_unusable_splits(order, first):
    with pytest.raises(ArgumentError, match="splitter"):
        build_cluster_tree(Supports(np.arange(3.0)[:, None]), UserSplitter(order, first))


@pytest.mark.parametrize(
    ("points", "came"),
    [
        (np.zeros(3), "has 1 dimensions"),
        (np.zeros((0, 2)), "got 0"),
        (np.zeros((2, 0)), "got 0"),
        (np.array([[np.nan], [0.0]]), "has 1 entries that are NaN"),
        (np.array([[np.inf], [-np.inf]]), "has 2 entries that are NaN"),
        (np.zeros((2, 2), dtype=complex), "complex128"),
        (np.array([["a"]]), "<U1"),
    ],
)
def test_bad_points(points, came):
    with pytest.raises(ArgumentError, match=f"points.*{came}"):
        Supports(points)


@pytest.mark.parametrize("radius", [-0.5, np.nan, np.inf, None])
def test_bad_radii(radius):
    with pytest.raises(ArgumentError, match="radius"):
        Supports(np.zeros((2, 1)), radius)


def test_pairs_of_leaf_clusters_have_disjoint_boxes():
    leaves = list(build_cluster_tree(Index()(100), Geometric(7)).leaves())
    assert all(a.upper[0] <= b.lower[0] for a, b in itertools.pairwise(leaves))
