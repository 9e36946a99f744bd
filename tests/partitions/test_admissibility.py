import numpy as np
import pytest

import hmatrix as hm
from hmatrix.errors import ArgumentError
from hmatrix.partitions.cluster import Cluster


def box(*sides):
    lower, upper = np.array(sides, dtype=float).T
    return Cluster(0, 1, lower, upper)


def both_ways(admissibility, a, b):
    assert admissibility(a, b) == admissibility(b, a)
    return admissibility(a, b)


@pytest.mark.parametrize(
    ("rows", "columns", "largest", "smallest"),
    [
        # The largest and the smallest diameter as multiples of the distance.
        (box((0, 1)), box((2, 3)), 1.0, 1.0),
        (box((0, 1)), box((2, 6)), 4.0, 1.0),
        (box((0, 3), (0, 4)), box((6, 6), (8, 20)), 2.4, 1.0),
        (box((0, 0)), box((1, 1)), 0.0, 0.0),
    ],
)
@pytest.mark.parametrize("eta", [0.5, 1.0, 2.0, 2.4, 4.0])
def test_strong(rows, columns, largest, smallest, eta):
    assert both_ways(hm.Strong(eta), rows, columns) == (largest <= eta)
    assert both_ways(hm.StrongMin(eta), rows, columns) == (smallest <= eta)


@pytest.mark.parametrize("admissibility", [hm.Strong(1e9), hm.StrongMin(1e9)])
@pytest.mark.parametrize("columns", [box((0, 1)), box((1, 2)), box((0.5, 2)), box((0, 0)), box((-1, 4))])
def test_strong_clusters_are_apart(admissibility, columns):
    assert not both_ways(admissibility, box((0, 1)), columns)


@pytest.mark.parametrize("admissibility", [hm.Strong(), hm.StrongMin(), hm.Weak()])
def test_points_at_the_same_place_are_not_apart(admissibility):
    assert not both_ways(admissibility, box((3, 3)), box((3, 3)))


@pytest.mark.parametrize("admissibility", [hm.Strong, hm.StrongMin])
@pytest.mark.parametrize("eta", [0.0, -1.0, np.inf, np.nan, "2", True])
def test_bad_eta(admissibility, eta):
    with pytest.raises(ArgumentError, match="eta"):
        admissibility(eta)


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        (box((0, 1)), box((1, 2)), True),
        (box((0, 1)), box((3, 4)), True),
        (box((0, 1)), box((0.9, 2)), True),
        (box((0, 1)), box((0.8, 2)), False),
        (box((0, 1)), box((0, 1)), False),
        (box((0, 1)), box((0.2, 0.4)), False),
        (box((0, 1), (0, 1)), box((0, 1), (1, 2)), True),
        (box((0, 1), (0, 1)), box((0.5, 1.5), (0.5, 1.5)), False),
        (box((0, 1), (0, 1)), box((0, 1), (0, 1)), False),
        (box((0, 0)), box((0, 0)), False),
        (box((0, 1), (2, 2)), box((0, 1), (2, 2)), False),
        (box((0, 1), (0, 0)), box((0, 1), (-1, 1)), False),
        (box((0.3, 0.3)), box((0, 1)), False),
        (box((0.3, 0.3)), box((0.4, 0.4)), True),
    ],
)
def test_weak(rows, columns, expected):
    assert both_ways(hm.Weak(), rows, columns) is expected


@pytest.mark.parametrize(
    ("shape", "coordinates", "leaves"),
    [((1000, 1000), hm.Index(), 32), ((1000, 1000), hm.ScaledIndex(), 32), ((1000, 1280), hm.ScaledIndex(), 32)],
)
def test_weak_partition_is_that_of_hodlr(shape, coordinates, leaves):
    tree = hm.partition(shape, coordinates=coordinates, admissibility=hm.Weak())
    rows, columns = list(tree.rows.leaves()), list(tree.columns.leaves())
    assert [(leaf.rows, leaf.columns) for leaf in tree.near_field] == list(zip(rows, columns, strict=True))
    assert (len(tree.near_field), len(tree.far_field)) == (leaves, 2 * (leaves - 1))


def test_overlap_makes_up_for_unequal_halves():
    tree = hm.partition((1000, 1280), coordinates=hm.ScaledIndex(), admissibility=hm.Weak(overlap=0.0))
    assert len(tree.near_field) > 32


@pytest.mark.parametrize("overlap", [-0.1, 1.0, 2.0, np.nan, None])
def test_bad_overlap(overlap):
    with pytest.raises(ArgumentError, match="overlap"):
        hm.Weak(overlap)


def test_rounding_does_not_decide_whether_clusters_touch():
    tree = hm.partition(
        (999, 999), coordinates=hm.ScaledIndex(), splitter=hm.Cardinality(1), admissibility=hm.Weak(overlap=0.0)
    )
    assert (len(tree.near_field), len(tree.far_field)) == (999, 2 * 998)


def test_everywhere():
    assert hm.Everywhere()(box((0, 1)), box((0, 1)))
    (leaf,) = hm.partition((100, 200), admissibility=hm.Everywhere()).leaves()
    assert leaf.admissible
    assert (leaf.rows.slice, leaf.columns.slice) == (slice(0, 100), slice(0, 200))


def test_weak_on_a_line_in_the_plane():
    points = hm.Points(np.stack([np.arange(64.0), np.zeros(64)], axis=1))
    tree = hm.partition((64, 64), coordinates=points, splitter=hm.Cardinality(8), admissibility=hm.Weak())
    assert (len(tree.near_field), len(tree.far_field)) == (8, 14)


@pytest.mark.parametrize("admissibility", [hm.Strong(1.0), hm.StrongMin(1.0), hm.Strong(), hm.Weak()])
@pytest.mark.parametrize("scale", [0.1, 1 / 3, 0.37])
def test_scaled_points_have_the_same_partition(admissibility, scale):
    """Many diameters of a grid's clusters equal their distances, and scaling rounds each of them."""
    grid = np.array([[x, y] for x in range(12) for y in range(12)], float)
    sides = [hm.Points(grid * factor, radius=0.5 * factor) for factor in (1, scale)]
    own, scaled = (
        [
            (leaf.rows.start, leaf.columns.start, leaf.admissible)
            for leaf in hm.partition(
                (144, 144), coordinates=side, splitter=hm.Cardinality(4), admissibility=admissibility
            ).leaves()
        ]
        for side in sides
    )
    assert own == scaled
