"""Norms, and errors of an H-matrix against the matrix that it approximates."""

from enum import Enum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hmatrix._support.checks import check_integer, check_matrix
from hmatrix._support.norms import frobenius
from hmatrix._support.typing import FloatArray, Generator
from hmatrix.errors import ArgumentError
from hmatrix.lowrank.factors import LowRank
from hmatrix.matrix import HMatrix, TransposedHMatrix, as_hmatrix


class Norm(Enum):
    """A norm: the Frobenius norm is computed exactly, the spectral one by power iteration, from below.

    Examples
    --------
    >>> weight = np.diag([3.0, 4.0])
    >>> H = hm.quantize(weight, "float64")
    >>> round(hm.norm(H), 6), round(hm.norm(H, hm.Norm.SPECTRAL), 6)
    (5.0, 4.0)
    """

    FROBENIUS = "frobenius"
    SPECTRAL = "spectral"


def norm(
    matrix: HMatrix | TransposedHMatrix, kind: Norm = Norm.FROBENIUS, *, iterations: int = 30, rng: Generator = 0
) -> float:
    """Return the norm of an H-matrix without making it dense.

    Parameters
    ----------
    matrix
        The H-matrix.
    kind
        Norm that is computed.
    iterations, rng
        Steps of the power iteration, and the seed or generator of its first vector.

    Raises
    ------
    ArgumentError
        If `matrix` is no H-matrix, `kind` is no norm, or `iterations` is not a positive integer.

    Examples
    --------
    >>> round(hm.norm(hm.quantize(np.diag([3.0, 4.0]), "float64")), 6)
    5.0
    """
    _check_kind(kind)
    # A transpose has the norms of its matrix, whatever its precision.
    matrix = as_hmatrix("matrix", matrix.T if isinstance(matrix, TransposedHMatrix) else matrix)
    if kind is Norm.SPECTRAL:
        return _spectral_norm(matrix, iterations, rng)
    return frobenius(np.array([_block_norm(leaf.block) for leaf in matrix.leaves()]))


def relative_error(
    weight: npt.ArrayLike,
    matrix: HMatrix | TransposedHMatrix,
    kind: Norm = Norm.FROBENIUS,
    *,
    iterations: int = 30,
    rng: Generator = 0,
) -> float:
    """Return ``||A - H|| / ||A||``; the error of a zero matrix is 0 or infinite.

    Parameters
    ----------
    weight
        A, ``(m, n)``.
    matrix
        H, of the same shape.
    kind
        Norm that is computed.
    iterations, rng
        Steps of the power iteration, and the seed or generator of its first vector.

    Raises
    ------
    ArgumentError
        If the shapes differ, `weight` is not a finite matrix, or another argument cannot be used.

    Examples
    --------
    >>> weight = np.random.default_rng(0).standard_normal((100, 100))
    >>> hm.relative_error(weight, hm.quantize(weight, "int8")) < 0.01
    True
    """
    _check_kind(kind)
    A = check_matrix("weight", weight).astype(np.float64)
    if A.shape != matrix.shape:
        raise ArgumentError("weight", f"has the shape {A.shape}", f"give {matrix.shape}, as the H-matrix has")
    difference = A - matrix.to_dense()
    if kind is Norm.SPECTRAL:
        error, scale = (_spectral_norm(B, iterations, rng) for B in (difference, A))
    else:
        error, scale = frobenius(difference), frobenius(A)
    if scale == 0:
        return 0.0 if error == 0 else np.inf
    return error / scale


def _check_kind(kind: object) -> None:
    if not isinstance(kind, Norm):
        raise ArgumentError("kind", f"got {kind!r}", "give Norm.FROBENIUS or Norm.SPECTRAL")


def _block_norm(block: FloatArray | LowRank) -> float:
    """Return the Frobenius norm of a block."""
    if not isinstance(block, LowRank):
        return frobenius(block)
    if block.rank == 0:
        return 0.0
    # ||U V^T|| = ||R_U R_V^T||; the squares of Gram matrices would lose half of the digits where factors cancel.
    of_U, of_V = (np.asarray(np.linalg.qr(factor.astype(np.float64), mode="r")) for factor in (block.U, block.V))
    return frobenius(of_U @ of_V.T)


class _Operator(Protocol):
    """The products that power iteration needs."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def T(self) -> "_Transposed": ...

    def __matmul__(self, x: FloatArray, /) -> FloatArray: ...


class _Transposed(Protocol):
    def __matmul__(self, x: FloatArray, /) -> FloatArray: ...


def _spectral_norm(A: _Operator, iterations: int, rng: Generator) -> float:
    """Estimate the largest singular value, from below, by power iteration on A^T A."""
    check_integer("iterations", iterations, at_least=1)
    x: FloatArray = np.random.default_rng(rng).standard_normal(A.shape[1])
    value = 0.0
    for _ in range(iterations):
        x = x / np.linalg.norm(x)
        y = A @ x
        value = float(np.linalg.norm(y))
        x = A.T @ y
        if not x.any():
            break
    return value
