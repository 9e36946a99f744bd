"""The coarse part of a progressive head: the subspace of inputs that it keeps, and its factors in integers.

The subspace of rank k is the span of the rows of ``P^T A``, where P holds the k leading left singular vectors of
``A C^(1/2)`` and C is the second moment of the inputs plus its mean eigenvalue times the identity: the outputs of
inputs like those that were seen matter. Without inputs C is the identity, and this is the truncated SVD. Outputs are
then ``U V^T x``, with U by least squares, so that the rows' remainders vanish in the subspace.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hmatrix._support.typing import AnyArray, Codes, FloatArray, Floats32, Floats64, Integers
from hmatrix.codes.precision import Precision
from hmatrix.heads.clusters import RowClusters
from hmatrix.heads.fine_rows import CHUNK, FineRows, by_chunk, offset_of
from hmatrix.heads.levels import Bound, Level
from hmatrix.heads.packed_head import PackedHead
from hmatrix.heads.sizes import HeadSizes
from hmatrix.heads.words import STRIP, filled, from_codes, padded, to_codes, to_strips

_CENTRE_SHARE = 0.05
"""Share of the norm of a cluster's centre in its reach: errors of x count by it, deviations of rows by the rest."""


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
    chunks = (weight[start : start + CHUNK].astype(np.float64) for start in range(0, len(weight), CHUNK))
    return sum((A.T @ A for A in chunks), np.zeros((weight.shape[1],) * 2))


