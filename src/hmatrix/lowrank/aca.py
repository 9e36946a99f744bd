"""Adaptive cross approximation (ACA): a block from some of its rows and columns.

ACA is for entry functions of smooth kernels. On a block without decay, such as one of a trained
weight, its cross products may be farther from the block than the zero matrix is.

References
----------
M. Bebendorf, *Approximation of boundary element matrices*, Numerische Mathematik 86 (2000) 565-589,
doi:10.1007/PL00005410.
M. Bebendorf, S. Rjasanow, *Adaptive low-rank approximation of collocation matrices*, Computing 70
(2003) 1-24, doi:10.1007/s00607-002-1469-6.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hmatrix._support.checks import check_integer, refuse_masked
from hmatrix._support.norms import frobenius
from hmatrix._support.ties import first_largest, rounding_of
from hmatrix._support.typing import Flags, FloatArray, Generator
from hmatrix.lowrank.entries import Block
from hmatrix.lowrank.factors import LowRank, Truncation


@dataclass(frozen=True)
class FullACA:
    """ACA by crosses through the largest entry of the remainder; reads the whole block, knows its error exactly.

    Examples
    --------
    >>> block = 1 / np.add.outer(np.arange(1.0, 50), np.arange(1.0, 40))
    >>> factors = hm.FullACA()(block, hm.Truncation(rtol=1e-6))
    >>> bool(np.linalg.norm(block - factors.to_dense()) <= 1e-6 * np.linalg.norm(block))
    True
    """

    def __call__(self, block: Block, truncation: Truncation) -> LowRank:
        refuse_masked("block", block)
        residual = np.array(block)
        factors = _Factors(residual.shape, residual.dtype)
        norm = frobenius(residual)
        tolerance = truncation.tolerance(norm)
        cap = truncation.cap(residual.shape)
        error = norm
        while error > tolerance and factors.rank < cap:
            i, j = np.unravel_index(int(np.argmax(np.abs(residual))), residual.shape)
            u, v = residual[:, j] / residual[i, j], residual[i].copy()
            factors.append(u, v)
            residual -= np.outer(u, v)
            error = frobenius(residual)
        return factors.low_rank()


@dataclass(frozen=True)
class PartialACA:
    """ACA by crosses through rows and columns found on the way; reads O(k (m + n)) entries.

    The error is estimated by the norm of the last cross product. Where that estimate meets the tolerance it is
    validated on rows and columns that were not read. Where these deviate, crosses through them are added, and they are
    checked again. The error is an estimate all the same, and may be exceeded.

    Parameters
    ----------
    validation
        Rows and columns looked at in each validation. 0 trusts the estimate.
    rng
        Seed or generator of their choice.

    Examples
    --------
    >>> block = 1 / np.add.outer(np.arange(1.0, 50), np.arange(1.0, 40))
    >>> factors = hm.PartialACA()(block, hm.Truncation(rtol=1e-6))
    >>> factors.rank < 15
    True
    """

    validation: int = 8
    rng: Generator = 0

    def __post_init__(self) -> None:
        check_integer("validation", self.validation, at_least=0)

    def __call__(self, block: Block, truncation: Truncation) -> LowRank:
        refuse_masked("block", block)
        rng = np.random.default_rng(self.rng)
        factors = _Factors(block.shape, block.dtype)
        unseen = np.ones(block.shape[0], dtype=bool)
        cap = truncation.cap(block.shape)
        row = 0
        while factors.rank < cap:
            unseen[row] = False
            residual = factors.residual_row(block, row)
            column = int(np.argmax(np.abs(residual)))
            if residual[column] != 0:
                u = factors.residual_column(block, column) / residual[column]
                factors.append(u, residual)
            if residual[column] == 0 or factors.last_norm <= truncation.tolerance(factors.norm):
                missing = self._validate(block, factors, truncation, unseen, rng)
                if missing is None:
                    break
                row = missing
            elif unseen.any():
                row = int(np.argmax(np.where(unseen, np.abs(u), -1.0)))
            else:
                break
        return factors.low_rank()

    def _validate(
        self,
        block: Block,
        factors: "_Factors",
        truncation: Truncation,
        unseen: Flags,
        rng: np.random.Generator,
    ) -> int | None:
        """Return an unseen row that the approximation misses, or ``None`` when the samples meet the tolerance."""
        n = block.shape[1]
        candidates = np.flatnonzero(unseen)
        rows = rng.permutation(candidates)[: self.validation]
        columns = rng.permutation(n)[: self.validation]
        if rows.size == 0:
            return None
        row_norms = np.array([frobenius(factors.residual_row(block, int(i))) for i in rows])
        column_residuals = np.stack([factors.residual_column(block, int(j)) for j in columns])
        # Each sample, scaled to the whole block, estimates the error; the larger one counts.
        by_rows = frobenius(row_norms) * np.sqrt(candidates.size / rows.size)
        by_columns = frobenius(column_residuals) * np.sqrt(n / columns.size)
        if max(by_rows, by_columns) <= truncation.tolerance(factors.norm):
            return None
        # Norms of rows with the same entries in another order, such as a symmetric kernel's, differ in the last bits.
        rounding = rounding_of(np.float64, column_residuals.size)
        if by_columns > by_rows * (1 + rounding):
            return int(candidates[np.argmax(np.abs(column_residuals[:, candidates]).max(axis=0))])
        return int(rows[first_largest(row_norms, rounding * row_norms.max())])


@dataclass
class _Factors:
    """The crosses so far, and the norm of their sum."""

    shape: tuple[int, int]
    dtype: npt.DTypeLike
    _columns: list[FloatArray] = field(default_factory=list)
    _rows: list[FloatArray] = field(default_factory=list)
    _norm_squared: float = 0.0
    _scale: float = 1.0
    last_norm: float = 0.0

    @property
    def rank(self) -> int:
        return len(self._columns)

    @property
    def norm(self) -> float:
        return self._scale * float(np.sqrt(max(self._norm_squared, 0.0)))

    def append(self, u: FloatArray, v: FloatArray) -> None:
        # u has entries of about 1 and v of the block's size; both are kept near 1 in the norm's square.
        left, right = u.astype(np.float64), v.astype(np.float64)
        if not self.rank:
            self._scale = frobenius(v) or 1.0
        right /= self._scale
        mixed = sum(
            float(left @ a) * float(right @ (b / self._scale)) for a, b in zip(self._columns, self._rows, strict=True)
        )
        self.last_norm = frobenius(u) * frobenius(v)
        self._norm_squared += 2 * mixed + (self.last_norm / self._scale) ** 2
        self._columns.append(u)
        self._rows.append(v)

    def residual_row(self, block: Block, i: int) -> FloatArray:
        row: FloatArray = np.array(block[i, :])
        for u, v in zip(self._columns, self._rows, strict=True):
            row -= u[i] * v
        return row

    def residual_column(self, block: Block, j: int) -> FloatArray:
        column: FloatArray = np.array(block[:, j])
        for u, v in zip(self._columns, self._rows, strict=True):
            column -= v[j] * u
        return column

    def low_rank(self) -> LowRank:
        if not self.rank:
            return LowRank(np.zeros((self.shape[0], 0), self.dtype), np.zeros((self.shape[1], 0), self.dtype))
        return LowRank(np.stack(self._columns, axis=1), np.stack(self._rows, axis=1))
