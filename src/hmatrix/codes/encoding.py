"""Rounding blocks to integer codes with scales, by the least squared error."""

from dataclasses import dataclass

import numpy as np

from hmatrix._support.typing import Codes, FloatArray, Floats32, Floats64
from hmatrix.codes.precision import Precision, lloyd4
from hmatrix.codes.trellis import Trellis

_ENTRIES = 1 << 15
"""Entries of the rows whose scales are searched together."""

_SEARCH = np.concatenate([np.linspace(0.25, 1.0, 31), [1.05, 1.1]])
"""Clipping ranges that are tried, as fractions of the largest magnitude."""

_TRELLIS_SEARCH = np.geomspace(0.6, 1.6, 7)
"""Scales of a trellis that are tried, in units of the one that suits normally distributed entries."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """Integer codes and their scales.

    Parameters
    ----------
    codes
        uint8 ``(m, n)``, one code an entry, not packed.
    scales
        float32 ``(m, groups)``.
    group
        Columns that share a scale; the last group may be shorter.
    precision
        Precision of the codes.
    """

    codes: Codes
    scales: Floats32
    group: int
    precision: Precision

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the block."""
        return self.codes.shape[0], self.codes.shape[1]


def encode(block: FloatArray, precision: Precision, group: int = 0) -> Encoded:
    """Encode a block, searching the clipping range of each row and group for the least squared error.

    Parameters
    ----------
    block
        ``(m, n)``.
    precision
        An integer precision.
    group
        Columns that share a scale; 0 is all of them.
    """
    m, n = block.shape
    group = max(min(group or n, n), 1)
    codes = np.empty((m, n), np.uint8)
    scales = np.empty((m, -(-n // group)), np.float32)
    # As many rows at a time as stay in the cache.
    height = max(1, _ENTRIES // group)
    for number, start in enumerate(range(0, n, group)):
        columns = slice(start, start + group)
        for first in range(0, m, height):
            rows = slice(first, first + height)
            part = block[rows, columns].astype(np.float64)
            found = _encode_words(part, precision.trellis) if precision.trellis else _encode_rows(part, precision)
            codes[rows, columns], scales[rows, number] = found
    return Encoded(codes, scales, group, precision)


def decode(encoded: Encoded) -> Floats32:
    """Return the decoded block ``(m, n)``."""
    m, n = encoded.shape
    values = np.empty((m, n), np.float32)
    # Words begin where groups do.
    for number, start in enumerate(range(0, n, encoded.group)):
        columns = slice(start, start + encoded.group)
        values[:, columns] = encoded.precision.values(encoded.codes[:, columns]) * encoded.scales[:, number, None]
    return values


def _encode_rows(rows: Floats64, precision: Precision) -> tuple[Codes, Floats32]:
    """Encode rows that have one scale each."""
    low, high = -rows.min(axis=1), rows.max(axis=1)
    sign = np.where(low >= high, 1.0, -1.0) if precision is Precision.INT4 else np.ones(len(rows))
    reach = _reach(precision) / np.maximum(low, high).clip(min=1e-300)
    best = np.full(len(rows), np.inf)
    scales = np.zeros(len(rows), np.float32)
    for fraction in _SEARCH:
        scale = (sign * fraction / reach).astype(np.float32)
        for _ in range(2):
            values = _nearest(rows, scale, precision)
            error = np.square(rows - values * scale[:, None]).sum(axis=1)
            better = error < best
            best[better], scales[better] = error[better], scale[better]
            # The best scale for these codes, for which some codes may then be better.
            scale = ((rows * values).sum(axis=1) / np.square(values).sum(axis=1).clip(min=1e-300)).astype(np.float32)
    values = _nearest(rows, scales, precision)
    codes = np.searchsorted(lloyd4(), values) if precision is Precision.LLOYD4 else values + precision.zero
    return codes.astype(np.uint8), scales


def _encode_words(rows: Floats64, trellis: Trellis) -> tuple[Codes, Floats32]:
    """Encode rows that have one scale each in words of a trellis."""
    target = rows.astype(np.float32)
    largest = np.abs(target).max(axis=1)
    # The root of the mean square, of numbers whose squares may overflow.
    unit = trellis.unit * largest * np.sqrt(np.square(target / _or_one(largest)[:, None]).mean(axis=1))
    best, scales = np.full(len(rows), np.inf), np.zeros(len(rows), np.float32)
    for fraction in _TRELLIS_SEARCH:
        scale = (fraction * unit).astype(np.float32)
        values = trellis.read(trellis.nearest(target / _or_one(scale)[:, None], 2)).astype(np.float64)
        # The best scale for these values.
        scale = ((rows * values).sum(axis=1) / np.square(values).sum(axis=1)).astype(np.float32)
        error = np.square(rows - values * scale[:, None]).sum(axis=1)
        better = error < best
        best[better], scales[better] = error[better], scale[better]
    return trellis.nearest(target / _or_one(scales)[:, None]), scales


def _or_one(scale: Floats32) -> Floats32:
    """Return scales to divide by: 1 for those that are zero."""
    return np.where(scale != 0, scale, np.float32(1))


def _reach(precision: Precision) -> float:
    """Return the largest magnitude of a value, in units of the scale."""
    if precision is Precision.LLOYD4:
        return float(lloyd4()[-1])
    return max(precision.zero - precision.lowest, precision.highest - precision.zero)


def _nearest(rows: Floats64, scale: FloatArray, precision: Precision) -> Floats64:
    """Return the values nearest to `rows`, in units of the scale; those of a row with scale 0 do not matter."""
    scaled = rows / np.where(scale == 0, 1.0, scale.astype(np.float64))[:, None]
    values: Floats64
    if precision is Precision.LLOYD4:
        levels = lloyd4().astype(np.float64)
        values = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, scaled)]
        return values
    values = np.clip(np.rint(scaled + precision.zero), precision.lowest, precision.highest) - precision.zero
    return values
