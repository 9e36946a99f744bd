import sys

import numpy as np
import pytest
from hypothesis import given
from matrices import partitions, run_limited

from hmatrix import schedule
from hmatrix.errors import ArgumentError
from hmatrix.lowrank import LowRank
from hmatrix.schedule import DENSE, PANEL_HEIGHT, build_schedule


def table(leaves):
    rows = [(leaf.rows.start, leaf.rows.stop, leaf.columns.start, leaf.columns.stop, leaf.rank) for leaf in leaves]
    return np.array(rows, dtype=np.int32)


def coefficients(leaf):
    return leaf.block.U.size + leaf.block.V.size if isinstance(leaf.block, LowRank) else leaf.block.size


@given(partitions())
def test_panels_follow_each_other_and_cover_their_target(drawn):
    shape, leaves = drawn
    plan = build_schedule(shape, table(leaves))
    offset = 0
    for stage, size in ((plan.far, plan.intermediate), (plan.near, shape[0])):
        covered = 0
        for panel in stage.panels:
            assert (panel.target, panel.offset) == (covered, offset)
            assert 0 < panel.height <= PANEL_HEIGHT
            covered += panel.height
            offset += panel.height * panel.width
        assert covered == size
    assert plan.elements == offset == sum(map(coefficients, leaves))
    assert plan.intermediate == sum(max(leaf.rank, 0) for leaf in leaves)


@given(partitions())
def test_starts_do_not_overlap(drawn):
    shape, leaves = drawn
    plan = build_schedule(shape, table(leaves))
    taken = sorted((start, leaf.rank) for start, leaf in zip(plan.starts, leaves, strict=True) if leaf.rank > 0)
    assert [start for start, _ in taken] == np.cumsum([0, *(rank for _, rank in taken)])[:-1].tolist()
    assert all(start == -1 for start, leaf in zip(plan.starts, leaves, strict=True) if leaf.rank <= 0)


@given(partitions())
def test_near_panels_hold_all_leaves_of_their_rows(drawn):
    shape, leaves = drawn
    plan = build_schedule(shape, table(leaves))
    for panel in plan.near.panels:
        rows = range(panel.target, panel.target + panel.height)
        there = [k for k, leaf in enumerate(leaves) if leaf.rows.start < rows.stop and rows.start < leaf.rows.stop]
        assert sorted(panel.leaves) == [k for k in there if leaves[k].rank != 0]
        for k, run in zip(panel.leaves, panel.runs, strict=True):
            columns = leaves[k].columns
            if leaves[k].rank == DENSE:
                assert run == (columns.start, columns.stop - columns.start)
            else:
                assert run == (shape[1] + plan.starts[k], leaves[k].rank)


def columns_met(runs):
    return [source + k for source, length in runs for k in range(length)]


@given(partitions())
def test_tables_say_what_the_panels_say(drawn):
    shape, leaves = drawn
    plan = build_schedule(shape, table(leaves))
    for stage in (plan.far, plan.near):
        offsets, panels, runs = stage.tables
        assert (offsets.dtype, panels.dtype, runs.dtype) == (np.int64, np.int32, np.int32)
        assert offsets.tolist() == [panel.offset for panel in stage.panels]
        assert panels[:, :2].tolist() == [[panel.target, panel.height] for panel in stage.panels]
        assert panels[:, 2].tolist() == np.cumsum([0, *panels[:, 3]])[:-1].tolist()
        for panel, (_, _, first, count) in zip(stage.panels, panels.tolist(), strict=True):
            mine = runs[first : first + count].tolist()
            assert columns_met(mine) == columns_met(panel.runs)
            # x and t are two vectors: no run reaches from one into the other.
            assert all(source + length <= shape[1] or source >= shape[1] for source, length in mine)
    assert plan.nbytes == sum(array.nbytes for stage in (plan.far, plan.near) for array in stage.tables)


def test_runs_that_adjoin_are_one():
    leaves = np.array([[0, 4, 0, 3, -1], [0, 4, 3, 5, -1], [0, 4, 5, 9, 2], [0, 4, 9, 10, -1]], dtype=np.int32)
    plan = build_schedule((4, 10), leaves)
    assert plan.near.tables[2].tolist() == [[0, 5], [9, 1], [10, 2]]


def test_no_far_field():
    plan = build_schedule((3, 4), np.array([[0, 3, 0, 4, -1]], dtype=np.int32))
    assert (plan.far.panels, plan.intermediate, plan.elements) == ((), 0, 12)
    assert [array.shape for array in plan.far.tables] == [(0,), (0, 4), (0, 2)]


