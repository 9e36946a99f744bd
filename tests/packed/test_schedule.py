import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matrices import stored_partitions
from schedules import build

from hmatrix.codes.precision import Precision
from hmatrix.lowrank.factors import LowRank
from hmatrix.packed.panels import PANEL_HEIGHT
from hmatrix.packed.schedule import DENSE, LONGEST_RUN, build_schedule

_, FLOAT32, BFLOAT16, INT8, INT4, INT2, INT1, LLOYD4, TRELLIS4, TRELLIS2, TRELLIS1, TRELLIS3, TRELLIS4P = Precision
BEGINS, ENDS = 16, 32

of_both_kinds = given(stored_partitions(), st.booleans())
"""Partitions, with exact and with quantised activations."""


def table(leaves):
    rows = [
        (
            leaf.rows.start,
            leaf.rows.stop,
            leaf.columns.start,
            leaf.columns.stop,
            leaf.rank,
            leaf.stored,
            leaf.group,
        )
        for leaf in leaves
    ]
    return np.array(rows, dtype=np.int32)


def words(leaf):
    """Words of the block or the factors of a leaf, with their scales."""

    def of(m, n):
        group = leaf.group or LONGEST_RUN
        columns = 0
        for first in range(0, n, group if leaf.stored.is_integer else LONGEST_RUN):
            length = min(group, n - first) if leaf.stored.is_integer else n
            columns += leaf.stored.words(length) + leaf.stored.is_integer
        return m * columns

    if isinstance(leaf.block, LowRank):
        return of(*leaf.block.U.shape) + of(*leaf.block.V.T.shape)
    return of(*leaf.block.shape)


@of_both_kinds
def test_panels_follow_each_other_and_cover_their_target(drawn, quantized):
    shape, leaves = drawn
    plan = build_schedule(shape, table(leaves), quantized=quantized)
    offset = 0
    for stage, size in ((plan.far, plan.intermediate), (plan.near, shape[0])):
        covered = 0
        for panel in stage.panels:
            assert (panel.target, panel.offset) == (covered, offset)
            assert 0 < panel.height <= PANEL_HEIGHT
            covered += panel.height
            offset += panel.height * panel.width
        assert covered == size
    assert plan.words == offset
    # Where the source is cut, words that are not full add to these.
    assert plan.words >= sum(map(words, leaves)) if quantized else plan.words == sum(map(words, leaves))
    assert plan.intermediate == sum(max(leaf.rank, 0) for leaf in leaves)


@of_both_kinds
def test_starts_do_not_overlap(drawn, quantized):
    shape, leaves = drawn
    plan = build_schedule(shape, table(leaves), quantized=quantized)
    taken = sorted((start, leaf.rank) for start, leaf in zip(plan.starts, leaves, strict=True) if leaf.rank > 0)
    assert [start for start, _ in taken] == np.cumsum([0, *(rank for _, rank in taken)])[:-1].tolist()
    assert all(start == -1 for start, leaf in zip(plan.starts, leaves, strict=True) if leaf.rank <= 0)


def check_runs(runs, source, length, leaf, plan, quantized):
    """Check that runs hold all columns that meet the source from `source` on, in order."""
    column = 0
    for run in runs:
        assert (run.source, run.column, run.precision) == (source + column, column, leaf.stored)
        column += run.length
        integer = leaf.stored.is_integer
        assert run.begins == (integer and run.column % (leaf.group or LONGEST_RUN) == 0)
        assert run.ends == (integer and (column == length or column % (leaf.group or LONGEST_RUN) == 0))
        assert (run.segment >= 0) == (integer and quantized)
        if run.segment >= 0:
            assert plan.segments[run.segment].tolist() == [run.source, run.length]
    assert column == length


@of_both_kinds
def test_near_panels_hold_all_leaves_of_their_rows(drawn, quantized):
    shape, leaves = drawn
    plan = build_schedule(shape, table(leaves), quantized=quantized)
    for panel in plan.near.panels:
        rows = range(panel.target, panel.target + panel.height)
        there = {k for k, leaf in enumerate(leaves) if leaf.rows.start < rows.stop and rows.start < leaf.rows.stop}
        assert {run.leaf for run in panel.runs} == {k for k in there if leaves[k].rank != 0}
        for k in {run.leaf for run in panel.runs}:
            runs = [run for run in panel.runs if run.leaf == k]
            columns = leaves[k].columns
            if leaves[k].rank == DENSE:
                check_runs(runs, columns.start, columns.stop - columns.start, leaves[k], plan, quantized)
            else:
                check_runs(runs, shape[1] + plan.starts[k], leaves[k].rank, leaves[k], plan, quantized)


