"""Splitters of clusters: callables with a leaf size, so that a user's own fits, too."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hmatrix._support.checks import check_integer, check_number
from hmatrix._support.ties import first_largest, rounding_of, tied_order
from hmatrix._support.typing import AnyArray, FloatArray, Positions
from hmatrix.errors import ArgumentError


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
        own = _rounding_of_points(points)
        direction, turned = _principal(centred, own)
        reach = np.linalg.norm(centred, axis=1).max()
        return _tied_halves(centred @ direction, float(own * np.abs(exact).max() + turned * reach))


def _rounding_of_points(points: FloatArray) -> float:
    """Return by how much sums of the coordinates ``(n, d)`` of equal points may differ, relative to the largest one.

    Coordinates are often sums themselves, such as those along principal directions: each of the d is off by the
    rounding of d terms.
    """
    return rounding_of(points.dtype, points.shape[1] ** 2)


def _principal(centred: FloatArray, own: float) -> tuple[FloatArray, float]:
    """Return the direction in which points ``(n, d)`` vary most, and its largest turn by rounding, theirs included.

    An eigenvector is known up to the rounding of the matrix over the distance to the other eigenvalues. Those within
    the root of the rounding count as equal to the largest, so that the others turn it by no more than that root.
    """
    values, directions = np.linalg.eigh(centred.T @ centred)
    rounding = rounding_of(np.float64, len(centred)) + own
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
        rounding = rounding_of(np.float64, len(exact)) + _rounding_of_points(points)
        reach = rounding * float(np.linalg.norm(exact, axis=1).max())
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
