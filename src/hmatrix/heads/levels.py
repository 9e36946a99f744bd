"""The levels of a progressive head: coarse outputs of rows or of clusters of rows, and bounds of their errors."""

from dataclasses import astuple, dataclass, fields
from typing import Self

import numpy as np

from hmatrix._support.typing import Codes, Floats32, Words
from hmatrix.codes.precision import Precision
from hmatrix.errors import ArgumentError
from hmatrix.heads.words import STRIP, from_strips, padded


@dataclass(frozen=True)
class Bound:
    """A bound of the errors of outputs. Files and state dicts hold its numbers as seven float32 in this order.

    ``noise = quantised * step of x + relative * |x| + inner * step of t``, with ``t = V^T x``.

    Parameters
    ----------
    scale
        Factor of the norm of x outside the span of V, times the norm of the row's remainder; 1 is Cauchy-Schwarz.
    quantised, relative, inner
        Factors of the noise of the coarse outputs.
    rounding, offset
        Bound ``rounding * |x| + offset`` of the rounding error of a refined output.
    constant
        Factor of the norm of the row's remainder alone.
    """

    scale: float
    quantised: float = 0.0
    relative: float = 0.0
    inner: float = 0.0
    rounding: float = 0.0
    offset: float = 0.0
    constant: float = 0.0

    def __post_init__(self) -> None:
        values = self.as_array().tolist()
        if not all(np.isfinite(value) and value >= 0 for value in values):
            raise ArgumentError("bound", f"is {values}", "give finite numbers of at least 0")

    @classmethod
    def of_array(cls, array: Floats32) -> Self:
        """Return the bound that a file holds as float32 ``(7,)``.

        Raises
        ------
        ArgumentError
            If the number of entries is another, or one is negative or not finite.
        """
        if len(array) != len(fields(cls)):
            raise ArgumentError("bound", f"has {len(array)} entries", "give seven numbers")
        return cls(*array.tolist())

    def as_array(self) -> Floats32:
        """Return the numbers as float32 ``(7,)``."""
        return np.array(astuple(self), np.float32)


@dataclass(frozen=True, eq=False)
class Level:
    """Coarse outputs ``U t + bias``, of rows or of clusters of rows. All arrays are filled up to whole strips.

    Parameters
    ----------
    bound
        Bound of the difference between coarse and fine outputs.
    precision
        Precision of U.
    factor, scales
        U: strips of words, and a scale for each row.
    bias
        ``-inf`` where there is no row.
    remainder
        Bounds of the norms of the weight's rows outside the span of V.
    reach
        Norms by which each row multiplies an error of x in the span of V.
    """

    bound: Bound
    precision: Precision
    factor: Words
    scales: Floats32
    bias: Floats32
    remainder: Floats32
    reach: Floats32

    @classmethod
    def none(cls, precision: Precision) -> "Level":
        """Return a level of nothing."""
        nothing = np.empty(0, np.float32)
        return cls(Bound(0.0), precision, np.empty(0, np.uint32), nothing, nothing, nothing, nothing)

    def codes(self, rank: int) -> Codes:
        """Return the codes of U, with the zeros that fill up strips and words."""
        return from_strips(self.factor, len(self.bias), padded(rank, STRIP), self.precision)
