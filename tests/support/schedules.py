"""Schedules of tables that tests write down."""

import numpy as np

from hmatrix.packed.schedule import build_schedule


def build(shape, *rows, quantized=False):
    return build_schedule(shape, np.array(rows, dtype=np.int32), quantized=quantized)
