"""Orders of rows and columns that have no geometry: coordinates from the weight and from its inputs."""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from hmatrix._validation import FloatArray
from hmatrix.allocation.moments import Moments
from hmatrix.cluster import Cardinality, PrincipalDirection, Splitter, TwoMeans
from hmatrix.coordinates import Coordinates, Index, Points

_DIRECTIONS = 8
"""Principal directions that serve as coordinates."""


@dataclass(frozen=True)
class Arrangement:
    """How the clusters of one side come about.

    Parameters
    ----------
    name
        For reports.
    coordinates
        Where rows or columns lie.
    splitter
        How they are split.
    """

    name: str
    coordinates: Coordinates
    splitter: Splitter


def of_index(leaf_size: int) -> Arrangement:
    """Return the arrangement by index, which needs no permutation."""
    return Arrangement("index", Index(), Cardinality(leaf_size))


def of_columns(weight: FloatArray, moments: Moments, leaf_size: int) -> list[Arrangement]:
    """Return arrangements of the columns of a weight ``(m, n)`` other than by index.

    By how much they matter for the output; by the weight's principal directions, halved along the first in each
    cluster, or clustered by two means; and by the correlations of the inputs.
    """
    variances = np.ones(weight.shape[1]) if moments.covariance is None else np.diag(moments.covariance)
    found = [
        _by_energy(np.square(weight).sum(axis=0) * variances, leaf_size),
        *_by_directions((weight * np.sqrt(variances)).T, leaf_size),
    ]
    if moments.covariance is not None:
        correlations = moments.covariance / np.sqrt(np.outer(variances, variances))
        n = len(correlations)
        first = max(0, n - _DIRECTIONS)
        _, vectors = scipy.linalg.eigh(correlations, subset_by_index=(first, n - 1), check_finite=False)
        found.append(Arrangement("correlation", Points(vectors), PrincipalDirection(leaf_size)))
    return found


def of_rows(weight: FloatArray, moments: Moments, leaf_size: int) -> list[Arrangement]:
    """Return arrangements of the rows of a weight ``(m, n)`` other than by index."""
    weighted = weight if moments.root is None else weight @ moments.root
    return [_by_energy(np.square(weighted).sum(axis=1), leaf_size), *_by_directions(weighted, leaf_size)]


def _by_energy(energies: FloatArray, leaf_size: int) -> Arrangement:
    return Arrangement("energy", Points(-energies.astype(np.float64)), Cardinality(leaf_size))


def _by_directions(vectors: FloatArray, leaf_size: int) -> list[Arrangement]:
    """Arrange vectors ``(size, d)`` by their coordinates along the principal directions."""
    directions = min(_DIRECTIONS, *vectors.shape)
    _, basis = scipy.linalg.eigh(
        (vectors.T @ vectors).astype(np.float64),
        subset_by_index=(vectors.shape[1] - directions, vectors.shape[1] - 1),
        check_finite=False,
    )
    points = Points(vectors @ basis)
    return [
        Arrangement("principal directions", points, PrincipalDirection(leaf_size)),
        Arrangement("two means", points, TwoMeans(leaf_size)),
    ]
