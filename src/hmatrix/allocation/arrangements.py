"""Orders of rows and columns that have no geometry: coordinates from the weight and from its inputs."""

from dataclasses import dataclass

import numpy as np

from hmatrix._validation import FloatArray
from hmatrix.allocation.moments import Moments
from hmatrix.cluster import Cardinality, PrincipalDirection, Splitter, TwoMeans
from hmatrix.compressors import RandomizedSVD
from hmatrix.coordinates import Coordinates, Index, Points
from hmatrix.lowrank import Truncation

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
    variances = moments.variances
    found = [
        _by_energy(np.square(weight).sum(axis=0) * variances, leaf_size),
        *_by_directions((weight * np.sqrt(variances)).T, leaf_size),
    ]
    if moments.root is not None:
        # Columns of the root's transpose have the correlations of the inputs as their inner products.
        units = moments.root / np.sqrt(variances)[:, None]
        found.append(Arrangement("correlation", _coordinates(units), PrincipalDirection(leaf_size)))
    return found


def of_rows(weight: FloatArray, moments: Moments, leaf_size: int) -> list[Arrangement]:
    """Return arrangements of the rows of a weight ``(m, n)`` other than by index."""
    weighted = weight if moments.root is None else weight @ moments.root
    return [_by_energy(np.square(weighted).sum(axis=1), leaf_size), *_by_directions(weighted, leaf_size)]


def _by_energy(energies: FloatArray, leaf_size: int) -> Arrangement:
    return Arrangement("energy", Points(-energies.astype(np.float64)), Cardinality(leaf_size))


def _by_directions(vectors: FloatArray, leaf_size: int) -> list[Arrangement]:
    """Arrange vectors ``(size, d)`` by their coordinates along the principal directions."""
    points = _coordinates(vectors)
    return [
        Arrangement("principal directions", points, PrincipalDirection(leaf_size)),
        Arrangement("two means", points, TwoMeans(leaf_size)),
    ]


def _coordinates(vectors: FloatArray) -> Points:
    """Return the coordinates of vectors ``(size, d)`` along their principal directions."""
    coordinates = RandomizedSVD()(vectors, Truncation(max_rank=_DIRECTIONS)).U
    # Vectors that are all zero lie in one place.
    return Points(coordinates if coordinates.size else np.zeros((len(vectors), 1)))
