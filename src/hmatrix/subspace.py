"""The coarse part of a progressive head: the subspace of inputs that it keeps, and its factors in int8.

The subspace of rank k is the span of the rows of ``P^T A``, where P holds the k leading left singular vectors of
``A C^(1/2)`` and C is the second moment of the inputs plus its mean eigenvalue times the identity: what matters
are the outputs of inputs like those that were seen. Without inputs C is the identity, and this is the truncated
SVD. Outputs are then ``U V^T x``, with U by least squares, so that the rows' remainders vanish in the subspace.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hmatrix._validation import FloatArray
from hmatrix.head import (
    STRIP,
    Bound,
    Floats32,
    PackedHead,
    Words,
    filled,
    from_fine,
    padded,
    symmetric,
    to_fine,
    to_strips,
)
from hmatrix.precision import Codes, Precision

Floats64 = npt.NDArray[np.float64]

_UNIT = float(np.finfo(np.float32).eps) / 2
"""How far rounding to float32 is off at most, relatively."""

_CHUNK = 4096
"""Rows that are converted to float64 at once: a vocabulary is large."""


@dataclass(frozen=True, eq=False)
class FineRows:
    """The fine part of a head.

    Parameters
    ----------
    precision
        Of the rows.
    words, scales
        As `PackedHead` has them.
    weight
        The rows decoded, ``(m, n)``.
    norms
        Of the rows ``(m,)``.
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
        return cls(precision, words, scales, rows, np.sqrt(_by_chunk(rows, lambda A: np.square(A).sum(axis=1))))


@dataclass(frozen=True, eq=False)
class Subspace:
    """Nested subspaces of the inputs of a weight.

    Parameters
    ----------
    basis
        Orthonormal columns ``(n, ranks)``, the most important one first.
    sizes
        Root mean square of the inputs' coordinates ``(ranks,)``.
    """

    basis: Floats64
    sizes: Floats64


def fit(gram: Floats64, inputs: FloatArray | None, most: int) -> Subspace:
    """Find the subspaces of rank up to `most`.

    Parameters
    ----------
    gram
        ``A^T A`` of the weight A ``(m, n)``.
    inputs
        ``(samples, n)``, or ``None``.
    most
        At most min(m, n).
    """
    n = len(gram)
    if inputs is None or not inputs.any():
        basis = np.linalg.eigh(gram)[1][:, ::-1][:, :most]
        return Subspace(basis, np.ones(basis.shape[1]))
    X = inputs.astype(np.float64)
    moment = X.T @ X / len(X)
    moment[np.diag_indices(n)] += np.trace(moment) / n
    values, vectors = np.linalg.eigh(moment)
    root = (vectors * np.sqrt(values)) @ vectors.T
    right = np.linalg.eigh(root @ gram @ root)[1][:, ::-1][:, :most]
    basis = np.linalg.qr(gram @ root @ right)[0]
    return Subspace(basis, np.sqrt(np.square(X @ basis).mean(axis=0)))


def gram(weight: FloatArray) -> Floats64:
    """Return ``A^T A`` of a weight A ``(m, n)``."""
    chunks = (weight[start : start + _CHUNK].astype(np.float64) for start in range(0, len(weight), _CHUNK))
    return sum((A.T @ A for A in chunks), np.zeros((weight.shape[1],) * 2))


def pack_head(rows: FineRows, bias: FloatArray, subspace: Subspace, rank: int) -> PackedHead:
    """Pack a head that refines all rows within the rigorous bound.

    Parameters
    ----------
    rows, bias
        The fine part A ``(m, n)`` and b ``(m,)``.
    subspace
        Of at least `rank` columns.
    rank
        Of the coarse part.
    """
    m, n = rows.weight.shape
    height, inner = padded(m, STRIP), padded(rank, STRIP)
    V = subspace.basis[:, :rank]
    # The coordinates t and the columns of U get scales that make both about as uneven, so that both lose little.
    columns = np.sqrt(np.square(_by_chunk(rows.weight, lambda A: A @ V)).mean(axis=0))
    balance = np.sqrt(np.maximum(columns, 1e-30) / np.maximum(subspace.sizes[:rank], 1e-30))
    basis, basis_scales = symmetric(V.T)
    basis_scales = (basis_scales * balance).astype(np.float32)
    B = _decoded(basis, basis_scales).T
    Q, triangle = np.linalg.qr(B)
    inside = _by_chunk(rows.weight, lambda A: A @ Q)
    factor, factor_scales = symmetric(inside @ np.linalg.pinv(triangle).T)
    U = _decoded(factor, factor_scales)
    kept = U @ triangle.T
    remainder = np.sqrt(np.maximum(np.square(rows.norms) - np.square(inside).sum(axis=1), 0)) + 1e-6 * rows.norms
    reach = np.linalg.norm(kept, axis=1) + 1e-3 * rows.norms
    lengths = np.maximum(np.linalg.norm(B, axis=0), 1e-30)
    most = np.linalg.norm(B / lengths, 2) ** 2 if rank else 1.0
    # What errors of the coordinates, of the stored U and of rounding make of each row, as multiples of its reach.
    rounding = 2 * (n / STRIP + 16) * _UNIT
    amount = np.where(reach > 0, reach, 1.0)
    deviation = np.linalg.norm(inside - kept, axis=1) + rounding * rows.norms
    size = float(np.abs(bias).max(initial=0.0))
    bound = Bound(
        scale=1.0,
        quantised=0.5 * np.sqrt(n) * (1 + 1e-5),
        relative=float((deviation / amount).max()) * (1 + 1e-5),
        inner=0.5 * np.sqrt(rank) * float((np.linalg.norm(U, axis=1) / amount).max()) * (1 + 1e-5),
        rounding=rounding * float(rows.norms.max()),
        offset=16 * _UNIT * size,
    )
    whole = np.full((m, inner), int(Precision.INT8.zero), np.uint8)
    whole[:, :rank] = factor
    return PackedHead(
        sizes=np.array([m, n, rank, 1, m, rows.precision], np.int32),
        limits=np.array(bound.as_floats(), np.float32),
        basis=to_strips(basis),
        basis_scales=filled(basis_scales, inner),
        weights=filled((1 - 1e-5) / (np.square(lengths) * most), inner),
        factor=to_strips(whole),
        factor_scales=filled(factor_scales, height),
        bias=filled(bias, height, -np.inf),
        remainder=filled(remainder * (1 + 1e-5), height),
        reach=filled(reach * (1 + 1e-5), height),
        fine=rows.words,
        fine_scales=rows.scales,
    )


def _by_chunk(weight: FloatArray, function: Callable[[Floats64], Floats64]) -> Floats64:
    """Apply a function of rows to a weight, a few rows in float64 at a time."""
    starts = range(0, len(weight), _CHUNK)
    return np.concatenate([function(weight[start : start + _CHUNK].astype(np.float64)) for start in starts])


def _decoded(codes: Codes, scales: Floats32) -> Floats64:
    return (codes.astype(np.float64) - Precision.INT8.zero) * scales[:, None].astype(np.float64)