@of_both_kinds
def test_far_panels_hold_the_columns_of_their_leaves(drawn, quantized):
    shape, leaves = drawn
    plan = build_schedule(shape, table(leaves), quantized=quantized)
    for panel in plan.far.panels:
        rows = range(panel.target, panel.target + panel.height)
        there = [
            leaf
            for start, leaf in zip(plan.starts, leaves, strict=True)
            if leaf.rank > 0 and start < rows.stop and rows.start < start + leaf.rank
        ]
        assert len({(leaf.columns.start, leaf.columns.stop, leaf.stored, leaf.group) for leaf in there}) == 1
        columns = there[0].columns
        check_runs(panel.runs, columns.start, columns.stop - columns.start, there[0], plan, quantized)


@of_both_kinds
def test_segments_are_in_x_or_in_t_and_only_those_of_a_trellis_overlap(drawn, quantized):
    shape, leaves = drawn
    plan = build_schedule(shape, table(leaves), quantized=quantized)
    assert (plan.segments.dtype, plan.segments.ndim, plan.segments.shape[1]) == (np.int32, 2, 2)
    runs = [run for stage in (plan.far, plan.near) for panel in stage.panels for run in panel.runs if run.segment >= 0]
    assert {run.segment for run in runs} == set(range(len(plan.segments)))
    for source, length in plan.segments.tolist():
        assert 0 < length <= LONGEST_RUN
        assert source >= shape[1] or source + length <= shape[1]
        assert source + length <= shape[1] + plan.intermediate
    end = 0
    for number in sorted(
        {run.segment for run in runs if run.precision.trellis is None}, key=plan.segments.tolist().__getitem__
    ):
        source, length = plan.segments[number].tolist()
        assert source >= end
        end = source + length


def columns_met(runs):
    """What each column meets and how it is stored; also where groups begin and end."""
    return [
        (source + k, segment, flags & 15, flags & BEGINS if k == 0 else 0, flags & ENDS if k == length - 1 else 0)
        for source, length, segment, flags in runs
        for k in range(length)
    ]


@of_both_kinds
def test_tables_say_what_the_panels_say(drawn, quantized):
    shape, leaves = drawn
    plan = build_schedule(shape, table(leaves), quantized=quantized)
    for stage in (plan.far, plan.near):
        offsets, panels, runs = stage.tables
        assert (offsets.dtype, panels.dtype, runs.dtype) == (np.int64, np.int32, np.int32)
        assert offsets.tolist() == [panel.offset for panel in stage.panels]
        assert panels[:, :2].tolist() == [[panel.target, panel.height] for panel in stage.panels]
        assert panels[:, 2].tolist() == np.cumsum([0, *panels[:, 3]])[:-1].tolist()
        for panel, (_, _, first, count) in zip(stage.panels, panels.tolist(), strict=True):
            mine = runs[first : first + count].tolist()
            given_runs = [
                (run.source, run.length, run.segment, run.precision | BEGINS * run.begins | ENDS * run.ends)
                for run in panel.runs
            ]
            assert columns_met(mine) == columns_met(given_runs)
            # x and t are two vectors: no run reaches from one into the other.
            assert all(source + length <= shape[1] or source >= shape[1] for source, length, _, _ in mine)
    tables = [array for stage in (plan.far, plan.near) for array in stage.tables]
    assert plan.nbytes == sum(array.nbytes for array in [*tables, plan.segments])


@pytest.mark.parametrize("precision", [Precision.FLOAT64, FLOAT32])
def test_runs_of_floats_that_adjoin_are_one(precision):
    of = (precision, 0)
    plan = build((4, 10), (0, 4, 0, 3, -1, *of), (0, 4, 3, 5, -1, *of), (0, 4, 5, 9, 2, *of), (0, 4, 9, 10, -1, *of))
    assert plan.near.tables[2].tolist() == [[0, 5, -1, precision], [9, 1, -1, precision], [10, 2, -1, precision]]


@pytest.mark.parametrize("precision", [BFLOAT16, *(precision for precision in Precision if precision.is_integer)])
def test_runs_of_words_that_may_not_be_full_stay_apart(precision):
    plan = build((4, 5), (0, 4, 0, 3, -1, precision, 0), (0, 4, 3, 5, -1, precision, 0))
    flags = precision | (BEGINS | ENDS) * precision.is_integer
    assert plan.near.tables[2].tolist() == [[0, 3, -1, flags], [3, 2, -1, flags]]


