"""Bit depths of dense leaves: uniform grids of 2 to 256 levels, as one integer leaf or the sum of two.

A grid of few levels and another of as many finer ones inside each of its steps make one uniform grid: int2 and
int1 of half its scale are eight levels, int4 and int2 of a quarter are 64.
"""

from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hmatrix._validation import FloatArray
from hmatrix.precision import Codes, Encoded, Precision, encode


class Depth(Enum):
    """A bit depth; the value holds the precisions of its leaves, the coarsest first."""

    value: tuple[Precision, ...]

    ONE = (Precision.INT1,)
    TWO = (Precision.INT2,)
    THREE = (Precision.INT2, Precision.INT1)
    FOUR = (Precision.INT4,)
    FIVE = (Precision.INT4, Precision.INT1)
    SIX = (Precision.INT4, Precision.INT2)
    EIGHT = (Precision.INT8,)

    @cached_property
    def bits(self) -> int:
        """Bits of an entry."""
        return sum(precision.bits for precision in self.value)

    @cached_property
    def factors(self) -> tuple[int, ...]:
        """Scale of each leaf, in steps of the whole grid."""
        rest = self.bits
        factors = []
        for precision in self.value:
            rest -= precision.bits
            factors.append(2**rest)
        return tuple(factors)

    @cached_property
    def zero(self) -> float:
        """The level that stands for zero; it may lie between two of them."""
        return sum(factor * precision.zero for factor, precision in zip(self.factors, self.value, strict=True))

    @property
    def lowest(self) -> int:
        """The lowest level; int8 leaves out one, so that it is symmetric."""
        return 1 if self is Depth.EIGHT else 0

    @property
    def highest(self) -> int:
        """The highest level."""
        return (1 << self.bits) - 1

    def signs(self, block: FloatArray) -> FloatArray:
        """Return the sign of each row's scale: the longer side of the grid lies where the larger entries are.

        Parameters
        ----------
        block
            ``(m, n)``.
        """
        if 2 * self.zero <= self.lowest + self.highest:
            return np.ones(len(block), block.dtype)
        return np.where(-block.min(axis=1) >= block.max(axis=1), 1, -1).astype(block.dtype)

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
        rest = levels
        leaves = []
        for factor, precision in zip(self.factors, self.value, strict=True):
            codes, rest = np.divmod(rest, np.uint8(factor)) if factor > 1 else (rest, rest)
            leaves.append(Encoded(codes, (scales * factor).astype(np.float32), group, precision))
        return tuple(leaves)


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
    reach = depth.zero - depth.lowest if 2 * depth.zero > depth.highest + depth.lowest else depth.highest - depth.zero
    unit = depth.signs(block) * np.where(largest > 0, largest, 1) / np.float32(reach)
    both = np.stack([np.ones_like(weights), weights], axis=1)
    best = np.full((len(block), 2), np.inf, np.float32)
    scales = np.zeros(len(block), np.float32)
    zero = np.float32(depth.zero)
    for fraction in _FRACTIONS[: _TRIED[depth.bits] : every]:
        values = block * (1 / (np.float32(fraction) * unit))[:, None]
        values += zero
        np.rint(values, out=values)
        np.clip(values, depth.lowest, depth.highest, out=values)
        values -= zero
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
