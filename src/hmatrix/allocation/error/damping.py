"""Damped second moments of few vectors, which say which errors of a weight matter.

With vectors fewer than entries, their second moment is singular, and trusting it costs more than it gains.
So it is damped. Its diagonal is drawn towards its mean, and its correlations towards a target,

    C = D^(1/2) ((1 - a) R + a ((1 - b) I + b R_W)) D^(1/2),    D = (1 - c) diag(S) + c mean(diag(S)) I,

where S is the second moment, R its correlations, and R_W those of the weight's own columns: a trained
layer's rows point to where its inputs lie, also for classes that were not sampled. The three shares a, b, c
are those under which vectors that were left out are likeliest, as normally distributed (cross-validation).
a = c = 1 and b = 0 is the unweighted choice.

References
----------
O. Ledoit and M. Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of
Multivariate Analysis 88 (2004), doi:10.1016/S0047-259X(03)00096-4; J. Schäfer and K. Strimmer, "A shrinkage
approach to large-scale covariance matrix estimation", Statistical Applications in Genetics and Molecular Biology
4 (2005), doi:10.2202/1544-6115.1175.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import scipy.linalg

from hmatrix._support.checks import as_array, check_matrix
from hmatrix._support.ties import first_largest, rounding_of
from hmatrix._support.typing import FloatArray, Floats64, Positions
from hmatrix.allocation.error.scaling import divided, exponent_of
from hmatrix.errors import ArgumentError

FEWEST_PARTS = 2
_FOLDS = 5

_FEWEST_TO_VALIDATE = 4
"""Least vectors for cross-validation; with fewer, all entries count the same."""

_SAMPLE_SHARES = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)
_WEIGHT_SHARES = (0.25, 0.5, 0.75)
_MEAN_SHARES = (0.02, 0.1, 0.3, 1.0)


@dataclass(frozen=True)
class Damping:
    """Shares by which the sample covariance is drawn to its target.

    Parameters
    ----------
    correlations
        a: share of the target in the correlations.
    weight
        b: share of the weight's correlations in the target.
    variances
        c: share of the mean in the variances.
    """

    correlations: float = 1.0
    weight: float = 0.0
    variances: float = 1.0


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors whose second moment is estimated.

    Parameters
    ----------
    rows
        ``(samples, n)``, about the mean of all.
    parts
        Numbers of the rows that are left out together.
    about_mean
        Whether the mean is estimated, too; it changes when a part is left out.
    """

    rows: FloatArray
    parts: list[Positions]
    about_mean: bool

    @classmethod
    def of_samples(cls, Z: FloatArray, samples: int) -> Self:
        """Return vectors ``(samples * k, n)`` about their mean, k of each sample: samples are left out at random."""
        order = np.random.default_rng(0).permutation(samples)
        parts = np.array_split(order, max(min(_FOLDS, samples // 2), 1))
        rows = np.arange(len(Z)).reshape(samples, -1)
        return cls(Z, [rows[part].ravel() for part in parts], about_mean=True)

    @classmethod
    def of_derivatives(cls, name: str, derivatives: npt.ArrayLike, trace: float, n: int) -> Self:
        """Return rows ``(parts, rows, n)`` as vectors whose second moment has a given trace.

        Raises
        ------
        ArgumentError
            With this name, if they have another shape, or are not finite.
        """
        given = as_array(name, derivatives)
        if given.ndim != 3 or len(given) < FEWEST_PARTS or given.shape[2] != n:
            mend = f"give (parts, rows, {n}), at least {FEWEST_PARTS} parts"
            raise ArgumentError(name, f"has the shape {given.shape}", mend)
        rows = check_matrix(name, given.reshape(-1, n))
        rows = divided(rows, exponent_of(rows))
        found = np.square(rows).sum(axis=1).mean()
        if found > 0:
            rows = rows * np.float32(np.sqrt(trace / found))
        return cls(rows, np.split(np.arange(len(rows)), len(given)), about_mean=False)


def damped_root(vectors: Vectors, weight: FloatArray | None) -> tuple[FloatArray | None, Damping]:
    """Return the root of the damped second moment, upper triangular, ``(n, n)``, and its damping.

    Parameters
    ----------
    vectors
        ``(samples, n)``.
    weight
        Weight ``(m, n)`` whose columns say what to expect; with ``None`` the target is the identity, and variances stay
        nearly as they are.

    Returns
    -------
    root
        ``None`` where the unweighted choice is best.
    damping
    """
    directions = None if weight is None else _unit_columns(weight.astype(np.float32, copy=False))
    can_validate = len(vectors.parts) >= FEWEST_PARTS and len(vectors.rows) >= _FEWEST_TO_VALIDATE
    damping = _cross_validated(vectors, directions) if can_validate else Damping()
    variances = _variances(vectors.rows, damping.variances)
    if not variances.any() or damping == Damping():
        return None, Damping()
    deviations = np.sqrt(variances)
    Z = _unit_columns(vectors.rows)
    covariance = (1 - damping.correlations) * (Z.T @ Z)
    if directions is not None:
        covariance += damping.correlations * damping.weight * (directions.T @ directions)
    covariance[np.diag_indices(len(covariance))] = 1.0
    covariance *= deviations[:, None]
    covariance *= deviations
    # By eigenvalues, those that rounding made too small raised: a Cholesky factorisation may fail.
    # Arrays as large as C are let go first, and C is overwritten: its transpose is in LAPACK's order.
    del directions, vectors, Z
    values, axes = scipy.linalg.eigh(covariance.T, overwrite_a=True, check_finite=False)
    axes *= np.sqrt(values.clip(min=values[-1] * np.finfo(values.dtype).eps))
    return upper_root(axes), damping


def upper_root(factor: FloatArray) -> FloatArray:
    """Return the upper triangular R ``(n, n)`` with ``R @ R.T = factor @ factor.T``, of a factor ``(n, k)``, n <= k."""
    n = len(factor)
    # Rows in reverse order turn the triangle of an orthogonal factorisation round. All in one array, the transpose of
    # which is in LAPACK's order, since of a large matrix each copy counts.
    columns = np.array(factor[::-1], order="C").T
    geqrf, geqrf_lwork = scipy.linalg.get_lapack_funcs(("geqrf", "geqrf_lwork"), (columns,))
    room = int(geqrf_lwork(*columns.shape)[0])
    root: FloatArray = geqrf(columns, lwork=room, overwrite_a=True)[0].T[:, :n]
    signs = np.where(np.diag(root) < 0, -1, 1).astype(root.dtype)
    for row, entries in enumerate(root):
        entries[row + 1 :] = 0
        entries *= signs
    for top in range((n + 1) // 2):
        bottom = n - 1 - top
        entries = root[top, ::-1].copy()
        root[top] = root[bottom, ::-1]
        root[bottom] = entries
    return np.ascontiguousarray(root)


def _cross_validated(vectors: Vectors, directions: FloatArray | None) -> Damping:
    """Return the damping under which vectors that were left out are likeliest.

    Parameters
    ----------
    vectors
        ``(samples, n)``.
    directions
        The weight's columns with norm 1, ``(m, n)``, or ``None``.
    """
    mean_shares, weight_shares = (_MEAN_SHARES[:1], ()) if directions is None else (_MEAN_SHARES, _WEIGHT_SHARES)
    identity = _Target(None, 0.0)
    known = {share: _likelihoods(vectors, identity, share) for share in mean_shares}
    mean_share = mean_shares[_likeliest([max(known[share]) for share in mean_shares], vectors)]
    found = {Damping(a, 0.0, mean_share): value for a, value in zip(_SAMPLE_SHARES, known[mean_share], strict=True)}
    for weight_share in weight_shares:
        values = _likelihoods(vectors, _Target(directions, weight_share), mean_share)
        found |= {Damping(a, weight_share, mean_share): value for a, value in zip(_SAMPLE_SHARES, values, strict=True)}
    return list(found)[_likeliest(list(found.values()), vectors)]


def _likeliest(likelihoods: list[float], vectors: Vectors) -> int:
    """Return the first of those that are the largest, up to the rounding of their float32 sums over rows or columns.

    Shares are equally likely where nothing depends on them: those of the weight where its columns are orthogonal, say.
    """
    found = np.array(likelihoods)
    if not np.isfinite(found).all():
        return int(found.argmax())
    # Squares that are about 1 each, less a determinant that may be as large as all of them.
    size = max(float(np.abs(found).max()), 0.5 * vectors.rows.size)
    return first_largest(found, rounding_of(np.float32, max(vectors.rows.shape)) * size)


def _variances(Z: FloatArray, share: float) -> FloatArray:
    """Return the variances of centred samples ``(samples, n)``, a share of each replaced by their mean."""
    own = np.square(Z).mean(axis=0)
    variances: FloatArray = (1 - share) * own + share * own.mean()
    return variances


def _unit_columns(matrix: FloatArray) -> FloatArray:
    """Return the columns with norm 1; zero columns stay."""
    norms = np.linalg.norm(matrix, axis=0)
    units: FloatArray = matrix / np.where(norms > 0, norms, 1)
    return units


class _Target:
    """The target of the correlations: ``triangle.T @ triangle``, or the identity."""

    def __init__(self, directions: FloatArray | None, share: float) -> None:
        self._triangle: FloatArray | None = None
        self.log_determinant = 0.0
        if directions is not None:
            target = directions.T @ (np.float32(share) * directions)
            target[np.diag_indices_from(target)] += 1 - share
            # This factorisation cannot fail: no eigenvalue is below 1 - share, a quarter at least.
            triangle = scipy.linalg.cholesky(target, overwrite_a=True, check_finite=False)
            self._triangle = triangle
            self.log_determinant = 2 * float(np.log(np.diag(triangle)).sum(dtype=np.float64))

    def whiten(self, Z: FloatArray) -> FloatArray:
        """Return samples ``(samples, n)`` whose correlations would be the identity, were those of Z the target."""
        if self._triangle is None:
            return Z
        white: FloatArray = scipy.linalg.solve_triangular(self._triangle, Z.T, trans="T", check_finite=False).T
        return white


def _likelihoods(vectors: Vectors, target: _Target, mean_share: float) -> Floats64:
    """Return the log likelihood of samples that were left out in turn, for each share of the target."""
    total = np.zeros(len(_SAMPLE_SHARES))
    for part in vectors.parts:
        kept, left = np.delete(vectors.rows, part, axis=0), vectors.rows[part]
        if vectors.about_mean:
            centre = kept.mean(axis=0)
            kept, left = kept - centre, left - centre
        variances = _variances(kept, mean_share)
        if not (variances > 0).all():
            return np.full(len(_SAMPLE_SHARES), -np.inf)
        train = target.whiten(_unit_columns(kept) * np.float32(np.sqrt(len(kept))))
        test = target.whiten(left / np.sqrt(variances))
        log_determinant = float(np.log(variances).sum(dtype=np.float64)) + target.log_determinant
        total += _log_likelihoods(train, test) - 0.5 * len(part) * log_determinant
    return total


def _log_likelihoods(train: FloatArray, test: FloatArray) -> Floats64:
    """Return the log likelihood of `test`, less a constant, for each share of the identity in the covariance.

    The rest is that of the second moment of `train`; both are ``(samples, n)``.
    """
    n = train.shape[1]
    # The smaller of the two products has the same eigenvalues: there may be many more samples than columns.
    few = len(train) <= n
    gram = (train @ train.T if few else train.T @ train).astype(np.float64)
    values, vectors = scipy.linalg.eigh(gram, overwrite_a=True, check_finite=False)
    # Eigenvalues that are rounding errors belong to directions outside of the samples.
    inside = values > values[-1] * len(gram) * np.finfo(train.dtype).eps
    values, vectors = values[inside], vectors[:, inside]
    squares = np.square((test @ train.T) @ vectors) / values if few else np.square(test @ vectors)
    outside = (np.square(test, dtype=np.float64).sum(axis=1) - squares.sum(axis=1)).clip(min=0).sum()
    shares = np.array(_SAMPLE_SHARES)[:, None]
    mixed = (1 - shares) * values / len(train) + shares
    quadratic = (squares.sum(axis=0) / mixed).sum(axis=1) + outside / shares[:, 0]
    determinant = np.log(mixed).sum(axis=1) + (n - len(values)) * np.log(shares[:, 0])
    likelihoods: Floats64 = -0.5 * (quadratic + len(test) * determinant)
    return likelihoods
