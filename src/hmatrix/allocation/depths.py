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
from hmatrix.precision import Codes, Encoded, Precision


class Depth(Enum):
    """A bit depth; the value holds the precisions of its leaves, the coarsest first."""

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
        return 2**self.bits - 1

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


_FRACTIONS = (1.0, 0.85, 0.72, 0.6, 0.5, 0.42, 0.33, 0.25, 0.17)
"""Clipping ranges that are tried, as fractions of the largest magnitude; deeper grids clip less."""


def best_scales(block: FloatArray, depth: Depth, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Search the scale of each row that leaves the least weighted squared error.

    Parameters
    ----------
    block
        ``(m, n)``, float32.
    depth
        The grid.
    weights
        Of the columns, ``(n,)``.

    Returns
    -------
    scales
        ``(m,)``.
    errors
        ``(m,)``.
    """
    largest = np.abs(block).max(axis=1)
    reach = depth.zero - depth.lowest if 2 * depth.zero > depth.highest + depth.lowest else depth.highest - depth.zero
    unit = depth.signs(block) * np.where(largest > 0, largest, 1) / np.float32(reach)
    best = np.full(len(block), np.inf, np.float32)
    scales = np.zeros(len(block), np.float32)
    zero = np.float32(depth.zero)
    for fraction in _FRACTIONS[: len(_FRACTIONS) if depth.bits <= 3 else 9 - depth.bits]:
        scale = np.float32(fraction) * unit
        values = block * (1 / scale)[:, None]
        values += zero
        np.rint(values, out=values)
        np.clip(values, depth.lowest, depth.highest, out=values)
        values -= zero
        weighted = values * weights
        # The best scale for these levels.
        norm = np.einsum("ij,ij->i", weighted, values)
        scale = np.einsum("ij,ij->i", weighted, block) / np.where(norm > 0, norm, 1)
        values *= scale[:, None]
        values -= block
        np.square(values, out=values)
        errors = values @ weights
        better = errors < best
        best[better], scales[better] = errors[better], scale[better]
    return scales, best
