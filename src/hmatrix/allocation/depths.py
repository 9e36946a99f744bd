"""Bit depths of dense leaves: grids of 2 to 256 values, as one integer leaf or the sum of two.

A grid of few values and a finer one around each of them make one grid: int2 and int1 of half its scale are eight evenly
spaced values, lloyd4 with int1 or int2 is 32 or 64 that lie closer together where entries are many.
"""

from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hmatrix._validation import FloatArray
from hmatrix.precision import Codes, Encoded, Precision, encode

_APART = 14.0
"""Of lloyd4's values, in units of its scale, as far as a finer grid takes them to be: the best for normal entries."""

_REACH = 160
_HALVES = np.arange(-2 * _REACH, 2 * _REACH) / 2
"""Numbers in steps of a half: from one to the next the nearest value of an uneven grid is the same."""


class Depth(Enum):
    """A bit depth; the value holds the precisions of its leaves, the coarsest first."""

    value: tuple[Precision, ...]

    ONE = (Precision.INT1,)
    TWO = (Precision.INT2,)
    THREE = (Precision.INT2, Precision.INT1)
    FOUR = (Precision.INT4,)
    LLOYD = (Precision.LLOYD4,)
    FIVE = (Precision.LLOYD4, Precision.INT1)
    SIX = (Precision.LLOYD4, Precision.INT2)
    EIGHT = (Precision.INT8,)

    @cached_property
    def bits(self) -> int:
        """Bits of an entry."""
        return sum(precision.bits for precision in self.value)

    @property
    def is_even(self) -> bool:
        """Whether neighbouring values differ by one."""
        return Precision.LLOYD4 not in self.value

    @cached_property
    def values(self) -> FloatArray:
        """The values of all levels, in units of the scale, rising, float32 ``(2**bits,)``."""
        grid = np.zeros(1, np.float32)
        for factor, precision in zip(self._factors, self.value, strict=True):
            plane = np.float32(factor) * precision.values(np.arange(2**precision.bits, dtype=np.uint8))
            grid = np.add.outer(grid, plane).ravel()
        return grid

    @property
    def zero(self) -> float:
        """The level that stands for zero; it may lie between two of them."""
        return -float(self.values[0]) if self.is_even else self.highest / 2

    @property
    def lowest(self) -> int:
        """The lowest level; int8 leaves out one, so that it is symmetric."""
        return 1 if self is Depth.EIGHT else 0

    @property
    def highest(self) -> int:
        """The highest level."""
        return (1 << self.bits) - 1

    @property
    def sides(self) -> tuple[float, float]:
        """How far the values reach below and above zero."""
        return -float(self.values[self.lowest]), float(self.values[self.highest])

    def signs(self, block: FloatArray) -> FloatArray:
        """Return the sign of each row's scale: the longer side of the grid lies where the larger entries are.

        Parameters
        ----------
        block
            ``(m, n)``.
        """
        below, above = self.sides
        if below <= above:
            return np.ones(len(block), block.dtype)
        return np.where(-block.min(axis=1) >= block.max(axis=1), 1, -1).astype(block.dtype)

    def nearest(self, wanted: FloatArray) -> FloatArray:
        """Return the nearest values of the grid; both are in units of the scale, in any shape."""
        if not self.is_even:
            halves = (2 * (np.clip(wanted, -_REACH, _REACH) + np.float32(_REACH))).astype(np.intp)
            return np.take(self._nearest, halves, mode="clip")
        zero = np.float32(self.zero)
        values = wanted + zero
        np.rint(values, out=values)
        np.clip(values, self.lowest, self.highest, out=values)
        values -= zero
        return values

    def levels(self, values: FloatArray) -> Codes:
        """Return the levels of values of the grid, in any shape."""
        return (values + self.zero if self.is_even else np.searchsorted(self.values, values)).astype(np.uint8)

    def split(self, levels: Codes, scales: npt.NDArray[Any], group: int) -> tuple[Encoded, ...]:
        """Return what the leaves hold.

        Parameters
        ----------
        levels
            ``(m, n)``.
        scales
            Of the whole grid, ``(m, groups)``.
        group
            Columns that share a scale.
        """
        bits = self.bits
        leaves = []
        for factor, precision in zip(self._factors, self.value, strict=True):
            bits -= precision.bits
            codes, levels = np.divmod(levels, np.uint8(1 << bits))
            leaves.append(Encoded(codes, (scales * factor).astype(np.float32), group, precision))
        return tuple(leaves)

    @cached_property
    def _factors(self) -> tuple[float, ...]:
        """Scale of each leaf, in units of that of the whole grid."""
        bits = self.bits
        factors = []
        for precision in self.value:
            bits -= precision.bits
            finer = 2.0**bits if self.is_even else _APART / 2**precision.bits
            factors.append(1.0 if precision is Precision.LLOYD4 else finer)
        return tuple(factors)

    @cached_property
    def _nearest(self) -> FloatArray:
        """For each of `_HALVES`, the value that numbers from there to the next are nearest to."""
        bounds = (self.values[1:] + self.values[:-1]) / 2
        found: FloatArray = self.values[np.searchsorted(bounds, _HALVES + 0.25)]
        return found


