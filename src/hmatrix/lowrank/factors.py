"""Low-rank blocks, the rule that chooses their rank, and recompression.

References
----------
W. Hackbusch, *Hierarchical Matrices: Algorithms and Analysis*, Springer 2015, chapter 2,
doi:10.1007/978-3-662-47324-5.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from hmatrix._support.checks import as_array, check_integer, check_number
from hmatrix._support.ties import rounding_of
from hmatrix._support.typing import FloatArray
from hmatrix.errors import ArgumentError

_MOST_EXCESS = 1e-5
"""Largest part of a tolerance by which it may be exceeded, however large rounding is beside it."""


@dataclass(frozen=True)
class Truncation:
    """The rule by which every compressor chooses the rank.

    The rank is the smallest k, in the compressor's own order, whose error is at most
    ``max(atol, rtol * norm)``, both in the Frobenius norm, and never more than `max_rank`.
    A zero block has rank 0.

    Parameters
    ----------
    max_rank
        Largest rank of a block.
    rtol
        Error relative to the norm of the block.
    atol
        Error of a block.

    Raises
    ------
    ArgumentError
        If none is given, or one is out of range.

    Examples
    --------
    >>> hm.Truncation(rtol=0.1).has_tolerance, hm.Truncation(max_rank=30).has_tolerance
    (True, False)
    >>> hm.Truncation(max_rank=5).cap((3, 8))
    3
    """

    max_rank: int | None = None
    rtol: float | None = None
    atol: float | None = None

    def __post_init__(self) -> None:
        if self.max_rank is None and self.rtol is None and self.atol is None:
            raise ArgumentError("truncation", "has neither a rank nor a tolerance", "give max_rank, rtol or atol")
        if self.max_rank is not None:
            check_integer("max_rank", self.max_rank, at_least=1)
        for name in ("rtol", "atol"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), at_least=0.0)

    @property
    def has_tolerance(self) -> bool:
        """Whether an error is stated, and not a rank alone."""
        return self.rtol is not None or self.atol is not None

    def tolerance(self, norm: float) -> float:
        """Return the error allowed for a block of Frobenius norm `norm`."""
        return max(self.atol or 0.0, (self.rtol or 0.0) * norm)

    def cap(self, shape: tuple[int, int]) -> int:
        """Return the largest rank for a block of `shape`."""
        return min(*shape) if self.max_rank is None else min(*shape, self.max_rank)

    def choose(self, errors: FloatArray, norm: float, shape: tuple[int, int], rounding: float = 0.0) -> int:
        """Return the rank.

        Parameters
        ----------
        errors
            ``errors[k]`` is the Frobenius error with rank k, not increasing.
        norm
            Frobenius norm of the block.
        shape
            Shape of the block.
        rounding
            Largest error of `errors` by rounding: an error that should equal the tolerance meets it.
        """
        if norm == 0:
            return 0
        tolerance = self.tolerance(norm)
        sufficient = np.flatnonzero(errors <= tolerance + min(rounding, _MOST_EXCESS * tolerance))
        return min(int(sufficient[0]) if sufficient.size else len(errors) - 1, self.cap(shape))


@dataclass(frozen=True, eq=False)
class LowRank:
    """The block ``U @ V.T``.

    Parameters
    ----------
    U
        ``(m, k)``.
    V
        ``(n, k)``.

    Examples
    --------
    >>> block = hm.LowRank(np.ones((4, 1)), np.arange(3.0)[:, None])
    >>> block.rank, block.shape
    (1, (4, 3))
    >>> block.to_dense()[0].tolist()
    [0.0, 1.0, 2.0]
    """

    U: FloatArray
    V: FloatArray

    def __post_init__(self) -> None:
        for factor in (self.U, self.V):
            as_array("factors", factor)
        if self.U.ndim != 2 or self.V.ndim != 2 or self.U.shape[1] != self.V.shape[1]:
            raise ArgumentError(
                "factors", f"have the shapes {self.U.shape} and {self.V.shape}", "give (m, k) and (n, k)"
            )

    @property
    def rank(self) -> int:
        """Number of columns of the factors."""
        return int(self.U.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the block."""
        return self.U.shape[0], self.V.shape[0]

    def to_dense(self) -> FloatArray:
        """Return the block ``(m, n)``."""
        dense: FloatArray = self.U @ self.V.T
        return dense


def tail_norms(values: FloatArray) -> FloatArray:
    """Return ``norm(values[k:])`` for k = 0 to the length, without cancellation."""
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    squares = np.square(values.astype(np.float64) / largest)
    norms: FloatArray = largest * np.sqrt(np.append(np.cumsum(squares[::-1])[::-1], 0.0))
    return norms


def rounding_of_tails(values: FloatArray) -> float:
    """Return the largest error of norms of singular values, which all carry the rounding of the largest."""
    return rounding_of(values.dtype, len(values)) * float(values.max(initial=0.0))


def truncated_svd(block: FloatArray, truncation: Truncation) -> LowRank:
    """Return the best approximation of `block` ``(m, n)`` that `truncation` allows; U carries the singular values."""
    U, s, Vt = scipy.linalg.svd(block, full_matrices=False, check_finite=False)
    errors = tail_norms(s)
    k = truncation.choose(errors, float(errors[0]), block.shape, rounding_of_tails(s))
    return LowRank(U[:, :k] * s[:k], np.ascontiguousarray(Vt[:k].T))


def recompress(block: LowRank, truncation: Truncation) -> LowRank:
    """Return the best approximation of a low-rank block that `truncation` allows, in O((m + n) k^2 + k^3).

    The truncation is relative to `block` itself, not to the matrix that it approximates.

    Examples
    --------
    >>> block = hm.LowRank(np.ones((4, 2)), np.ones((3, 2)))
    >>> hm.recompress(block, hm.Truncation(rtol=1e-6)).rank
    1
    """
    if block.rank == 0:
        return block
    Qu, Ru = scipy.linalg.qr(block.U, mode="economic", check_finite=False)
    Qv, Rv = scipy.linalg.qr(block.V, mode="economic", check_finite=False)
    core = truncated_svd(Ru @ Rv.T, truncation)
    return LowRank(Qu @ core.U, Qv @ core.V)
