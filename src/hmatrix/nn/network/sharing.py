"""A budget shared between layers so that the sum of their errors is least.

Each layer has a convex curve of the least error for so many bytes. At the optimum all curves have the same slope (the
Lagrange multiplier of the budget), so their segments are taken in the order of the gain of a byte.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hmatrix._support.ties import rounding_of, tied_order
from hmatrix._support.typing import Floats64
from hmatrix.errors import ArgumentError


@dataclass(frozen=True, eq=False)
class ErrorCurve:
    """The least error of a layer for so many bytes.

    Parameters
    ----------
    sizes
        Bytes, rising, ``(points,)``.
    errors
        Errors, weighted so that they add up, falling and convex, ``(points,)``.
    dense
        Bytes of the layer as it is, without error.
    """

    sizes: Floats64
    errors: Floats64
    dense: int

    def hull(self) -> tuple[Floats64, Floats64]:
        """Return the convex hull of the curve and of the layer as it is; its last point is the latter."""
        cheaper = self.sizes < self.dense
        points = [*zip(self.sizes[cheaper], self.errors[cheaper], strict=True), (float(self.dense), 0.0)]
        hull: list[tuple[float, float]] = []
        for point in points:
            while len(hull) > 1 and _is_above(hull[-2], hull[-1], point):
                hull.pop()
            hull.append(point)
        sizes, errors = np.array(hull).T
        return sizes, errors


def share(curves: Sequence[ErrorCurve], budget: float) -> list[int]:
    """Return the bytes of each layer; one that gets its dense bytes stays as it is.

    Raises
    ------
    ArgumentError
        If the budget is below the smallest possible.
    """
    hulls = [curve.hull() for curve in curves]
    shares = [float(sizes[0]) for sizes, _ in hulls]
    left = budget - sum(shares)
    if left < 0:
        least, most = sum(shares), sum(curve.dense for curve in curves)
        mend = f"give {least:.0f} to {most} bytes, or {least / most:.2g} to 1 of the storage"
        raise ArgumentError("budget", f"is {budget:.0f} bytes for the layers that share it", mend)
    segments = [
        (float((errors[i] - errors[i + 1]) / (sizes[i + 1] - sizes[i])), number, i)
        for number, (sizes, errors) in enumerate(hulls)
        for i in range(len(sizes) - 1)
    ]
    reached = [0] * len(hulls)
    # Segments of one curve come in their order, since it is convex; those of equal layers in the layers' order.
    slopes = np.array([slope for slope, _, _ in segments])
    for place in tied_order(-slopes, rounding_of(np.float32, 1) * slopes):
        _, number, i = segments[place]
        sizes, _ = hulls[number]
        length = float(sizes[i + 1] - sizes[i])
        if reached[number] < i:
            continue
        if length <= left:
            shares[number] = float(sizes[i + 1])
            reached[number] = i + 1
            left -= length
        elif i + 2 < len(sizes):
            # Between the last H-matrix and the layer as it is there is nothing.
            shares[number] += left
            left = 0.0
    return [int(size) for size in shares]


def _is_above(first: tuple[float, float], middle: tuple[float, float], last: tuple[float, float]) -> bool:
    """Return whether the middle point lies on or above the line between the others."""
    return (middle[1] - first[1]) * (last[0] - first[0]) >= (last[1] - first[1]) * (middle[0] - first[0])
