"""Tables of leaves that are no matrix, or ask for too much, are refused."""

import sys

import numpy as np
import pytest
from matrices import run_limited
from schedules import build

from hmatrix.codes.precision import Precision
from hmatrix.errors import ArgumentError
from hmatrix.packed import schedule
from hmatrix.packed.schedule import build_schedule

FLOAT32, INT8 = Precision.FLOAT32, Precision.INT8


@pytest.mark.parametrize(
    "leaves", [np.zeros((0, 7)), np.zeros((1, 5)), np.zeros((1, 8)), np.zeros(7), np.zeros((1, 1, 7))]
)
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
        ([[0, 4, 0, 3, -1], [0, 3, 3, 6, -1], [2, 4, 4, 6, -1]], "leave a gap in rows 3 to 4"),
        ([[0, 2, 0, 6, -1], [1, 4, 0, 5, 1]], "leave a gap in rows 2 to 4"),
        ([[0, 4, 0, 5, -1], [0, 4, 1, 3, -1]], "leave a gap in rows 0 to 4"),
        ([[0, 4, 0, 4, -1], [0, 4, 1, 2, -1], [0, 4, 5, 6, -1]], "leave a gap in rows 0 to 4"),
    ],
)
def test_what_covers_no_matrix(leaves, message):
    with pytest.raises(ArgumentError, match=f"leaves.*{message}"):
        build((4, 6), *((*leaf, FLOAT32, 0) for leaf in leaves))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(-1, 0)], "have an unknown precision; give numbers of hmatrix.Precision"),
        ([(len(Precision), 0)], "have an unknown precision"),
        ([(INT8, -1)], "have a group of -1; give columns, or 0 for all"),
        ([(FLOAT32, 0), (Precision.FLOAT64, 0)], "mix float64 with other precisions"),
        ([(Precision.FLOAT64, 0), (INT8, 0)], "mix float64 with other precisions"),
    ],
)
def test_bad_precisions_and_groups(rows, message):
    leaves = [(k, k + 1, 0, 6, -1, *row) for k, row in enumerate(rows)]
    with pytest.raises(ArgumentError, match=f"leaves: {message}"):
        build((len(rows), 6), *leaves)


def test_too_many_strips(monkeypatch):
    leaves = [[0, 4, 0, 1, -1, 1, 0], *([k, k + 1, 1, 2, -1, 1, 0] for k in range(4))]
    monkeypatch.setattr(schedule, "MOST_STRIPS", 7)
    with pytest.raises(ArgumentError, match="leaves: cut the matrix into too many strips"):
        build((4, 2), *leaves)
    monkeypatch.setattr(schedule, "MOST_STRIPS", 8)
    assert len(build((4, 2), *leaves).near.panels) == 4


IMPORTS = """
import numpy as np
from hmatrix.errors import ArgumentError
from hmatrix.packed.packed_blocks import PackedBlocks
from hmatrix.packed.schedule import build_schedule
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
        ((6, 6), "[[0, 6, 0, 6, 2**31 - 1, 0, 0]]", "data: "),
        ((6, 6), "[[0, 6, 0, 6, 2**28, 0, 0]]", "data: "),
        ((6, 12), "[[0, 6, 0, 6, 2**30, 0, 0], [0, 6, 6, 12, 2**30, 0, 0]]", "data: "),
        ((6, 6), "[[0, 6, 0, 6, 2**28, 5, 1]]", "data: "),
        ((2**31 - 1, 1), "[[0, 2**31 - 1, 0, 1, -1, 0, 0]]", "data: "),
        ((9000, 9000), "[[k, 9000, k, k + 1, -1, 0, 0] for k in range(9000)]", ("data: ", "leaves: ")),
    ],
)
def test_hostile_tables_are_refused_in_little_time_and_memory(shape, leaves, message):
    call = f"PackedBlocks({shape}, np.array({leaves}, np.int32), np.zeros(36))"
    assert run_limited(IMPORTS, HOSTILE.format(call=call)).startswith(message)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_more_ranks_than_the_kernel_can_count():
    leaves = "np.array([[0, 6, 0, 6, 2**30, 0, 0], [0, 6, 6, 12, 2**30, 0, 0]], np.int32)"
    call = f"build_schedule((6, 12), {leaves})"
    assert run_limited(IMPORTS, HOSTILE.format(call=call)).startswith(
        f"leaves: have {2**31} ranks in all; stay below 2^31"
    )
