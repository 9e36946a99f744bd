"""Places of small labels, so that none lies on another or on a line."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from hmatrix._support.typing import Floats64
from hmatrix.study.figures.drawing import INCH, text_width

ABOVE = ((0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0))
BELOW_RIGHT = ((1, -1), (0, -1), (1, 0), (-1, 1), (0, 1))
"""Sides of a point, right and up, in the order in which they are tried."""

_SIZE = 7.0
"""Size of the text, in points."""

MARKER = 5.0
"""Radius of the largest marker with its edge, in points."""

RING = 0.98 * MARKER * np.array([(math.cos(a), math.sin(a)) for a in np.linspace(0, 2 * math.pi, 12, endpoint=False)])


def spread(wanted: Sequence[float], gap: float, lower: float, upper: float) -> list[float]:
    """Return places at least `gap` apart, in the order of `wanted` and as near to it as can be.

    Parameters
    ----------
    wanted
        Places on a line, in any order.
    gap
        Least distance of two.
    lower, upper
        Ends of the line; if it is too short for all, the gap gives way.

    Returns
    -------
    list of float
        Place of each of `wanted`: the admissible ones with the least sum of squared moves.
    """
    if not wanted:
        return []
    gap = min(gap, (upper - lower) / max(len(wanted) - 1, 1))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    # Without the gaps this is isotonic regression: neighbours in the wrong order share their mean.
    pools: list[tuple[float, int]] = []
    for i, index in enumerate(order):
        mean, size = wanted[index] - i * gap, 1
        while pools and pools[-1][0] > mean:
            before, count = pools.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        pools.append((mean, size))
    level = [mean for mean, size in pools for _ in range(size)]
    highest = upper - (len(wanted) - 1) * gap
    places = [0.0] * len(wanted)
    for i, index in enumerate(order):
        places[index] = min(max(level[i], lower), highest) + i * gap
    return places


class LabelRoom:
    """Room for labels in an axes, beside its lines.

    The limits, the scales and the place of the axes must not change afterwards.

    Parameters
    ----------
    axes
        Axes of the labels.
    sides
        Sides of its point on which a label may stand, right and up, in the order in which they are tried.
    """

    def __init__(self, axes: Axes, sides: Sequence[tuple[int, int]] = ABOVE) -> None:
        self._axes = axes
        self._sides = sides
        self._hard: list[Floats64] = [np.empty((0, 2))]
        self._soft: list[Floats64] = [np.empty((0, 2))]
        self._boxes: list[tuple[float, float, float, float]] = [self._frame()]

    def _points(self, x: Sequence[float], y: Sequence[float]) -> Floats64:
        scale = INCH / self._axes.figure.dpi
        return np.asarray(self._axes.transData.transform(np.column_stack([x, y])), dtype=np.float64) * scale

    def _frame(self) -> tuple[float, float, float, float]:
        (x0, x1), (y0, y1) = sorted(self._axes.get_xlim()), sorted(self._axes.get_ylim())
        ends = self._points([x0, x1], [y0, y1])
        return (ends[0, 0], ends[0, 1], ends[1, 0], ends[1, 1])

    def keep_clear(self, x: Sequence[float], y: Sequence[float]) -> None:
        """Keep labels off the line through these points, and off the markers on it."""
        points = self._points(x, y)
        self._hard.append((points[:, None, :] + RING).reshape(-1, 2))
        self._hard += self._samples(points)

    def avoid(self, x: Sequence[float], y: Sequence[float]) -> None:
        """Keep labels off the line through these points as long as they find room elsewhere."""
        self._soft += self._samples(self._points(x, y))

    @staticmethod
    def _samples(points: Floats64) -> list[Floats64]:
        return [
            start + np.linspace(0, 1, max(math.ceil(math.dist(start, end) / 3.0), 1))[:, None] * (end - start)
            for start, end in itertools.pairwise(points)
        ]

    def place(self, x: Sequence[float], y: Sequence[float], texts: Sequence[str], colour: str) -> list[int]:
        """Write each text beside its point where there is room, ends and middle first.

        Returns
        -------
        list of int
            The points that have got a label.
        """
        points = self._points(x, y)
        order = _ends_first(len(texts))
        hard = np.concatenate(self._hard)
        written: list[int] = []
        for obstacles in (np.concatenate([hard, *self._soft]), hard):
            written += [
                i
                for i in order
                if i not in written and self._write(points[i], (x[i], y[i]), texts[i], colour, obstacles)
            ]
        return sorted(written)

    def _write(
        self,
        point: Floats64,
        data: tuple[float, float],
        text: str,
        colour: str,
        obstacles: Floats64,
    ) -> bool:
        width, height = text_width(text, _SIZE) + 2, 0.85 * _SIZE + 2
        for right, up in self._sides:
            dx, dy = right * (width / 2 + MARKER), up * (height / 2 + MARKER)
            centre = (point[0] + dx, point[1] + dy)
            box = (centre[0] - width / 2, centre[1] - height / 2, centre[0] + width / 2, centre[1] + height / 2)
            if self._is_free(box, obstacles):
                self._boxes.append(box)
                self._axes.annotate(
                    text,
                    data,
                    (dx, dy),
                    textcoords="offset points",
                    ha="center",
                    va="center",
                    fontsize=_SIZE,
                    color=colour,
                    path_effects=[withStroke(linewidth=2.0, foreground="white")],
                )
                return True
        return False

    def _is_free(self, box: tuple[float, float, float, float], obstacles: Floats64) -> bool:
        x0, y0, x1, y1 = box
        frame, *others = self._boxes
        if x0 < frame[0] or y0 < frame[1] or x1 > frame[2] or y1 > frame[3]:
            return False
        if any(x0 < b[2] and b[0] < x1 and y0 < b[3] and b[1] < y1 for b in others):
            return False
        return not bool(((obstacles > (x0, y0)) & (obstacles < (x1, y1))).all(axis=1).any())


def _ends_first(count: int) -> list[int]:
    order: list[int] = []
    spans = [(0, count - 1)] if count else []
    order.extend(dict.fromkeys([0, count - 1]) if count else [])
    while spans:
        first, last = spans.pop(0)
        middle = (first + last) // 2
        if middle not in (first, last):
            order.append(middle)
            spans += [(first, middle), (middle, last)]
    return order
