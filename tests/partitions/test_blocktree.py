import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import hmatrix as hm


def coordinates_of(kind, size):
    rng = np.random.default_rng(size)
    choices = {"index": hm.Index(), "scaled": hm.ScaledIndex(), "points": hm.Points(rng.standard_normal((size, 2)))}
    return choices[kind]


@st.composite
def trees(draw):
    """A block cluster tree and its admissibility."""
    shape = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    kind = draw(st.sampled_from(["index", "scaled", "points"]))
    splitter = draw(st.sampled_from([hm.Cardinality, hm.Geometric]))(draw(st.integers(1, 10)))
    eta = st.floats(0.25, 8)
    admissibility = draw(
        st.one_of(st.builds(hm.Strong, eta), st.builds(hm.StrongMin, eta), st.just(hm.Weak()), st.just(hm.Everywhere()))
    )
    sides = coordinates_of(kind, shape[0]), coordinates_of(kind, shape[1])
    return hm.partition(shape, coordinates=sides, splitter=splitter, admissibility=admissibility), admissibility


def painted(blocks, shape):
    """How often the blocks cover each entry."""
    count = np.zeros(shape, dtype=int)
    for block in blocks:
        count[block.rows.slice, block.columns.slice] += 1
    return count


def inner_blocks(tree):
    stack = [tree.root]
    while stack:
        block = stack.pop()
        if block.sons:
            yield block
        stack.extend(block.sons)


@given(trees())
def test_leaves_partition_the_matrix(drawn):
    tree, admissibility = drawn
    assert (painted(tree.leaves(), (tree.rows.size, tree.columns.size)) == 1).all()
    for leaf in tree.leaves():
        assert leaf.admissible == admissibility(leaf.rows, leaf.columns)
        assert leaf.admissible or (leaf.rows.is_leaf and leaf.columns.is_leaf)


@given(trees())
def test_sons_partition_their_father(drawn):
    tree, admissibility = drawn
    shape = tree.rows.size, tree.columns.size
    for block in inner_blocks(tree):
        np.testing.assert_array_equal(painted(block.sons, shape), painted([block], shape))
        assert not block.admissible
        assert not admissibility(block.rows, block.columns)
        assert {son.rows for son in block.sons} == set(block.rows.sons or (block.rows,))
        assert {son.columns for son in block.sons} == set(block.columns.sons or (block.columns,))


@given(trees())
def test_fields(drawn):
    tree, _ = drawn
    leaves = list(tree.leaves())
    assert tree.far_field == tuple(leaf for leaf in leaves if leaf.admissible)
    assert tree.near_field == tuple(leaf for leaf in leaves if not leaf.admissible)


def test_the_published_structure():
    tree = hm.partition(
        (1000, 1024),
        coordinates=hm.Index(),
        splitter=hm.Cardinality(leaf_size=60),
        admissibility=hm.Strong(eta=2.0),
    )
    assert (len(tree.far_field), len(tree.near_field)) == (157, 93)
    assert sum(leaf.rows.size + leaf.columns.size for leaf in tree.far_field) == 18_659
    assert sum(leaf.rows.size * leaf.columns.size for leaf in tree.near_field) == 92_992


def test_it_is_the_default():
    tree = hm.partition((1000, 1280))
    assert (len(tree.far_field), len(tree.near_field)) == (151, 87)


def test_a_pair_of_leaf_clusters_may_be_admissible():
    far_apart = hm.Points(np.zeros(3)), hm.Points(np.full(4, 9.0))
    (leaf,) = hm.partition((3, 4), coordinates=far_apart).leaves()
    assert leaf.rows.is_leaf
    assert leaf.columns.is_leaf
    assert leaf.admissible


def test_where_one_side_is_a_leaf_the_other_is_split():
    sides = hm.Index(), hm.Index()
    tree = hm.partition((2, 8), coordinates=sides, splitter=hm.Cardinality(2), admissibility=hm.Strong(0.1))
    assert [leaf.columns.slice for leaf in tree.leaves()] == [slice(k, k + 2) for k in (0, 2, 4, 6)]


def test_deep_trees():
    points = 2.0 ** -np.arange(700)
    tree = hm.partition(
        (700, 1), coordinates=(hm.Points(points), hm.Points([0.0])), splitter=hm.Geometric(1), admissibility=hm.Strong()
    )
    assert (painted(tree.leaves(), (700, 1)) == 1).all()
    assert len(tree.far_field) + len(tree.near_field) > 300
