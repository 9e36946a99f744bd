"""The fine part of a progressive head: the weight, row by row."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hmatrix._support.typing import FloatArray, Floats32, Floats64, Words
from hmatrix.codes.precision import Precision
from hmatrix.heads.words import REST_STEPS, STRIP, from_fine, to_fine

CHUNK = 4096
"""Rows that are converted to float64 at once, since a vocabulary is large."""

UNIT = float(np.finfo(np.float32).eps) / 2
"""Largest relative error of rounding to float32."""


@dataclass(frozen=True, eq=False)
class FineRows:
    """The fine part of a head.

    Parameters
    ----------
    precision
        Precision of the rows.
    words, scales
        The rows as `hmatrix.heads.packed_head.PackedHead` stores them.
    weight
        The rows decoded, ``(m, n)``.
    norms
        Norms of the rows ``(m,)``.
    """

    precision: Precision
    words: Words
    scales: Floats32
    weight: Floats32
    norms: Floats64

    @classmethod
    def of(cls, weight: FloatArray, precision: Precision) -> "FineRows":
        """Store a weight ``(m, n)``."""
        m, n = weight.shape
        words, scales = to_fine(weight, precision)
        rows = from_fine(words.reshape(m, -1), scales, precision, n)
        return cls(precision, words, scales, rows, np.sqrt(by_chunk(rows, lambda A: np.square(A).sum(axis=1))))

    @property
    def summing(self) -> float:
        """Largest rounding error of sums, relative to norms."""
        columns: int = self.weight.shape[1]
        return 2 * (columns / STRIP + 16) * UNIT

    @cached_property
    def rounding(self) -> float:
        """Largest rounding error of products of the rows, as a multiple of the norm of x."""
        codes = np.sqrt(self.weight.shape[1]) * 0.5 / 127 / REST_STEPS * (1 + 1e-3)
        return (self.summing + (codes if self.precision is Precision.INT8 else 0.0)) * float(self.norms.max())


def offset_of(bias: FloatArray) -> float:
    """Return the largest rounding error of refined outputs that does not depend on x."""
    return 16 * UNIT * float(np.abs(bias).max(initial=0.0))


def by_chunk(weight: FloatArray, function: Callable[[Floats64], Floats64]) -> Floats64:
    """Apply a function of rows to a weight, a few rows in float64 at a time."""
    starts = range(0, len(weight), CHUNK)
    return np.concatenate([function(weight[start : start + CHUNK].astype(np.float64)) for start in starts])
