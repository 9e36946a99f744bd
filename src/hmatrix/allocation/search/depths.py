"""Bit depths of dense leaves: integers of 1 to 8 bits, as one leaf or the sum of two.

Entries of 1 to 4 bits are read from a trellis. Those of 5 to 7 bits are the sum of two trellises, of which the finer
one rounds the error of the coarser one. Evenly spaced values are for weights that are such integers already, which no
trellis holds exactly.
"""

from enum import Enum

import numpy as np

from hmatrix._support.ties import rounding_of
from hmatrix._support.typing import FloatArray
from hmatrix.codes.encoding import decode, encode
from hmatrix.codes.precision import Precision


class Depth(Enum):
    """A bit depth; the value holds the precisions of its leaves, the coarsest first."""

    value: tuple[Precision, ...]

    # Even ones come first: of two that leave the same error, the first is taken.
    EVEN_ONE = (Precision.INT1,)
    EVEN_TWO = (Precision.INT2,)
    EVEN_FOUR = (Precision.INT4,)
    ONE = (Precision.TRELLIS1,)
    TWO = (Precision.TRELLIS2,)
    THREE = (Precision.TRELLIS3,)
    FOUR = (Precision.TRELLIS4P,)
    FAST_FOUR = (Precision.TRELLIS4,)
    FIVE = (Precision.TRELLIS4P, Precision.TRELLIS1)
    SIX = (Precision.TRELLIS4P, Precision.TRELLIS2)
    SEVEN = (Precision.TRELLIS4P, Precision.TRELLIS3)
    EIGHT = (Precision.INT8,)

    @property
    def bits(self) -> int:
        """Bits of an entry."""
        return sum(precision.bits for precision in self.value)

    @property
    def even(self) -> Precision:
        """Precision of evenly spaced values with as many bits as the coarsest leaf, or nearly so."""
        return _EVEN[self.value[0].bits]

    @property
    def left(self) -> float:
        """Its error relative to that of `even`."""
        coarse, *finer = self.value
        left = _SPARED.get(coarse, 1.0)
        for precision in finer:
            left *= _REFINED[precision.bits]
        return left


_EVEN = {1: Precision.INT1, 2: Precision.INT2, 3: Precision.INT2, 4: Precision.INT4, 8: Precision.INT8}

_SPARED = {
    Precision.TRELLIS1: 0.82,
    Precision.TRELLIS2: 0.705,
    Precision.TRELLIS3: 0.176,
    Precision.TRELLIS4: 0.565,
    Precision.TRELLIS4P: 0.494,
}
"""Error of a trellis relative to that of its `Depth.even`, for normally distributed entries."""

_REFINED = {1: 0.302, 2: 0.09, 3: 0.0227}
"""Error of a trellis of so many bits that rounds the error of another one, relative to that."""


def scales_of(block: FloatArray, depth: Depth) -> list[FloatArray]:
    """Return the scales ``(m,)`` of each leaf, each rounded by itself; the finer one rounds the error of the other."""
    scales = []
    rest = block
    for number, precision in enumerate(depth.value):
        encoded = encode(rest, precision)
        scales.append(encoded.scales[:, 0].copy())
        if number + 1 < len(depth.value):
            rest = rest - decode(encoded)
    return scales


def errors_of(block: FloatArray, depth: Depth, weights: FloatArray) -> FloatArray:
    """Return the error of each row ``(m,)`` as it is encoded; the arguments are those of `even_errors`."""
    rest = block
    for precision in depth.value:
        rest = rest - decode(encode(rest, precision))
    found: FloatArray = np.square(rest) @ weights
    return found


_FRACTIONS = tuple(0.96**k for k in range(44))
"""Clipping ranges that are tried, as fractions of the largest magnitude: that itself first, for weights on a grid."""

_TRIED = {Precision.INT1: 8, Precision.INT2: 44, Precision.INT4: 24, Precision.INT8: 8}
"""Number of ranges that are tried: deeper grids clip less."""

_ENTRIES = 1 << 16


def even_errors(block: FloatArray, precision: Precision, weights: FloatArray, *, every: int = 1) -> FloatArray:
    """Return the error of each row in evenly spaced values, with the scale of least error.

    Parameters
    ----------
    block
        ``(m, n)``, float32.
    precision
        int1, int2, int4 or int8.
    weights
        Weights of the columns in the errors that are returned, ``(n,)``. The search for scales counts all alike: with
        error feedback a column that hardly matters still passes its error on.
    every
        Step between the clipping ranges that are tried.

    Returns
    -------
    ndarray
        Weighted squares, ``(m,)``.
    """
    errors = np.zeros(len(block), np.float32)
    # As many rows at a time as stay in the cache.
    height = max(1, _ENTRIES // block.shape[1])
    for start in range(0, len(block), height):
        rows = slice(start, start + height)
        errors[rows] = _least_errors(block[rows], precision, weights, every)
    return errors


def _least_errors(block: FloatArray, precision: Precision, weights: FloatArray, every: int) -> FloatArray:
    lowest, highest, zero = precision.lowest, precision.highest, np.float32(precision.zero)
    largest = np.abs(block).max(axis=1)
    # The longer side of the grid lies where the larger entries are; only that of int4 has one.
    signs = np.where(-block.min(axis=1) >= block.max(axis=1), 1, -1) if 2 * zero > highest + lowest else 1
    unit = (signs * np.where(largest > 0, largest, 1) / max(zero - lowest, highest - zero)).astype(np.float32)
    both = np.stack([np.ones_like(weights), weights], axis=1)
    best = np.full((len(block), 2), np.inf, np.float32)
    for fraction in _FRACTIONS[: _TRIED[precision] : every]:
        values = block * (1 / (np.float32(fraction) * unit))[:, None]
        values += zero
        np.rint(values, out=values)
        np.clip(values, lowest, highest, out=values)
        values -= zero
        # The best scale for these levels.
        norm = np.einsum("ij,ij->i", values, values)
        scale = np.einsum("ij,ij->i", values, block) / np.where(norm > 0, norm, 1)
        values *= scale[:, None]
        values -= block
        np.square(values, out=values)
        errors = values @ both
        better = errors[:, 0] < best[:, 0]
        best[better] = errors[better]
    # Rows on a grid have no error but that of the sums which find their scale. It is none: otherwise a trellis, which
    # cannot hold them, would seem to leave a part of it.
    exact = best[:, 0] <= np.square(rounding_of(np.float32, block.shape[1])) * np.einsum("ij,ij->i", block, block)
    best[exact, 1] = 0
    return best[:, 1]
