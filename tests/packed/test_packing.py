"""What a pack does once, and what it does not do."""

from dataclasses import replace

import numpy as np
import pytest
from matrices import leaf

from hmatrix.codes.precision import Precision, from_words
from hmatrix.errors import ArgumentError
from hmatrix.packed import packed_blocks, packing
from hmatrix.packed.kernels import prepare
from hmatrix.packed.packed_blocks import PackedBlocks
from hmatrix.packed.packing import pack
from hmatrix.packed.schedule import build_schedule

PRECISIONS = list(Precision)[1:]
SHAPE = (10 * len(PRECISIONS), 170)


def leaves_of_all():
    """For each precision a leaf of low rank, and a dense one beside it."""
    rng = np.random.default_rng(0)
    for number, precision in enumerate(PRECISIONS):
        rows = (10 * number, 10 * number + 10)
        for columns, rank in (((0, 90), 3), ((90, 170), None)):
            yield replace(leaf(rows, columns, rank, rng, np.float32), precision=precision)


LEAVES = list(leaves_of_all())


@pytest.mark.parametrize("quantized", [False, True])
def test_the_schedule_is_built_once_a_pack(monkeypatch, quantized):
    built = []

    def counted(*arguments, **options):
        built.append(build_schedule(*arguments, **options))
        return built[-1]

    for module in (packed_blocks, packing):
        monkeypatch.setattr(module, "build_schedule", counted)
    packed = pack(SHAPE, LEAVES, quantized=quantized)
    prepare(packed).multiply(np.ones(SHAPE[1], np.float32), np.empty(SHAPE[0], np.float32))
    assert len(built) == 1
    assert packed.schedule is built[0]
    # With other activations the segments are others.
    assert replace(packed, quantized=not quantized).schedule is built[1]


def test_no_codes_are_decoded_to_look_for_nan(monkeypatch):
    packed = pack(SHAPE, LEAVES)
    decoded = set()

    def noted(words, precision, n):
        decoded.add(precision)
        return from_words(words, precision, n)

    monkeypatch.setattr(packed_blocks, "from_words", noted)
    PackedBlocks.of_arrays(packed.arrays())
    assert decoded == {Precision.FLOAT32, Precision.BFLOAT16}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_every_scale_and_every_number_is_looked_at(value):
    packed = pack(SHAPE, LEAVES)
    word = np.array([value], np.float32).view(np.uint32)[0]
    for panel in (*packed.schedule.far.panels, *packed.schedule.near.panels):
        column = 0
        for run in panel.runs:
            if run.begins or run.precision is Precision.FLOAT32:
                data = packed.data.copy()
                data[panel.offset + column * panel.height] = word
                with pytest.raises(ArgumentError, match="NaN or infinity"):
                    replace(packed, data=data)
            column += run.words()