_FRACTIONS = tuple(1.1 * 0.96**k for k in range(44))
"""Clipping ranges that are tried, as fractions of the largest magnitude."""

_TRIED = {1: 8, 2: 44, 3: 36, 4: 24, 5: 20, 6: 16, 8: 8}
"""How many of them, for each number of bits: deeper grids clip less."""


_ENTRIES = 1 << 16


def best_scales(
    block: FloatArray, depth: Depth, weights: FloatArray, *, every: int = 1
) -> tuple[FloatArray, FloatArray]:
    """Search the scale of each row that leaves the least squared error.

    Parameters
    ----------
    block
        ``(m, n)``, float32.
    depth
        The grid.
    weights
        Of the columns in the errors that are returned, ``(n,)``. The search counts all alike: with error feedback
        a column that hardly matters still passes on what its grid cannot hold.
    every
        Only each so many of the clipping ranges is tried.

    Returns
    -------
    scales
        ``(m,)``.
    errors
        ``(m,)``, weighted.
    """
    scales, errors = np.zeros((2, len(block)), np.float32)
    # As many rows at a time as stay in the cache.
    height = max(1, _ENTRIES // block.shape[1])
    for start in range(0, len(block), height):
        rows = slice(start, start + height)
        scales[rows], errors[rows] = _search(block[rows], depth, weights, every)
    return scales, errors


def first_scales(block: FloatArray, depth: Depth) -> FloatArray:
    """Return scales ``(m,)`` to start from: those of plain rounding, so that what follows is no worse than that."""
    if len(depth.value) == 1:
        return encode(block, depth.value[0]).scales[:, 0]
    return best_scales(block, depth, np.ones(block.shape[1], np.float32))[0]


def _search(block: FloatArray, depth: Depth, weights: FloatArray, every: int) -> tuple[FloatArray, FloatArray]:
    largest = np.abs(block).max(axis=1)
    unit = depth.signs(block) * np.where(largest > 0, largest, 1) / np.float32(max(depth.sides))
    both = np.stack([np.ones_like(weights), weights], axis=1)
    best = np.full((len(block), 2), np.inf, np.float32)
    scales = np.zeros(len(block), np.float32)
    for fraction in _FRACTIONS[: _TRIED[depth.bits] : every]:
        values = depth.nearest(block * (1 / (np.float32(fraction) * unit))[:, None])
        # The best scale for these levels.
        norm = np.einsum("ij,ij->i", values, values)
        scale = np.einsum("ij,ij->i", values, block) / np.where(norm > 0, norm, 1)
        values *= scale[:, None]
        values -= block
        np.square(values, out=values)
        errors = values @ both
        better = errors[:, 0] < best[:, 0]
        best[better], scales[better] = errors[better], scale[better]
    return scales, best[:, 1]
