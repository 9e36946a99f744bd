"""Decisions do not hang on the last bit: equal sums are equal on every BLAS, and the first of equals is taken."""

import blas
import numpy as np
import pytest
from decisions import KINDS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hmatrix._support.ties import first_equal, first_largest, first_least, rounding_of, signs_of, snapped, tied_order
from hmatrix.partitions.cluster import Supports, build_cluster_tree
from hmatrix.partitions.splitters import PrincipalDirection, TwoMeans

CORES = blas.CORES[:1] + blas.CORES[-1:]
"""The oldest kernels of OpenBLAS, and the newest that this processor can run."""

needs_two = pytest.mark.skipif(len(set(CORES)) < 2, reason="OpenBLAS has no two sets of kernels for this processor")

moved_bits = st.lists(st.integers(-1, 1), min_size=24, max_size=24)


@given(bits=moved_bits)
def test_the_first_of_equal_values_is_taken_whatever_their_last_bits(bits):
    values = np.array([3.0, 1.0, 2.0, 1.0, 3.0, 3.0, 1.0, 2.0] * 3)
    moved = values * (1 + np.finfo(np.float64).eps * np.array(bits))
    rounding = 4 * np.finfo(np.float64).eps * 3
    assert (first_least(moved, rounding), first_largest(moved, rounding)) == (1, 0)
    np.testing.assert_array_equal(tied_order(moved, rounding), np.argsort(values, kind="stable"))
    for value in (1, 2, 3):
        assert len(set(snapped(moved, rounding)[values == value])) == 1


def test_values_that_differ_by_more_are_told_apart():
    values = np.array([1.0, 1.0 + 1e-9, 1.0 - 1e-9, 2.0])
    assert (first_least(values, 1e-12), first_largest(values, 1e-12)) == (2, 3)
    np.testing.assert_array_equal(tied_order(values, 1e-12), [2, 0, 1, 3])
    np.testing.assert_array_equal(snapped(values, 1e-12), values)


def test_equal_rows_are_those_with_the_same_bits():
    rows = np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [1.0, 2.0 + 1e-15], [3.0, 4.0]])
    np.testing.assert_array_equal(first_equal(rows), [0, 1, 0, 3, 1])
    np.testing.assert_array_equal(first_equal(rows.T), [0, 1])


def test_signs_do_not_hang_on_which_of_two_large_entries_is_larger():
    vector = np.array([0.1, -0.7, 0.7, 0.1])
    for bit in (-1, 1):
        moved = vector * (1 + np.finfo(np.float64).eps * np.array([0, bit, 0, 0]))
        np.testing.assert_array_equal(signs_of(np.stack([moved, -moved], axis=1)), [-1, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_of_two_equal_sums_is_within_its_bound(dtype):
    rng = np.random.default_rng(0)
    for terms in (2, 30, 1000):
        products = rng.standard_normal((200, terms)).astype(dtype)
        # One after the other, from either end: no BLAS adds up with more rounding.
        ends = [np.add.accumulate(products[:, ::step], axis=1)[:, -1] for step in (1, -1)]
        apart = np.abs(ends[0].astype(np.float64) - ends[1]) / np.abs(products).sum(axis=1)
        assert apart.max() <= rounding_of(dtype, terms)


@pytest.mark.parametrize("splitter", [PrincipalDirection(3), TwoMeans(3)])
@given(bits=moved_bits)
@settings(max_examples=30)
def test_clusters_of_a_square_grid_do_not_hang_on_its_last_bits(splitter, bits):
    """As many points lie equally far along a direction, and no direction is the longest."""
    side = (np.arange(4) - 1.5) * 0.37
    grid = np.array([[x, y] for x in side for y in side] * 3)
    moved = grid * (1 + np.finfo(np.float64).eps * np.resize(bits, grid.shape))
    trees = [build_cluster_tree(Supports(points), splitter) for points in (grid, moved)]
    np.testing.assert_array_equal(*(tree.permutation for tree in trees))


@pytest.fixture(scope="module")
def machines():
    """Two kernels of OpenBLAS, which answer questions about matrices."""
    answering = [blas.Answering(core, "import decisions; decisions.main()") for core in CORES]
    yield answering
    for machine in answering:
        machine.close()


def decided(machines, *question):
    """What both decide."""
    for machine in machines:
        machine.ask(*question)
    return [machine.answer() for machine in machines]


sizes = st.integers(9, 60)
kinds = st.sampled_from(sorted(KINDS))


@needs_two
@given(kind=kinds, seed=st.integers(0, 999), m=sizes, n=sizes)
@example(kind="signs", seed=9, m=25, n=9)  # two columns that may change places
@settings(max_examples=40)
def test_equal_rows_and_columns_are_ordered_alike_by_every_blas(machines, kind, seed, m, n):
    own, other = decided(machines, "orders", kind, seed, m, n)
    assert own == other


@needs_two
@given(kind=kinds, seed=st.integers(0, 999), m=sizes, n=sizes)
@settings(max_examples=4)
def test_every_blas_chooses_the_same_leaves(machines, kind, seed, m, n):
    own, other = decided(machines, "allocation", kind, seed, m, n)
    assert own == other


@pytest.mark.slow
@needs_two
@given(seed=st.integers(0, 999), m=sizes, n=sizes)
@settings(max_examples=20)
@pytest.mark.parametrize("what", ["ranks", "damping"])
def test_every_blas_meets_a_tolerance_and_finds_equal_shares_equally_likely(machines, what, seed, m, n):
    own, other = decided(machines, what, "equal rows", seed, m, n)
    assert own == other
