"""Sums of a progressive head's products in float32, in the order of the kernels."""

import numpy as np

from hmatrix._support.typing import FloatArray
from hmatrix.heads.words import BLOCK, STRIP, padded


def sum_lanes(terms: FloatArray) -> FloatArray:
    """Sum rows ``(batch, length)`` in 16 lanes, which are then halved."""
    return _halved(_added(terms, STRIP))


def sum_block_lanes(terms: FloatArray) -> FloatArray:
    """Sum rows ``(batch, length)`` in four times 16 lanes."""
    return _joined(_added(terms, BLOCK))


def multiply_rows(rows: FloatArray, x: FloatArray) -> FloatArray:
    """Multiply rows ``(batch, length)`` with x ``(length,)`` in four times 16 lanes, each step rounded once."""
    a, b = _whole(rows, BLOCK), _whole(x[None], BLOCK)
    lanes = np.zeros((len(rows), BLOCK), np.float32)
    for start in range(0, a.shape[1], BLOCK):
        lanes = fused(a[:, start : start + BLOCK], b[:, start : start + BLOCK], lanes)
    return _joined(lanes)


def fused(a: FloatArray, b: FloatArray, c: FloatArray) -> FloatArray:
    """Return ``a * b + c`` of float32, rounded once.

    The sum in float64 is rounded to odd, which rounding to float32 then cannot take for a tie [1]_.

    References
    ----------
    .. [1] S. Boldo, G. Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to
       odd", IEEE Transactions on Computers 57 (2008), doi:10.1109/TC.2007.70819.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        product, addend = a.astype(np.float64) * b, c.astype(np.float64)
        total = product + addend
        part = total - product
        error = (product - (total - part)) + (addend - part)
        bits = total.view(np.int64)
        even = (error != 0) & (bits & 1 == 0) & np.isfinite(total)
        bits += np.where(even, np.where((error > 0) == (total > 0), 1, -1), 0)
        return total.astype(np.float32)


def _added(terms: FloatArray, block: int) -> FloatArray:
    """Add up blocks of columns, one after the other, ``(batch, block)``."""
    whole = _whole(terms, block)
    lanes = np.zeros((len(terms), block), np.float32)
    for start in range(0, whole.shape[1], block):
        lanes += whole[:, start : start + block]
    return lanes


def _joined(lanes: FloatArray) -> FloatArray:
    """Add up four times 16 lanes ``(batch, 64)``."""
    quarters = lanes.reshape(len(lanes), BLOCK // STRIP, STRIP)
    return _halved((quarters[:, 0] + quarters[:, 1]) + (quarters[:, 2] + quarters[:, 3]))


def _halved(lanes: FloatArray) -> FloatArray:
    """Add the second half of the lanes ``(batch, lanes)`` to the first until one is left."""
    while lanes.shape[1] > 1:
        lanes = lanes[:, : lanes.shape[1] // 2] + lanes[:, lanes.shape[1] // 2 :]
    return lanes[:, 0]


def _whole(terms: FloatArray, block: int) -> FloatArray:
    """Return rows ``(batch, length)`` filled up with zeros to whole blocks, at least one."""
    whole = np.zeros((len(terms), max(padded(terms.shape[1], block), block)), np.float32)
    whole[:, : terms.shape[1]] = terms
    return whole