@dataclass(frozen=True, eq=False)
class Coarse:
    """The coarse part of a head: the part of its rows in a subspace.

    Parameters
    ----------
    rows, bias
        The fine part A ``(m, n)`` and b ``(m,)``.
    precision
        Precision of the factors.
    codes, scales
        ``V^T``.
    triangle
        R of ``V = Q R``.
    inside
        The rows' coordinates in the orthonormal basis Q of the span of V ``(m, rank)``.
    outside
        Norms of their parts outside of it ``(m,)``.
    """

    rows: FineRows
    bias: FloatArray
    precision: Precision
    codes: Codes
    scales: Floats32
    triangle: Floats64
    inside: Floats64
    outside: Floats64

    @classmethod
    def project(
        cls, rows: FineRows, bias: FloatArray, subspace: Subspace, rank: int, precision: Precision = Precision.INT8
    ) -> "Coarse":
        """Keep the first `rank` dimensions of a subspace, as its basis is when it is stored."""
        V = subspace.basis[:, :rank]
        # The coordinates t and the columns of U get scales that make both about as uneven, so that both lose little.
        columns = np.sqrt(np.square(by_chunk(rows.weight, lambda A: A @ V)).mean(axis=0))
        balance = np.sqrt(np.maximum(columns, 1e-30) / np.maximum(subspace.sizes[:rank], 1e-30))
        codes, scales = to_codes(V.T, precision)
        scales = (scales * balance).astype(np.float32)
        Q, triangle = np.linalg.qr(from_codes(codes, scales, precision).T)
        inside = by_chunk(rows.weight, lambda A: A @ Q)
        rest = np.maximum(np.square(rows.norms) - np.square(inside).sum(axis=1), 0)
        return cls(rows, bias, precision, codes, scales, triangle, inside, np.sqrt(rest) + 1e-6 * rows.norms)

    def pack(self, clusters: RowClusters | None = None) -> PackedHead:
        """Pack a head that refines all rows within the rigorous bound, and looks into clusters if there are any."""
        rows, bias = self.rows, self.bias
        m, n = rows.weight.shape
        rank = len(self.codes)
        lengths = np.maximum(np.linalg.norm(self.triangle, axis=0), 1e-30)
        most = np.linalg.norm(self.triangle / lengths, 2) ** 2 if rank else 1.0
        places = self.level(np.arange(m) if clusters is None else clusters.order)
        centres = Level.none(self.precision) if clusters is None else self.level(np.arange(len(clusters)), clusters)
        nothing = np.empty(0, np.int32)
        count = 0 if clusters is None else len(clusters)
        return PackedHead(
            sizes=HeadSizes(
                rows=m,
                columns=n,
                rank=rank,
                top=1,
                most=m,
                fine=rows.precision,
                clusters=count,
                probes=min(count, 1),
                coarse=self.precision,
                first=1,
            ),
            limits=replace(places.bound, rounding=rows.rounding, offset=offset_of(bias)),
            basis=to_strips(self.codes, self.precision),
            basis_scales=filled(self.scales, padded(rank, STRIP)),
            weights=filled((1 - 1e-5) / (np.square(lengths) * most), padded(rank, STRIP)),
            factor=places.factor,
            factor_scales=places.scales,
            bias=places.bias,
            remainder=places.remainder,
            reach=places.reach,
            cluster_limits=centres.bound,
            cluster_factor=centres.factor,
            cluster_scales=centres.scales,
            cluster_bias=centres.bias,
            cluster_remainder=centres.remainder,
            cluster_reach=centres.reach,
            order=nothing if clusters is None else clusters.order,
            starts=nothing if clusters is None else clusters.starts,
            fine=rows.words,
            fine_scales=rows.scales,
        )

    @cached_property
    def without_clusters(self) -> PackedHead:
        """The head that looks at all rows."""
        return self.pack()

    def level(self, order: Integers, clusters: RowClusters | None = None) -> Level:
        """Return the level of the rows, or of the centres of clusters of them, in an order, where -1 is none."""
        centres: FloatArray = self.inside
        labels, largest = np.arange(len(centres)), _itself
        if clusters is not None:
            centres, labels, largest = clusters.means(self.inside), clusters.labels, clusters.largest
        rank = len(self.codes)
        codes, scales = to_codes(centres @ np.linalg.pinv(self.triangle).T, self.precision)
        U = from_codes(codes, scales, self.precision)
        kept = U @ self.triangle.T
        size, norms = np.linalg.norm(kept, axis=1), largest(self.rows.norms)
        deviation = largest(np.linalg.norm(self.inside - kept[labels], axis=1))
        reach = (1.0 if clusters is None else _CENTRE_SHARE) * size + deviation + 1e-3 * norms
        # Errors of each row by the coordinates, by the stored U and by rounding, as multiples of its reach.
        amount = np.where(reach > 0, reach, 1.0)
        n = self.rows.weight.shape[1]
        bound = Bound(
            scale=1.0,
            quantised=0.5 * np.sqrt(n) * float((size / amount).max(initial=1.0)) * (1 + 1e-5),
            relative=float(((deviation + self.rows.summing * norms) / amount).max()) * (1 + 1e-5),
            inner=0.5 * np.sqrt(rank) * float((np.linalg.norm(U, axis=1) / amount).max()) * (1 + 1e-5),
        )
        zero = int(self.precision.zero)
        whole = np.full((len(codes), padded(rank, STRIP)), zero, np.uint8)
        whole[:, :rank] = codes
        return Level(
            bound=bound,
            precision=self.precision,
            factor=to_strips(_placed(whole, order, zero), self.precision),
            scales=_placed(scales, order),
            bias=_placed(largest(self.bias), order, -np.inf),
            remainder=_placed(largest(self.outside) * (1 + 1e-5), order),
            reach=_placed(reach * (1 + 1e-5), order),
        )


def _itself(values: FloatArray) -> FloatArray:
    return values


def _placed(values: AnyArray, order: Integers, fill: float = 0) -> AnyArray:
    """Return values in an order, -1 being none, filled up to whole strips."""
    kind = np.float32 if values.dtype.kind == "f" else values.dtype
    placed = np.full((padded(len(order), STRIP), *values.shape[1:]), fill, kind)
    placed[: len(order)][order >= 0] = values[order[order >= 0]]
    return placed
