"""BLAST: blocks that share bases, with a diagonal coupling each; what the allocator is compared with.

A matrix is cut into b x b blocks ``A_ij = U_i diag(s_ij) V_j^T``: all blocks of a row share U_i, all of a column V_j.
With all couplings 1 it is a global low rank, where the fit begins.

References
----------
C. Lee, S. M. Kwon, Q. Qu and H.-S. Kim, "BLAST: Block-Level Adaptive Structured Matrices for Efficient Deep Neural
Network Inference", NeurIPS 2024, arXiv:2410.21262. Fitted here by alternating least squares instead of its gradient
descent: each step is exact, so the error never rises.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hmatrix._support.checks import check_integer, check_matrix
from hmatrix._support.typing import FloatArray, Positions
from hmatrix.errors import ArgumentError

_RIDGE = 1e-7
"""Added to the diagonal of each system, relative to its mean: bases may be dependent."""


@dataclass(frozen=True, eq=False)
class Blast:
    """A matrix ``(m, n)`` of b x b blocks of rank r with shared bases.

    Parameters
    ----------
    U, V
        Bases of all rows, ``(m, r)``, and of all columns, ``(n, r)``.
    couplings
        ``(b, b, r)``.
    """

    U: FloatArray
    V: FloatArray
    couplings: FloatArray

    @property
    def nbytes(self) -> int:
        """Bytes in float32."""
        return 4 * (self.U.size + self.V.size + self.couplings.size)

    def to_dense(self) -> FloatArray:
        """Return the matrix ``(m, n)``."""
        b = len(self.couplings)
        rows = [
            np.hstack([(U * s) @ V.T for s, V in zip(of_row, np.array_split(self.V, b), strict=True)])
            for U, of_row in zip(np.array_split(self.U, b), self.couplings, strict=True)
        ]
        return np.vstack(rows)


def largest_rank(shape: tuple[int, int], blocks: int, nbytes: float) -> int:
    """Return the largest rank of a `Blast` with `blocks` x `blocks` blocks that fits into `nbytes`; 0 if none does."""
    return min(int(nbytes // (4 * (sum(shape) + blocks**2))), *shape)


def fit_blast(weight: npt.ArrayLike, blocks: int, rank: int, iterations: int = 30) -> Blast:
    """Fit a `Blast` to a weight by alternating least squares, in float32.

    Parameters
    ----------
    weight
        ``(m, n)``, finite.
    blocks
        Blocks of a row, and of a column; at most ``min(m, n)``.
    rank
        Rank of each block.
    iterations
        Rounds over bases and couplings.

    Raises
    ------
    ArgumentError
        If an argument cannot be used.
    """
    A = check_matrix("weight", weight).astype(np.float32, copy=False)
    for name, value in (("blocks", blocks), ("rank", rank)):
        if check_integer(name, value, at_least=1) > min(A.shape):
            raise ArgumentError(name, f"is {value} for {A.shape[0]} x {A.shape[1]}", f"give at most {min(A.shape)}")
    check_integer("iterations", iterations, at_least=0)
    left, singular, right = np.linalg.svd(A, full_matrices=False)
    root = np.sqrt(singular[:rank])
    rows = np.array_split(np.arange(A.shape[0]), blocks)
    columns = np.array_split(np.arange(A.shape[1]), blocks)
    U, V = np.ascontiguousarray(left[:, :rank] * root), np.ascontiguousarray(right[:rank].T * root)
    s = np.ones((blocks, blocks, rank), np.float32)
    for _ in range(iterations):
        U = _bases(A, V, s, rows, columns)
        V = _bases(A.T, U, s.swapaxes(0, 1), columns, rows)
        s = _couplings(A, U, V, rows, columns)
    return Blast(U, V, s)


def _bases(A: FloatArray, V: FloatArray, s: FloatArray, rows: list[Positions], columns: list[Positions]) -> FloatArray:
    """Return the best bases of the rows of A ``(m, n)``, given those of its columns and the couplings."""
    U = np.empty((len(A), V.shape[1]), np.float32)
    for own, of_row in zip(rows, s, strict=True):
        coupled = np.vstack([V[others] * coupling for others, coupling in zip(columns, of_row, strict=True)])
        U[own] = _solved(coupled.T @ coupled, (A[own] @ coupled).T).T
    return U


def _couplings(
    A: FloatArray, U: FloatArray, V: FloatArray, rows: list[Positions], columns: list[Positions]
) -> FloatArray:
    """Return the best couplings ``(b, b, r)``, given the bases."""
    s = np.empty((len(rows), len(columns), U.shape[1]), np.float32)
    of_columns = [V[others].T @ V[others] for others in columns]
    for i, own in enumerate(rows):
        of_row = U[own].T @ U[own]
        for j, others in enumerate(columns):
            right = np.einsum("pr,pr->r", U[own], A[own[0] : own[-1] + 1, others] @ V[others])
            s[i, j] = _solved(of_row * of_columns[j], right)
    return s


def _solved(gram: FloatArray, right: FloatArray) -> FloatArray:
    """Solve a system whose matrix is positive semidefinite, or nearly so."""
    ridge = _RIDGE * float(np.trace(gram)) / len(gram) + np.finfo(np.float32).tiny
    # In float64, because the products of bases have the square of their condition.
    system = gram.astype(np.float64) + ridge * np.eye(len(gram))
    solution: FloatArray = np.linalg.solve(system, right.astype(np.float64)).astype(np.float32)
    return solution
