"""The ways in which a block may be stored."""

from dataclasses import dataclass

import numpy as np

from hmatrix._support.typing import Floats64
from hmatrix.allocation.search.depths import Depth
from hmatrix.codes.precision import Precision


@dataclass(frozen=True)
class Form:
    """A way to store a block: dense, by low rank, as the sum of both, or not at all.

    Parameters
    ----------
    dense
        Grid or floating-point precision of the dense part; ``None`` for none.
    rank
        Rank of the low-rank part, 0 for none.
    factors
        Precision of its factors.
    """

    dense: Depth | Precision | None = None
    rank: int = 0
    factors: Precision = Precision.FLOAT32

    @property
    def is_sum(self) -> bool:
        """Whether it has a dense part and a low-rank one."""
        return self.rank > 0 and self.dense is not None

    @property
    def planes(self) -> tuple[Precision, ...]:
        """Precisions of the leaves of the dense part."""
        if self.dense is None:
            return ()
        return self.dense.value if isinstance(self.dense, Depth) else (self.dense,)


FACTORS = (Precision.FLOAT32, Precision.BFLOAT16, Precision.INT8, Precision.TRELLIS4)
_SUMMED = (Depth.ONE, Depth.TWO, Depth.THREE, Depth.FOUR)
_FLOATS = (Precision.BFLOAT16, Precision.FLOAT32)

DENSE_FORMS = (Form(), *(Form(depth) for depth in Depth), *(Form(precision) for precision in _FLOATS))
"""The forms without a low-rank part; the first is to drop the block."""

_GAUSSIAN_ERROR = {32: 0.0, 16: 2.0**-18 / 2, 8: 4.2e-5, 4: 0.0064}
"""Mean square error of normally distributed numbers in so many bits, relative."""


def factor_error(precision: Precision) -> float:
    """Return the error that rounding both factors adds, relative to the square of their product."""
    return 2 * _GAUSSIAN_ERROR[precision.bits]


def rank_grid(most: int) -> tuple[int, ...]:
    """Return the ranks that are considered: all small ones, then in steps of an eighth."""
    ranks = [1]
    while ranks[-1] < most:
        ranks.append(ranks[-1] + max(1, ranks[-1] // 8))
    return tuple(rank for rank in ranks if rank <= most)


def rank_forms(ranks: tuple[int, ...], *, sums: bool) -> tuple[Form, ...]:
    """Return the forms with a low-rank part: each precision of the factors alone, then sums with int8 factors."""
    alone = [Form(None, rank, precision) for precision in FACTORS for rank in ranks]
    summed = _SUMMED if sums else ()
    return (*alone, *(Form(depth, rank, Precision.INT8) for depth in summed for rank in ranks))


def rank_errors(
    energies: Floats64, entries: Floats64 | None, dense: Floats64, ranks: tuple[int, ...], rounded: float | None = None
) -> Floats64:
    """Return the errors of `rank_forms`.

    Parameters
    ----------
    energies
        Squared singular values of the block by its outputs, not increasing, ``(k,)``.
    entries
        Squared singular values of its entries, columns weighted by their conditional variances, ``(k,)``: they tell the
        size of the numbers that are left to round. Low rank takes the outputs' large directions, and may leave the
        entries as they were. ``None`` is for no sums.
    dense
        Errors of `DENSE_FORMS`, ``(forms,)``; the first is the energy of the block.
    ranks
        The ranks; those above k leave no error by truncation.
    rounded
        Error that int8 activations add to the product with the whole block; ``None`` for exact ones.
    """
    tails = np.append(np.cumsum(energies[::-1])[::-1], 0.0)
    tail = tails[np.minimum(ranks, len(energies))]
    captured = tails[0] - tail
    alone = [tail + factor_error(precision) * captured for precision in FACTORS]
    if rounded is not None:
        # V meets rounded inputs, and U its own products with them, rounded once more.
        share = captured / tails[0] if tails[0] > 0 else np.zeros_like(tail)
        again = _GAUSSIAN_ERROR[8] * captured
        alone = [
            error + rounded * share + again if precision.is_integer else error
            for precision, error in zip(FACTORS, alone, strict=True)
        ]
    if entries is None:
        return np.concatenate(alone)
    # The remainder of low rank is rounded with an error in proportion to it, which is at least the entries' tail.
    tails = np.append(np.cumsum(entries[::-1])[::-1], 0.0)
    left = tails[np.minimum(ranks, len(entries))] / tails[0] if tails[0] > 0 else np.zeros_like(tail)
    error_of = dict(zip(DENSE_FORMS, dense, strict=True))
    sums = [error_of[Form(depth)] * left + factor_error(Precision.INT8) * captured for depth in _SUMMED]
    if rounded is not None:
        sums = [error + rounded + again for error in sums]
    return np.concatenate([*alone, *sums])
