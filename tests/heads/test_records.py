"""The kernel and Python call the parts of a head alike, and list them in the same order."""

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from heads import layer

import hmatrix as hm
from hmatrix import _core
from hmatrix.heads.levels import Bound
from hmatrix.heads.packed_head import PackedHead
from hmatrix.heads.sizes import HeadSizes

SOURCES = Path(__file__).parents[2] / "cpp" / "heads"


def names_in(header, struct):
    """The names of the fields of a C++ struct without functions, in their order."""
    text = re.sub(r"//.*", "", (SOURCES / header).read_text())
    body = re.search(rf"struct {struct} \{{(.*?)\}};", text, re.DOTALL)[1]
    declared = [declaration.strip() for declaration in body.split(";") if declaration.strip()]
    return [re.search(r"(\w+)$", part)[1] for declaration in declared for part in declaration.split(",")]


def head():
    weight, bias, _, _ = layer()
    return hm.progressive(weight, bias, rule=hm.Rigorous(), ranks=[5], precisions=["int8"]).pack()


@pytest.mark.parametrize(
    ("record", "header", "struct"),
    [
        (HeadSizes, "head.hpp", "HeadSizes"),
        (Bound, "progressive.hpp", "Bound"),
        (PackedHead, "head.hpp", "HeadArrays"),
    ],
)
def test_the_kernel_has_the_fields_of_python(record, header, struct):
    assert names_in(header, struct) == [field.name for field in fields(record)]


@pytest.mark.parametrize("name", [field.name for field in fields(PackedHead) if field.name != "matrix"])
def test_the_kernel_asks_for_each_array_by_its_name_and_type(name):
    arrays = head().own_arrays()
    _core.ProgressiveHead("portable", dict(reversed(arrays.items())), None)
    for wrong in ({}, {name: arrays[name].astype(np.float64)}, {name: arrays[name][:, None]}):
        others = {other: array for other, array in arrays.items() if other != name} | wrong
        with pytest.raises(TypeError, match=f"arrays of a head: {name} is missing, or of another type"):
            _core.ProgressiveHead("portable", others, None)


def test_files_hold_the_sizes_in_this_order():
    sizes = HeadSizes(
        rows=90,
        columns=80,
        rank=7,
        top=3,
        most=60,
        fine=hm.Precision.BFLOAT16,
        clusters=9,
        probes=6,
        coarse=hm.Precision.INT4,
        first=5,
    )
    array = sizes.as_array()
    assert array.dtype == np.int32
    assert array.tolist() == [90, 80, 7, 3, 60, 2, 9, 6, 4, 5]
    assert HeadSizes.of_array(array) == sizes