def test_groups_cut_runs():
    plan = build((4, 30), (0, 4, 0, 30, -1, INT4, 13))
    flags = INT4 | BEGINS | ENDS
    assert plan.near.tables[2].tolist() == [[0, 13, -1, flags], [13, 13, -1, flags], [26, 4, -1, flags]]
    assert plan.words == 4 * (3 + 2 + 2 + 1)


@pytest.mark.parametrize("quantized", [False, True])
def test_borders_of_other_leaves_cut_the_quantised_source(quantized):
    rows = [(0, 4, 0, 9, -1, INT8, 0), (4, 8, 0, 5, -1, INT8, 0), (4, 8, 5, 9, -1, INT8, 0)]
    plan = build((8, 9), *rows, quantized=quantized)
    first, count = plan.near.tables[1][0, 2:]
    mine = plan.near.tables[2][first : first + count].tolist()
    whole = INT8 | BEGINS | ENDS
    assert mine == ([[0, 5, 0, INT8 | BEGINS], [5, 4, 1, INT8 | ENDS]] if quantized else [[0, 9, -1, whole]])
    assert plan.segments.tolist() == ([[0, 5], [5, 4]] if quantized else [])


def test_what_a_trellis_holds_meets_segments_of_its_own():
    """Its words must not be cut, nor does it cut what others meet."""
    rows = [(0, 4, 0, 9, -1, TRELLIS2, 0), (4, 8, 0, 5, -1, INT8, 0), (4, 8, 5, 9, -1, TRELLIS4, 0)]
    rows += [(0, 4, 0, 9, -1, INT4, 0), (4, 8, 0, 9, 3, TRELLIS1, 2)]
    plan = build((8, 9), *rows, quantized=True)
    runs = [tuple(run) for run in plan.near.tables[2].tolist()]
    whole = BEGINS | ENDS
    segments = plan.segments.tolist()
    assert (0, 9, segments.index([0, 9]), TRELLIS2 | whole) in runs
    assert (5, 4, segments.index([5, 4]), TRELLIS4 | whole) in runs
    assert (0, 5, segments.index([0, 5]), INT4 | BEGINS) in runs
    assert [run[:2] for run in runs if run[3] & 15 == TRELLIS1] == [(9, 2), (11, 1)]
    assert [tuple(run[:2]) for run in plan.far.tables[2].tolist()] == [(0, 2), (2, 2), (4, 2), (6, 2), (8, 1)]


def test_borders_of_floats_and_of_rank_0_cut_nothing():
    rows = [(0, 4, 0, 9, -1, INT8, 0), (4, 8, 0, 5, -1, FLOAT32, 0), (4, 8, 5, 7, 0, INT8, 0), (4, 8, 7, 9, 0, INT8, 0)]
    assert build((8, 9), *rows, quantized=True).segments.tolist() == [[0, 9]]


@pytest.mark.parametrize("group", [0, LONGEST_RUN + 1])
@pytest.mark.parametrize("quantized", [False, True])
def test_long_runs_of_codes_are_cut(group, quantized):
    n = 2 * LONGEST_RUN + 5
    plan = build((1, n), (0, 1, 0, n, -1, INT2, group), quantized=quantized)
    assert plan.near.tables[2][:, 1].tolist() == [LONGEST_RUN, LONGEST_RUN, 5]
    assert plan.near.tables[2][:, 3].tolist() == [INT2 | BEGINS | ENDS] * 3


def test_leaves_of_one_precision_and_group_share_panels():
    rows = [(k, k + 1, 0, 8, 2, precision, group) for k, (precision, group) in enumerate([(INT8, 0), (INT8, 0)])]
    assert len(build((2, 8), *rows).far.panels) == 1
    for other in ((INT8, 4), (INT4, 0), (FLOAT32, 0)):
        assert len(build((2, 8), rows[0], (*rows[1][:5], *other)).far.panels) == 2


def test_no_far_field():
    plan = build((3, 4), (0, 3, 0, 4, -1, FLOAT32, 0))
    assert (plan.far.panels, plan.intermediate, plan.words) == ((), 0, 12)
    assert [array.shape for array in plan.far.tables] == [(0,), (0, 4), (0, 4)]
