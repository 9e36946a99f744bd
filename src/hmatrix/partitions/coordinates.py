"""Coordinates of the rows and the columns of a matrix.

A trained weight has no geometry of its own: any coordinates are an assumption about which rows and
which columns belong together. `Index`, that of the published study, assumes that neighbouring indices do.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hmatrix._support.checks import as_array, check_matrix
from hmatrix._support.memory import check_memory
from hmatrix.errors import ArgumentError
from hmatrix.partitions.cluster import Supports

_PLACE = 16
"""Bytes of a place, and of the index that it is made of."""


class Coordinates(Protocol):
    """Gives supports to the rows or the columns of a matrix."""

    def __call__(self, size: int) -> Supports:
        """Return the supports of `size` rows or columns."""
        ...


@dataclass(frozen=True)
class Index:
    """Coordinates by index, not scaled: index i is the interval [i, i + 1] around i + 1/2.

    Rows and columns share one axis, so a block near the diagonal is inadmissible.

    Examples
    --------
    >>> hm.Index()(3).points.ravel().tolist()
    [0.5, 1.5, 2.5]
    """

    def __call__(self, size: int) -> Supports:
        check_memory("size", f"is {size}", _PLACE * size, "give fewer rows or columns")
        return Supports(np.arange(size, dtype=np.float64)[:, None] + 0.5, radius=0.5)


@dataclass(frozen=True)
class ScaledIndex:
    """Coordinates by index, divided by the size: rows and columns both fill [0, 1].

    Examples
    --------
    >>> hm.ScaledIndex()(4).points.ravel().tolist()
    [0.125, 0.375, 0.625, 0.875]
    """

    def __call__(self, size: int) -> Supports:
        index = Index()(size)
        return Supports(index.points / size, index.radius / size)


@dataclass(frozen=True, eq=False)
class Points:
    """Coordinates that are given as points.

    Parameters
    ----------
    points
        ``(n, d)``, or ``(n,)`` for one dimension.
    radius
        Half the side of the cube that each of them fills.

    Raises
    ------
    ArgumentError
        If they are not finite numbers, or not as many as the matrix has rows or columns.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> coordinates = hm.Points(rng.random((300, 2))), hm.Points(rng.random((200, 2)))
    >>> blocks = hm.partition((300, 200), coordinates=coordinates, splitter=hm.Geometric(30))
    >>> blocks.rows.size, blocks.columns.size
    (300, 200)
    """

    points: npt.ArrayLike
    radius: float = 0.0
    _supports: Supports = field(init=False, repr=False)

    def __post_init__(self) -> None:
        points = as_array("points", self.points)
        points = check_matrix("points", points[:, None] if points.ndim == 1 else points)
        object.__setattr__(self, "_supports", Supports(points, self.radius))

    def __call__(self, size: int) -> Supports:
        given = len(self._supports.points)
        if given != size:
            raise ArgumentError("points", f"has {given} points", f"give {size}, one for each row or column")
        return self._supports
