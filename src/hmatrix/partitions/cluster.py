"""Cluster trees: nested sets of rows or columns that lie close together.

References
----------
W. Hackbusch, *Hierarchical Matrices: Algorithms and Analysis*, Springer 2015, chapter 5,
doi:10.1007/978-3-662-47324-5.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hmatrix._support.checks import check_integer, check_matrix, check_number
from hmatrix._support.ties import first_largest, rounding_of, tied_order
from hmatrix._support.typing import AnyArray, FloatArray, IndexArray, Positions
from hmatrix.errors import ArgumentError


@dataclass(frozen=True, eq=False)
class Supports:
    """Supports of rows or columns: the places where they lie.

    Parameters
    ----------
    points
        Their centres, ``(n, d)``.
    radius
        Half the side of the cube that each of them fills. With 0 they are mere points; an index that
        stands for the interval [i, i + 1] has 1/2.

    Raises
    ------
    ArgumentError
        If the points are not a finite ``(n, d)`` array, or the radius is negative.

    Examples
    --------
    >>> supports = hm.Supports(np.array([[0.0, 0.0], [1.0, 0.0]]), radius=0.5)
    >>> supports.points.shape
    (2, 2)
    """

    points: FloatArray
    radius: float = 0.0

    def __post_init__(self) -> None:
        check_matrix("points", self.points)
        check_number("radius", self.radius, at_least=0.0)


@dataclass(frozen=True, eq=False)
class Cluster:
    """A contiguous range of tree positions, with the bounding box of its supports.

    Parameters
    ----------
    start, stop
        The range of tree positions.
    lower, upper
        Corners of the bounding box, ``(d,)``.
    sons
        The clusters that it is split into; none for a leaf.

    Examples
    --------
    >>> tree = hm.build_cluster_tree(hm.Index()(100), hm.Cardinality(60))
    >>> tree.root.size, [son.size for son in tree.root.sons]
    (100, [50, 50])
    >>> tree.root.diameter
    100.0
    """

    start: int
    stop: int
    lower: FloatArray
    upper: FloatArray
    sons: tuple["Cluster", ...] = ()

    @property
    def size(self) -> int:
        """Number of rows or columns."""
        return self.stop - self.start

    @property
    def slice(self) -> slice:
        """The range of tree positions as a slice."""
        return slice(self.start, self.stop)

    @property
    def is_leaf(self) -> bool:
        """Whether it is not split further."""
        return not self.sons

    @property
    def diameter(self) -> float:
        """Euclidean diameter of the bounding box."""
        return float(np.linalg.norm(self.upper - self.lower))

    def distance(self, other: "Cluster") -> float:
        """Return the Euclidean distance of the two bounding boxes; 0 where they touch or overlap."""
        gap = np.maximum(np.maximum(self.lower - other.upper, other.lower - self.upper), 0.0)
        return float(np.linalg.norm(gap))


@dataclass(frozen=True, eq=False)
class ClusterTree:
    """A cluster tree over rows or columns.

    Parameters
    ----------
    root
        The cluster of all.
    permutation
        ``permutation[tree position] = original index``, int32 ``(size,)``.

    Examples
    --------
    >>> tree = hm.build_cluster_tree(hm.Index()(200), hm.Cardinality(60))
    >>> [leaf.size for leaf in tree.leaves()]
    [50, 50, 50, 50]
    """

    root: Cluster
    permutation: IndexArray

    @property
    def size(self) -> int:
        """Number of rows or columns."""
        return self.root.size

    def clusters(self) -> Iterator[Cluster]:
        """Iterate over all clusters, fathers before sons, in tree order."""
        stack = [self.root]
        while stack:
            cluster = stack.pop()
            yield cluster
            stack.extend(reversed(cluster.sons))

    def leaves(self) -> Iterator[Cluster]:
        """Iterate over the clusters that are not split, in tree order."""
        return (cluster for cluster in self.clusters() if cluster.is_leaf)


class Splitter(Protocol):
    """Splits the points of a cluster in two."""

    @property
    def leaf_size(self) -> int:
        """Clusters of at most this many points are not split."""
        ...

    def __call__(self, points: FloatArray) -> tuple[Positions, int]:
        """Return the order of `points` ``(n, d)``, n >= 2, and how many of them, 1 to n - 1, form the first son."""
        ...


def _halves(keys: AnyArray) -> tuple[Positions, int]:
    """Order by `keys`; the first half is the larger one."""
    return np.argsort(keys, kind="stable"), (keys.size + 1) // 2


def _tied_halves(keys: FloatArray, rounding: float) -> tuple[Positions, int]:
    """Order by `keys`, and by index where rounding alone tells keys apart; the first half is the larger one."""
    return tied_order(keys, rounding), (keys.size + 1) // 2


def _longest_side(points: FloatArray) -> FloatArray:
    """Coordinates along the longest side of the bounding box, ``(n,)``, the first of equal ones."""
    rounding = rounding_of(np.result_type(points, np.float32), 1) * float(np.abs(points).max())
    side: FloatArray = points[:, first_largest(np.ptp(points, axis=0), rounding)]
    return side


@dataclass(frozen=True)
class Cardinality:
    """Splits into halves of equal cardinality along the longest side of the bounding box; the first half is the larger.

    Examples
    --------
    >>> order, first = hm.Cardinality()(np.array([[0.0], [9.0], [1.0], [2.0], [3.0]]))
    >>> order.tolist(), first
    ([0, 2, 3, 4, 1], 3)
    """

    leaf_size: int = 60

    def __post_init__(self) -> None:
        check_integer("leaf_size", self.leaf_size, at_least=1)

    def __call__(self, points: FloatArray) -> tuple[Positions, int]:
        return _halves(_longest_side(points))


@dataclass(frozen=True)
class Geometric:
    """Splits by binary space partitioning: the bounding box is cut through the middle of its longest side.

    Points that all coincide are halved by cardinality.

    Examples
    --------
    >>> order, first = hm.Geometric()(np.array([[0.0], [9.0], [1.0], [2.0], [3.0]]))
    >>> order.tolist(), first
    ([0, 2, 3, 4, 1], 4)
    """

    leaf_size: int = 60

    def __post_init__(self) -> None:
        check_integer("leaf_size", self.leaf_size, at_least=1)

    def __call__(self, points: FloatArray) -> tuple[Positions, int]:
        keys = _longest_side(points)
        middle = keys.min() + np.ptp(keys) / 2
        first = int(np.count_nonzero(keys < middle))
        order, half = _halves(keys)
        return order, first or half


@dataclass(frozen=True)
class PrincipalDirection:
    """Splits into halves of equal cardinality along the direction in which the points vary most.

    Points that lie equally far along it are ordered by their index. Where they vary as much along several directions,
    as those of a square grid do, the one next to the coordinate axis that most of them contain is taken.

    Examples
    --------
    >>> order, first = hm.PrincipalDirection()(np.array([[0.0, 0.0], [2.0, 2.1], [1.0, 1.0], [3.0, 2.9]]))
    >>> sorted(order[:first].tolist()) in ([0, 2], [1, 3])
    True
    """

    leaf_size: int = 60

    def __post_init__(self) -> None:
        check_integer("leaf_size", self.leaf_size, at_least=1)

    def __call__(self, points: FloatArray) -> tuple[Positions, int]:
        # In float64, so that rounding ties next to no points that are not equal.
        exact = points.astype(np.float64, copy=False)
        centred = exact - exact.mean(axis=0)
        direction, turned = _principal(centred)
        reach = np.linalg.norm(centred, axis=1).max()
        rounding = rounding_of(np.float64, points.shape[1]) * np.abs(exact).max() + turned * reach
        return _tied_halves(centred @ direction, float(rounding))


def _principal(centred: FloatArray) -> tuple[FloatArray, float]:
    """Return the direction in which points ``(n, d)`` vary most, and the largest turn of it by rounding.

    An eigenvector is known up to the rounding of the matrix over the distance to the other eigenvalues. Those within
    the root of the rounding count as equal to the largest, so that the others turn it by no more than that root.
    """
    values, directions = np.linalg.eigh(centred.T @ centred)
    rounding = rounding_of(np.float64, len(centred)) + rounding_of(np.float64, len(values) ** 2)
    largest = values[-1]
    tied = values >= largest * (1 - np.sqrt(rounding))
    rest = values[~tied].max(initial=0.0)
    turned = rounding * largest / (largest - rest) if largest > rest else 0.0
    space = directions[:, tied]
    # An eigenvector's sign is arbitrary, and so is a basis of several: the first largest entry shall be positive.
    lengths = np.linalg.norm(space, axis=1)
    nearest = first_largest(lengths, 2 * float(turned) + rounding)
    direction: FloatArray = space @ (space[nearest] / lengths[nearest])
    return direction, float(turned)


@dataclass(frozen=True)
class TwoMeans:
    """Splits into halves of equal cardinality about two centres, found by alternation (balanced 2-means).

    It starts from the halves of `PrincipalDirection`, so the same points give the same order.

    Parameters
    ----------
    leaf_size
        Clusters of at most this many points are not split.
    iterations
        Most alternations.

    Examples
    --------
    >>> order, first = hm.TwoMeans()(np.array([[0.0, 0.0], [9.0, 8.0], [1.0, 0.0], [9.0, 9.0]]))
    >>> sorted(order[:first].tolist()) in ([0, 2], [1, 3])
    True
    """

    leaf_size: int = 60
    iterations: int = 20

    def __post_init__(self) -> None:
        check_integer("leaf_size", self.leaf_size, at_least=1)
        check_integer("iterations", self.iterations, at_least=1)

    def __call__(self, points: FloatArray) -> tuple[Positions, int]:
        order, first = PrincipalDirection(self.leaf_size)(points)
        exact = points.astype(np.float64, copy=False)
        reach = rounding_of(np.float64, exact.size) * float(np.linalg.norm(exact, axis=1).max())
        for _ in range(self.iterations):
            centres = exact[order[:first]].mean(axis=0), exact[order[first:]].mean(axis=0)
            apart = centres[1] - centres[0]
            # Points that are nearer to the first centre than to the second come first.
            closer, _ = _tied_halves(exact @ apart, reach * float(np.linalg.norm(apart)))
            if set(closer[:first].tolist()) == set(order[:first].tolist()):
                break
            order = closer
        return order, first


@dataclass(frozen=True)
class Automatic:
    """Splits as `Geometric` does where that is balanced, else as `Cardinality`.

    Parameters
    ----------
    leaf_size
        Clusters of at most this many points are not split.
    balance
        Least fraction of the points that each son of a geometric split must hold.

    Examples
    --------
    >>> order, first = hm.Automatic()(np.array([[0.0], [9.0], [1.0], [2.0], [3.0]]))
    >>> order.tolist(), first
    ([0, 2, 3, 4, 1], 3)
    """

    leaf_size: int = 60
    balance: float = 0.25

    def __post_init__(self) -> None:
        check_integer("leaf_size", self.leaf_size, at_least=1)
        if check_number("balance", self.balance, above=0.0) > 0.5:
            raise ArgumentError("balance", f"got {self.balance}", "give a fraction of at most 0.5")

    def __call__(self, points: FloatArray) -> tuple[Positions, int]:
        order, first = Geometric(self.leaf_size)(points)
        if min(first, len(points) - first) >= self.balance * len(points):
            return order, first
        return Cardinality(self.leaf_size)(points)


def build_cluster_tree(supports: Supports, splitter: Splitter) -> ClusterTree:
    """Build the cluster tree of rows or columns.

    Parameters
    ----------
    supports
        Supports of the rows or columns.
    splitter
        Splitter of the clusters; those of at most its leaf size are leaves.

    Returns
    -------
    ClusterTree
        Sons lie side by side in the order of the tree's positions.

    Raises
    ------
    ArgumentError
        If the splitter returns an unusable split.

    Examples
    --------
    >>> points = np.random.default_rng(0).standard_normal((100, 3))
    >>> tree = hm.build_cluster_tree(hm.Supports(points), hm.Geometric(leaf_size=20))
    >>> tree.size, max(leaf.size for leaf in tree.leaves()) <= 20
    (100, True)
    """
    points, radius = supports.points, supports.radius
    permutation = np.arange(len(points), dtype=np.int32)
    # Trees over badly spread points are deep, so no recursion: split downwards, then build upwards.
    ranges = [(0, len(points))]
    sons: list[tuple[int, ...]] = []
    for start, stop in ranges:
        if stop - start <= splitter.leaf_size:
            sons.append(())
            continue
        members = permutation[start:stop]
        order, first = splitter(points[members])
        if not 0 < first < stop - start:
            raise ArgumentError("splitter", f"put {first} of {stop - start} points first", "leave no son empty")
        if not np.array_equal(np.sort(order), np.arange(stop - start)):
            raise ArgumentError("splitter", "returned an order that is no permutation", "return each point once")
        permutation[start:stop] = members[order]
        sons.append((len(ranges), len(ranges) + 1))
        ranges += [(start, start + first), (start + first, stop)]
    clusters: dict[int, Cluster] = {}
    for number in reversed(range(len(ranges))):
        start, stop = ranges[number]
        inside = points[permutation[start:stop]]
        lower, upper = inside.min(axis=0) - radius, inside.max(axis=0) + radius
        clusters[number] = Cluster(start, stop, lower, upper, tuple(clusters.pop(son) for son in sons[number]))
    return ClusterTree(clusters[0], permutation)
