"""Cluster trees: nested sets of rows or columns that lie close together.

References
----------
W. Hackbusch, *Hierarchical Matrices: Algorithms and Analysis*, Springer 2015, chapter 5,
doi:10.1007/978-3-662-47324-5.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hmatrix._support.checks import LARGEST_SIZE, check_integer, check_matrix, check_number
from hmatrix._support.memory import check_memory
from hmatrix._support.typing import FloatArray, IndexArray
from hmatrix.errors import ArgumentError
from hmatrix.partitions.splitters import Splitter

_POINT_BYTES, _CLUSTER_BYTES = 36, 400
"""Bytes of a point and of a cluster while a tree is built, at least."""


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


def check_tree(size: int, leaf_size: object) -> None:
    """Check, before anything is made, that the cluster tree of so many rows or columns can be built.

    Raises
    ------
    ArgumentError
        If there are more than fit into 32 bits, or the machine's memory does not hold them or their clusters.
    """
    leaf = check_integer("leaf_size", leaf_size, at_least=1)
    if size > LARGEST_SIZE:
        raise ArgumentError("shape", f"has {size} rows or columns", f"give at most {LARGEST_SIZE}")
    check_memory("shape", f"has {size} rows or columns", _POINT_BYTES * size, "give fewer")
    clusters = 2 * -(-size // leaf) - 1
    came = f"is {leaf}: {size} rows or columns have {clusters} clusters"
    check_memory("leaf_size", came, _POINT_BYTES * size + _CLUSTER_BYTES * clusters, "give a larger one")
