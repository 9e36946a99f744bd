"""Words in which a progressive head stores its factors and rows, in the order in which the kernel reads them."""

import numpy as np

from hmatrix._support.typing import AnyArray, Codes, Flags, FloatArray, Floats32, Floats64, Positions, Words
from hmatrix.codes.encoding import encode
from hmatrix.codes.precision import Precision, from_words, to_words

STRIP = 16
"""Rows of a coarse factor that are stored together."""

BLOCK = 64
"""Columns of a fine row that are stored together: codes in their order, floats in words of 16 lanes whose parts are 16
columns apart."""

_ROWS = 1024
"""Rows that are decoded together."""

REST_STEPS = 254
"""Parts of a step to which the remainder of x is quantised, where rows are codes."""


def padded(size: int, unit: int) -> int:
    """Return the least multiple of `unit` that is at least `size`."""
    return -(-size // unit) * unit


def filled(values: FloatArray, size: int, fill: float = 0.0) -> Floats32:
    """Return a vector in float32, filled up."""
    result = np.full(size, fill, np.float32)
    result[: len(values)] = values
    return result


def symmetric(rows: FloatArray) -> tuple[Codes, Floats32]:
    """Encode rows in int8, each with a scale of its own: codes and scales; the largest entry gets the largest code."""
    scales = (np.abs(rows).max(axis=1, initial=0.0) / 127).astype(np.float32)
    divisors = np.where(scales > 0, scales, np.float32(1))
    codes = np.clip(np.rint(rows / divisors[:, None]), -127, 127) + Precision.INT8.zero
    return codes.astype(np.uint8), scales


def to_codes(rows: FloatArray, precision: Precision) -> tuple[Codes, Floats32]:
    """Encode rows of a coarse factor, each with a scale of its own: codes and scales."""
    if precision is Precision.INT8 or not rows.size:
        return symmetric(rows)
    encoded = encode(rows, precision)
    return encoded.codes, encoded.scales.reshape(len(rows))


def from_codes(codes: Codes, scales: FloatArray, precision: Precision) -> Floats64:
    """Return the rows that `to_codes` encoded."""
    return (codes.astype(np.float64) - precision.zero) * scales[:, None].astype(np.float64)


def to_strips(codes: Codes, precision: Precision) -> Words:
    """Pack codes ``(rows, columns)`` into strips."""
    rows = padded(len(codes), STRIP)
    whole = np.full((rows, codes.shape[1]), int(precision.zero), np.uint8)
    whole[: len(codes)] = codes
    words = to_words(whole, precision)
    strips = words.reshape(rows // STRIP, STRIP, words.shape[1])
    return np.ascontiguousarray(strips.transpose(0, 2, 1)).ravel()


def from_strips(words: Words, rows: int, columns: int, precision: Precision) -> Codes:
    """Return the codes that `to_strips` packed, with the rows that fill them up."""
    row_words = padded(columns, precision.per_word) // precision.per_word
    strips = words.reshape(padded(rows, STRIP) // STRIP, row_words, STRIP).transpose(0, 2, 1)
    codes: Codes = from_words(strips.reshape(padded(rows, STRIP), row_words), precision, columns)
    return codes


def is_filled_up(words: Words, real: Flags, columns: int, precision: Precision) -> bool:
    """Whether `to_strips` wrote the codes that fill up the strips and words of a factor: those of zero.

    Parameters
    ----------
    words
        Strips, as long as they are to be.
    real
        Whether each row of the strips is one of the factor.
    columns
        Columns of the factor.
    precision
        Precision of the codes.
    """
    if not words.size:
        return True
    strips = words.reshape(len(real) // STRIP, -1, STRIP)
    absent = np.flatnonzero(~real)
    rows = strips[absent // STRIP, :, absent % STRIP]
    last = strips[:, columns // precision.per_word :].transpose(0, 2, 1).reshape(len(real), -1)
    return all(
        bool((from_words(part, precision, part.shape[1] * precision.per_word)[:, first:] == int(precision.zero)).all())
        for part, first in ((rows, 0), (last, columns % precision.per_word))
    )


def is_filled_up_fine(words: Words, n: int, precision: Precision) -> bool:
    """Whether `to_fine` wrote the numbers that fill up the last blocks of rows ``(rows, words)``: zeros."""
    if n % BLOCK == 0:
        return True
    absent = _order(n, precision)[-BLOCK:] >= n
    zero = int(precision.zero) if precision is Precision.INT8 else 0
    last = words[:, -BLOCK // precision.per_word :]
    # A few rows at a time, since a vocabulary is large.
    parts = (last[first : first + _ROWS] for first in range(0, len(last), _ROWS))
    return all(bool((from_words(part, precision, BLOCK)[:, absent] == zero).all()) for part in parts)


def to_fine(weight: FloatArray, precision: Precision) -> tuple[Words, Floats32]:
    """Pack the rows of a weight ``(m, n)``; words and scales."""
    m, n = weight.shape
    scales = np.ones(m, np.float32)
    values: AnyArray = weight.astype(np.float32, copy=False)
    if precision is Precision.INT8:
        values, scales = symmetric(weight)
    zero = int(precision.zero) if precision is Precision.INT8 else 0
    whole = np.full((m, padded(n, BLOCK)), zero, values.dtype)
    whole[:, :n] = values
    return to_words(whole[:, _order(n, precision)], precision).ravel(), scales


def from_fine(words: Words, scales: Floats32, precision: Precision, n: int) -> Floats32:
    """Return the rows ``(rows, n)`` that `to_fine` packed into words ``(rows, words)``, decoded."""
    values = from_words(words, precision, padded(n, BLOCK))
    if precision is Precision.INT8:
        values = values.astype(np.float32) - np.float32(precision.zero)
    decoded: Floats32 = values[:, np.argsort(_order(n, precision))[:n]] * scales[:, None]
    return decoded


def _order(n: int, precision: Precision) -> Positions:
    """Return the column of each place of a fine row."""
    if precision is Precision.INT8:
        return np.arange(padded(n, BLOCK))
    places = np.arange(padded(n, BLOCK)).reshape(-1, precision.per_word, 16)
    return places.transpose(0, 2, 1).ravel()
