"""Low-rank approximation of a block by decomposing all of it.

A compressor is called with a block and a truncation and returns a `LowRank`. Adaptive cross
approximation, which need not see all of the block, stands in ``aca``.

References
----------
N. Halko, P. G. Martinsson, J. A. Tropp, *Finding structure with randomness*, SIAM Review 53 (2011)
217-288, doi:10.1137/090771806 (`RandomizedSVD`).
P. Businger, G. H. Golub, *Linear least squares solutions by Householder transformations*, Numerische
Mathematik 7 (1965) 269-276, doi:10.1007/BF01436084 (`PivotedQR`).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.linalg

from hmatrix._support.checks import check_integer, refuse_masked
from hmatrix._support.norms import frobenius
from hmatrix._support.ties import rounding_of
from hmatrix._support.typing import FloatArray, Generator
from hmatrix.lowrank.entries import Block
from hmatrix.lowrank.factors import LowRank, Truncation, rounding_of_tails, tail_norms, truncated_svd


class Compressor(Protocol):
    """Approximates a block by low rank."""

    def __call__(self, block: Block, truncation: Truncation) -> LowRank:
        """Return an approximation of `block` ``(m, n)`` by the rule of `truncation`."""
        ...


@dataclass(frozen=True)
class TruncatedSVD:
    """The best approximation of each rank (Eckart, Young, Mirsky).

    Examples
    --------
    >>> block = 1 / np.add.outer(np.arange(1.0, 50), np.arange(1.0, 40))
    >>> factors = hm.TruncatedSVD()(block, hm.Truncation(rtol=1e-3))
    >>> bool(np.linalg.norm(block - factors.to_dense()) <= 1e-3 * np.linalg.norm(block))
    True
    """

    def __call__(self, block: Block, truncation: Truncation) -> LowRank:
        refuse_masked("block", block)
        return truncated_svd(np.asarray(block), truncation)


@dataclass(frozen=True)
class PivotedQR:
    """Rank-revealing QR: Householder QR with column pivoting, cut after k columns.

    Its error is known exactly, as the norm of the part that is cut from R.

    Examples
    --------
    >>> block = np.outer(np.arange(50.0), np.arange(40.0))
    >>> hm.PivotedQR()(block, hm.Truncation(rtol=1e-6)).rank
    1
    """

    def __call__(self, block: Block, truncation: Truncation) -> LowRank:
        refuse_masked("block", block)
        Q, R, pivots = scipy.linalg.qr(np.asarray(block), mode="economic", pivoting=True, check_finite=False)
        errors = tail_norms(np.array([frobenius(row) for row in R]))
        norm = float(errors[0])
        k = truncation.choose(errors, norm, block.shape, rounding_of(R.dtype, len(R)) * norm)
        V = np.empty((R.shape[1], k), dtype=R.dtype)
        V[pivots] = R[:k].T
        return LowRank(np.ascontiguousarray(Q[:, :k]), V)


@dataclass(frozen=True)
class RandomizedSVD:
    """SVD of the block's projection on a range found by random sampling.

    With a tolerance the range grows until the error outside of it, which is computed exactly, leaves room for the
    truncation, so that the tolerance holds as it does for `TruncatedSVD`.

    Parameters
    ----------
    oversampling
        Columns of the sample beyond the rank.
    power_iterations
        More of them sharpen the range where singular values decay slowly.
    rng
        Seed or generator of the sample. The same seed gives the same block the same factors.

    Examples
    --------
    >>> block = np.outer(np.arange(50.0), np.arange(40.0))
    >>> hm.RandomizedSVD(rng=0)(block, hm.Truncation(rtol=1e-6)).rank
    1
    """

    oversampling: int = 10
    power_iterations: int = 2
    rng: Generator = 0

    def __post_init__(self) -> None:
        check_integer("oversampling", self.oversampling, at_least=0)
        check_integer("power_iterations", self.power_iterations, at_least=0)

    def __call__(self, block: Block, truncation: Truncation) -> LowRank:
        refuse_masked("block", block)
        A = np.asarray(block)
        rng = np.random.default_rng(self.rng)
        largest = min(A.shape)
        norm = frobenius(A)
        tolerance = truncation.tolerance(norm) if truncation.has_tolerance else None
        samples = min(largest, (truncation.cap(A.shape) if tolerance is None else 8) + self.oversampling)
        while True:
            Q = self._range(A, samples, rng)
            projection = Q.T @ A
            if tolerance is None or samples == largest:
                missed = 0.0
                break
            missed = frobenius(A - Q @ projection)
            if missed <= 0.5 * tolerance or samples >= truncation.cap(A.shape) + self.oversampling:
                break
            samples = min(largest, 2 * samples)
        # The range's error and the truncation's are orthogonal, so that their squares add up.
        U, s, Vt = scipy.linalg.svd(projection, full_matrices=False, check_finite=False)
        k = truncation.choose(np.hypot(tail_norms(s), missed), norm, A.shape, rounding_of_tails(s))
        return LowRank(Q @ (U[:, :k] * s[:k]), np.ascontiguousarray(Vt[:k].T))

    def _range(self, A: FloatArray, samples: int, rng: np.random.Generator) -> FloatArray:
        """Return an orthonormal basis ``(m, samples)`` that holds most of A's range."""
        sketch = A @ rng.standard_normal((A.shape[1], samples)).astype(A.dtype)
        Q: FloatArray = scipy.linalg.qr(sketch, mode="economic", check_finite=False)[0]
        for _ in range(self.power_iterations):
            P = scipy.linalg.qr(A.T @ Q, mode="economic", check_finite=False)[0]
            Q = scipy.linalg.qr(A @ P, mode="economic", check_finite=False)[0]
        return Q
