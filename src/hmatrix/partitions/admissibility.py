"""Conditions under which a block may be approximated by low rank.

References
----------
W. Hackbusch, *Hierarchical Matrices: Algorithms and Analysis*, Springer 2015, section 5.2,
doi:10.1007/978-3-662-47324-5.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hmatrix._support.checks import check_number
from hmatrix.errors import ArgumentError
from hmatrix.partitions.cluster import Cluster

_ROUNDING = 1e-12
"""Largest error of lengths, relative to that of the box around both clusters: it does not decide."""


class Admissibility(Protocol):
    """Says whether a block is admissible."""

    def __call__(self, rows: Cluster, columns: Cluster) -> bool:
        """Return whether the block of `rows` and `columns` may have low rank."""
        ...


@dataclass(frozen=True)
class Strong:
    """Admits blocks with ``max(diam) <= eta * dist`` whose clusters are apart.

    Examples
    --------
    >>> len(hm.partition((1000, 1000), admissibility=hm.Strong(eta=2)).far_field)
    156
    >>> len(hm.partition((1000, 1000), admissibility=hm.Strong(eta=1)).far_field)
    168
    """

    eta: float = 2.0

    def __post_init__(self) -> None:
        check_number("eta", self.eta, above=0.0)

    def __call__(self, rows: Cluster, columns: Cluster) -> bool:
        distance = rows.distance(columns)
        return distance > 0 and max(rows.diameter, columns.diameter) <= self.eta * distance + _rounding(rows, columns)


@dataclass(frozen=True)
class StrongMin:
    """Admits blocks with ``min(diam) <= eta * dist`` whose clusters are apart.

    Examples
    --------
    >>> len(hm.partition((1000, 1280), admissibility=hm.StrongMin(eta=2)).far_field)
    139
    """

    eta: float = 2.0

    def __post_init__(self) -> None:
        check_number("eta", self.eta, above=0.0)

    def __call__(self, rows: Cluster, columns: Cluster) -> bool:
        distance = rows.distance(columns)
        return distance > 0 and min(rows.diameter, columns.diameter) <= self.eta * distance + _rounding(rows, columns)


@dataclass(frozen=True)
class Weak:
    """Admits blocks whose clusters lie beside each other along some axis: the partition of HODLR matrices.

    Parameters
    ----------
    overlap
        Fraction of the shorter side by which they may still overlap. Clusters of 63 among 1,000 rows and
        of 80 among 1,280 columns, say, do not end at quite the same place.

    Examples
    --------
    >>> blocks = hm.partition((1000, 1000), admissibility=hm.Weak())
    >>> len(blocks.far_field), len(blocks.near_field)
    (62, 32)
    """

    overlap: float = 0.1

    def __post_init__(self) -> None:
        if check_number("overlap", self.overlap, at_least=0.0) >= 1.0:
            raise ArgumentError("overlap", f"got {self.overlap}", "give a fraction below 1")

    def __call__(self, rows: Cluster, columns: Cluster) -> bool:
        sides = rows.upper - rows.lower, columns.upper - columns.lower
        shared = np.minimum(rows.upper, columns.upper) - np.maximum(rows.lower, columns.lower)
        hull = np.maximum(rows.upper, columns.upper) - np.minimum(rows.lower, columns.lower)
        # Rounding must not decide whether two boxes touch; nor is a point beside a box that contains it.
        apart = shared <= self.overlap * np.minimum(*sides) + _ROUNDING * hull
        return bool((apart & (hull > (1 + _ROUNDING) * np.maximum(*sides))).any())


@dataclass(frozen=True)
class Everywhere:
    """Admits every block: the whole matrix becomes one low-rank block.

    Examples
    --------
    >>> blocks = hm.partition((1000, 1000), admissibility=hm.Everywhere())
    >>> len(blocks.far_field), len(blocks.near_field)
    (1, 0)
    """

    def __call__(self, rows: Cluster, columns: Cluster) -> bool:  # noqa: ARG002
        return True


def _rounding(rows: Cluster, columns: Cluster) -> float:
    """Return the largest rounding error of diameters and distances of two clusters."""
    hull = np.maximum(rows.upper, columns.upper) - np.minimum(rows.lower, columns.lower)
    return _ROUNDING * float(np.linalg.norm(hull))
