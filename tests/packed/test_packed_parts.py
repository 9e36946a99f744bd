"""Parts of a packed form that do not fit together, or are not as the encoder writes them, are refused."""

from dataclasses import replace

import numpy as np
import pytest
from matrices import permutation, random_leaves, random_matrix, stored, with_entry

from hmatrix.codes.precision import Precision, padding
from hmatrix.errors import ArgumentError
from hmatrix.packed.packed_blocks import PackedBlocks, panel_words
from hmatrix.packed.packing import PackedLeaf, pack

CODES = [precision for precision in Precision if precision.is_integer]
SHAPE = (80, 70)
NAMES = ("shape", "leaves", "data", "quantized", "row_permutation", "column_permutation")


def parts(precision=Precision.FLOAT64, **changes):
    """The arguments of a packed form, with changes."""
    packed = pack(SHAPE, stored(random_leaves(SHAPE), [precision]), permutation(SHAPE[0]), permutation(SHAPE[1]))
    arguments = {name: getattr(packed, name) for name in NAMES}
    return arguments | {
        name: change(arguments[name]) if callable(change) else change for name, change in changes.items()
    }


def test_the_same_parts_again():
    packed = PackedBlocks(**parts())
    schedule, again = packed.schedule, pack(SHAPE, random_leaves(SHAPE)).schedule
    assert (schedule.far, schedule.near, schedule.starts) == (again.far, again.near, again.starts)
    assert PackedBlocks(**parts(row_permutation=None)).row_permutation is None
    assert not packed.quantized


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("shape", (0, 70), "shape"),
        ("shape", (80,), "shape: has 1 dimensions"),
        ("shape", (80.0, 70), "shape"),
        ("shape", (80, 2**31), r"shape: got .*2\^31"),
        ("shape", (81, 70), "leaves: cover rows 0 to 80"),
        ("shape", (80, 71), "leaves: leave a gap"),
        ("shape", (79, 70), "leaves: leaf . has a bad row range"),
        ("leaves", lambda a: a.astype(np.int64), "leaves: have the type int64"),
        ("leaves", lambda a: a.astype(np.uint32), "leaves: have the type uint32"),
        ("leaves", lambda a: a[:, :4], "leaves: have the shape"),
        ("leaves", lambda a: a[1:], "data: are|leaves: leave a gap"),
        ("leaves", lambda a: np.concatenate([a, a[:1]]), "data: are|leaves: leave a gap"),
        ("leaves", with_entry((0, 4), 3), "data: are"),
        ("leaves", with_entry((0, 5), len(Precision)), "leaves: have an unknown precision"),
        ("leaves", with_entry((0, 5), 1), "leaves: mix float64"),
        ("leaves", with_entry((slice(None), 5), 1), "data: are float64 of shape .*; give uint32 of shape"),
        ("leaves", with_entry((0, 6), -1), "leaves: have a group of -1"),
        ("data", lambda a: a.astype(np.float16), "data: are float16 of shape"),
        ("data", lambda a: a.astype(complex), "data: are complex128"),
        ("data", lambda a: a.astype(np.uint32), "data: are uint32 of shape .*; give float64 of shape"),
        ("data", lambda a: a[:-1], "data: are of shape .*; give [0-9]+ words at least"),
        ("data", lambda a: np.append(a, 0.0), "data: are float64 of shape"),
        ("data", lambda a: a[None], "data: are float64 of shape"),
        ("data", lambda a: np.repeat(a, 2)[::2], "data: .*contiguous"),
        ("data", with_entry(7, np.nan), "data: have NaN or infinity"),
        ("data", with_entry(-1, -np.inf), "data: have NaN or infinity"),
        ("row_permutation", lambda p: p.astype(np.int64), r"row_permutation: is int64 \(80,\)"),
        ("row_permutation", lambda p: p[:-1], r"row_permutation: is int32 \(79,\); give int32 \(80,\)"),
        ("column_permutation", lambda p: p[:, None], "column_permutation: is int32"),
        ("column_permutation", with_entry(0, 70), "column_permutation: is no permutation; give each of 0 to 69 once"),
        ("column_permutation", with_entry(0, -1), "column_permutation: is no permutation"),
        ("row_permutation", lambda p: p.clip(max=78), "row_permutation: is no permutation"),
    ],
)
def test_parts_that_do_not_fit(name, change, message):
    with pytest.raises(ArgumentError, match=message):
        PackedBlocks(**parts(**{name: change}))


@pytest.mark.parametrize("precision", list(Precision)[1:])
def test_words_of_other_precisions_that_do_not_fit(precision):
    PackedBlocks(**parts(precision))
    for change in (lambda a: a[:-1], lambda a: np.append(a, a[:1]), lambda a: a.view(np.float32), lambda a: a[None]):
        with pytest.raises(ArgumentError, match="data: are"):
            PackedBlocks(**parts(precision, data=change))


@pytest.mark.parametrize("precision", list(Precision)[1:])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_words_that_are_not_finite(precision, value):
    # The first word is a scale of codes, or the first one or two coefficients.
    word = np.array([value], np.float32).view(np.uint32)[0]
    with pytest.raises(ArgumentError, match="data: have NaN or infinity"):
        PackedBlocks(**parts(precision, data=with_entry(0, word)))


@pytest.mark.parametrize("precision", CODES)
def test_any_codes_are_finite(precision):
    packed = PackedBlocks(**parts(precision))
    first = packed.schedule.far.panels[0]
    data = packed.data.copy()
    words = panel_words(data, first)
    (run,) = first.runs
    before = words.copy()
    words[:, 1:] = 0xFFFFFFFF
    if (filling := padding(precision, run.length)) is not None:
        mask, bits = filling
        words[:, -len(mask) :] = words[:, -len(mask) :] & ~mask | bits
    assert (words != before).any()
    changed = PackedBlocks(**parts(precision, data=data))
    assert all(np.isfinite(values).all() for _, values in changed.decoded(first))


@pytest.mark.parametrize("precision", [Precision.BFLOAT16, *CODES])
def test_bits_that_fill_up_words_are_those_of_the_encoder(precision):
    """Kernels read them, those of a trellis as neighbours of codes; decoding does not."""
    leaves = [PackedLeaf(slice(0, 5), slice(0, 33), random_matrix(5, 33, np.float32), precision)]
    packed = pack((5, 33), leaves)
    mask, _ = padding(precision, 33)
    panel = packed.schedule.near.panels[0]
    tail = panel.width - len(mask)
    for word, bits in enumerate(mask.tolist()):
        for bit in np.flatnonzero([bits >> bit & 1 for bit in range(32)]):
            data = packed.data.copy()
            panel_words(data, panel)[3, tail + word] ^= np.uint32(1) << np.uint32(bit)
            changed = f"bits in the last words of {precision.name.lower()} rows that belong to no column"
            with pytest.raises(ArgumentError, match=changed):
                replace(packed, data=data)