@pytest.mark.parametrize("leaves", [np.zeros((0, 5)), np.zeros((1, 4)), np.zeros(5), np.zeros((1, 1, 5))])
def test_bad_tables_of_leaves(leaves):
    with pytest.raises(ArgumentError, match="leaves: have the shape"):
        build_schedule((4, 4), leaves.astype(np.int32))


@pytest.mark.parametrize(
    ("leaves", "message"),
    [
        ([[0, 4, 0, 4, -1], [-1, 4, 0, 4, -1]], "leaf 1 has a bad row range"),
        ([[0, 5, 0, 4, -1]], "leaf 0 has a bad row range; stay within 0 to 4"),
        ([[4, 4, 0, 4, -1]], "bad row range"),
        ([[3, 2, 0, 4, -1]], "bad row range"),
        ([[0, 4, -1, 4, -1]], "bad column range"),
        ([[0, 4, 0, 7, -1]], "leaf 0 has a bad column range; stay within 0 to 6"),
        ([[0, 4, 2, 2, -1]], "bad column range"),
        ([[0, 4, 0, 6, -2]], "have a rank of -2"),
        ([[1, 4, 0, 6, -1]], "cover rows 1 to 4"),
        ([[0, 3, 0, 6, -1]], "cover rows 0 to 3"),
        ([[0, 1, 0, 6, -1], [2, 4, 0, 6, -1]], "gap in rows 1 to 2"),
        ([[0, 4, 0, 5, -1]], "gap in rows 0 to 4"),
        ([[0, 4, 1, 6, -1]], "gap in rows 0 to 4"),
        ([[0, 4, 0, 2, -1], [0, 4, 3, 6, -1]], "gap in rows 0 to 4"),
        ([[0, 4, 0, 3, -1], [0, 4, 2, 6, -1]], "overlap"),
        ([[0, 4, 0, 6, -1], [0, 4, 0, 6, -1]], "overlap"),
        ([[0, 4, 0, 3, -1], [0, 3, 3, 6, -1], [2, 4, 3, 6, -1]], "overlap or leave a gap in rows 2 to 3"),
        ([[0, 2, 0, 6, -1], [1, 4, 0, 6, 1]], "overlap or leave a gap in rows 1 to 2"),
    ],
)
def test_what_is_no_partition(leaves, message):
    with pytest.raises(ArgumentError, match=f"leaves.*{message}"):
        build_schedule((4, 6), np.array(leaves, dtype=np.int32))


def test_too_many_pieces(monkeypatch):
    leaves = [[0, 4, 0, 1, -1], *([k, k + 1, 1, 2, -1] for k in range(4))]
    monkeypatch.setattr(schedule, "MOST_STRIPS", 7)
    with pytest.raises(ArgumentError, match="leaves: cut the matrix into too many pieces"):
        build_schedule((4, 2), np.array(leaves, dtype=np.int32))
    monkeypatch.setattr(schedule, "MOST_STRIPS", 8)
    assert len(build_schedule((4, 2), np.array(leaves, dtype=np.int32)).near.panels) == 4


IMPORTS = """
import numpy as np
from hmatrix.errors import ArgumentError
from hmatrix.packed import PackedBlocks
from hmatrix.schedule import build_schedule
"""

HOSTILE = """
try:
    {call}
except ArgumentError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize(
    ("shape", "leaves", "message"),
    [
        ((6, 6), "[[0, 6, 0, 6, 2**31 - 1]]", "data: "),
        ((6, 6), "[[0, 6, 0, 6, 2**28]]", "data: "),
        ((6, 12), "[[0, 6, 0, 6, 2**30], [0, 6, 6, 12, 2**30]]", "data: "),
        ((2**31 - 1, 1), "[[0, 2**31 - 1, 0, 1, -1]]", "data: "),
        ((9000, 9000), "[[k, 9000, k, k + 1, -1] for k in range(9000)]", ("data: ", "leaves: ")),
    ],
)
def test_hostile_tables_are_refused_in_little_time_and_memory(shape, leaves, message):
    call = f"PackedBlocks({shape}, np.array({leaves}, np.int32), np.zeros(36))"
    assert run_limited(IMPORTS, HOSTILE.format(call=call)).startswith(message)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_more_ranks_than_the_kernel_can_count():
    leaves = "np.array([[0, 6, 0, 6, 2**30], [0, 6, 6, 12, 2**30]], np.int32)"
    call = f"build_schedule((6, 12), {leaves})"
    assert run_limited(IMPORTS, HOSTILE.format(call=call)).startswith(
        f"leaves: have {2**31} ranks in all; stay below 2^31"
    )
