"""Orders of rows and columns that have no geometry: coordinates from the weight and from its inputs."""

from dataclasses import dataclass

import numpy as np

from hmatrix._support.ties import first_equal, rounding_of, signs_of, snapped
from hmatrix._support.typing import FloatArray, Positions
from hmatrix.allocation.error.moments import Moments
from hmatrix.lowrank.compressors import RandomizedSVD
from hmatrix.lowrank.factors import LowRank, Truncation
from hmatrix.partitions.coordinates import Coordinates, Index, Points
from hmatrix.partitions.splitters import Cardinality, PrincipalDirection, Splitter, TwoMeans

_DIRECTIONS = 8
"""Principal directions that serve as coordinates."""


@dataclass(frozen=True)
class Arrangement:
    """A way to cluster one side.

    Parameters
    ----------
    name
        Name in reports.
    coordinates
        Coordinates of rows or columns.
    splitter
        Splitter of their clusters.
    """

    name: str
    coordinates: Coordinates
    splitter: Splitter


def of_index(leaf_size: int) -> Arrangement:
    """Return the arrangement by index, which needs no permutation."""
    return Arrangement("index", Index(), Cardinality(leaf_size))


def of_columns(weight: FloatArray, moments: Moments, leaf_size: int) -> list[Arrangement]:
    """Return arrangements of the columns of a weight ``(m, n)`` other than by index.

    They go by influence on the output; by the weight's principal directions, halved along the first in each cluster, or
    clustered by two means; and by the correlations of the inputs.
    """
    variances = moments.variances
    equal = _equal_columns(weight, variances)
    found = [
        _by_energy((np.square(weight).sum(axis=0) * variances)[equal], leaf_size),
        *_by_directions((weight * np.sqrt(variances)).T, equal, leaf_size),
    ]
    if moments.root is not None:
        # Columns of the root's transpose have the correlations of the inputs as their inner products.
        units = moments.root / np.sqrt(variances)[:, None]
        points = _points(_coordinates(units))
        found.append(Arrangement("correlation", points, PrincipalDirection(leaf_size)))
    return found


def of_rows(weight: FloatArray, moments: Moments, leaf_size: int) -> list[Arrangement]:
    """Return arrangements of the rows of a weight ``(m, n)`` other than by index."""
    weighted = weight if moments.root is None else weight @ moments.root
    equal = first_equal(weight)
    energies = np.square(weighted).sum(axis=1)[equal]
    return [_by_energy(energies, leaf_size), *_by_directions(weighted, equal, leaf_size)]


def of_both(weight: FloatArray, moments: Moments, leaf_size: int) -> tuple[Arrangement, Arrangement]:
    """Return orders of rows and of columns that belong together, by spectral co-clustering of a weight ``(m, n)``.

    Rows and columns are the two sides of a graph whose edges are the squares of the entries. Rows and columns that
    large edges join lie close together.

    References
    ----------
    I. S. Dhillon, "Co-clustering documents and words using bipartite spectral graph partitioning", KDD 2001,
    doi:10.1145/502512.502550.
    """
    variances = moments.variances
    squares = np.square(weight)
    equal = first_equal(squares), _equal_columns(squares, variances)
    del squares
    edges = np.square(weight * np.sqrt(variances))
    degrees = edges.sum(axis=1), edges.sum(axis=0)
    rows, columns = (1 / np.sqrt(np.where(degree > 0, degree, 1)) for degree in degrees)
    edges *= rows[:, None]
    edges *= columns
    factors = _directions(edges)
    lengths = np.linalg.norm(factors.U, axis=0)
    # The first direction tells degrees alone: divided by their roots it is the same for all.
    points = factors.U * rows[:, None], factors.V * lengths * columns[:, None]
    sides = [
        Arrangement("co-clustering", _points(side[first]), PrincipalDirection(leaf_size))
        for side, first in zip(points, equal, strict=True)
    ]
    return sides[0], sides[1]


def _equal_columns(weight: FloatArray, variances: FloatArray) -> Positions:
    """Return, for each column, the number of the first that equals it, in the weight and in the variance ``(n,)``.

    A BLAS may give equal rows or columns different last bits; with the coordinates of the first of them, they stay in
    the order of their indices.
    """
    first = first_equal(weight.T)
    # Variances are sums, and so equal up to rounding; of columns of zeros they do not matter.
    near = np.abs(variances - variances[first]) <= rounding_of(variances.dtype, len(variances)) * variances[first]
    return np.where(near | ~weight.any(axis=0), first, np.arange(len(first)))


def _by_energy(energies: FloatArray, leaf_size: int) -> Arrangement:
    return Arrangement("energy", Points(-energies.astype(np.float64)), Cardinality(leaf_size))


def _by_directions(vectors: FloatArray, equal: Positions, leaf_size: int) -> list[Arrangement]:
    """Arrange vectors ``(size, d)`` by their coordinates along the principal directions, those of the first equal."""
    points = _points(_coordinates(vectors)[equal])
    return [
        Arrangement("principal directions", points, PrincipalDirection(leaf_size)),
        Arrangement("two means", points, TwoMeans(leaf_size)),
    ]


def _coordinates(vectors: FloatArray) -> FloatArray:
    """Return the coordinates of vectors ``(size, d)`` along their principal directions."""
    return _directions(vectors).U


def _directions(matrix: FloatArray) -> LowRank:
    """Return the leading singular vectors of a matrix ``(m, n)``, the left ones times their values, if these are any.

    A large entry of each left vector is positive. Among directions with equal values rounding still chooses any.
    """
    factors = RandomizedSVD()(matrix, Truncation(max_rank=_DIRECTIONS))
    if not factors.rank:
        return factors
    values = np.linalg.norm(factors.U, axis=0)
    rounding = rounding_of(factors.U.dtype, max(matrix.shape))
    kept = int(np.count_nonzero(values > rounding * values[0]))
    signs = signs_of(factors.U[:, :kept])
    return LowRank(factors.U[:, :kept] * signs, factors.V[:, :kept] * signs)


def _points(coordinates: FloatArray) -> Points:
    # Those of a matrix of zeros have no directions: they lie in one place.
    if not coordinates.size:
        return Points(np.zeros((len(coordinates), 1)))
    # Each is a sum over a whole row, however little of it lies along a direction.
    rounding = rounding_of(coordinates.dtype, _DIRECTIONS) * np.abs(coordinates).max()
    return Points(np.stack([snapped(column, rounding) for column in coordinates.T], axis=1))
