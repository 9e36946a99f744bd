"""Second-order rounding: codes that leave the least error of the *output*, not of each entry.

The error that matters is ``tr(E C E^T)`` with C the second moment of the inputs. With ``C = R R^T``, R upper
triangular, it is the sum over columns j of the squares of ``(E R)_j``, which holds the errors of columns up to j alone.
So columns are rounded some at a time, a *step*, each so as to make up for those before it (error feedback); then each
step is rounded anew with all others known, in turns, with the scales fitted anew (coordinate descent). A step of a
trellis is a word, whose entries are chosen together. Each row is a problem of its own, except that it may make up for
errors of rows before it (`row_moments.py`).

References
----------
E. Frantar, S. P. Singh and D. Alistarh, "Optimal Brain Compression", NeurIPS 2022, arXiv:2208.11580; J. Chee, Y. Cai,
V. Kuleshov and C. De Sa, "QuIP", NeurIPS 2023, arXiv:2307.13304 (the triangular form).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hmatrix._support.typing import Codes, FloatArray, Floats32
from hmatrix.allocation.error.moments import Moments
from hmatrix.allocation.error.row_moments import RowMoments
from hmatrix.allocation.rounding.steps import Step, steps_of
from hmatrix.allocation.search.depths import Depth, scales_of
from hmatrix.codes.encoding import Encoded
from hmatrix.codes.precision import Precision
from hmatrix.codes.trellis import TRIES

_ENTRIES = 1 << 20
"""Entries of the rows that are rounded together: memory stays bounded."""

_CHUNK = 64
"""Columns whose mutual influence is followed step by step; on the others they act by products of matrices."""

_PASSES = 3

_TRIES = 4
"""States in which a word may begin that are tried when it is rounded anew."""


@dataclass(frozen=True)
class Cell:
    """A block to be rounded.

    Parameters
    ----------
    rows, columns
        Ranges of its rows and columns.
    depth
        Bit depth of its entries.
    """

    rows: slice
    columns: slice
    depth: Depth


def round_cells(
    target: FloatArray, cells: Sequence[Cell], moments: Moments, row_moments: RowMoments = RowMoments()
) -> list[tuple[Encoded, ...]]:
    """Round the cells of a matrix together.

    Parameters
    ----------
    target
        ``(m, n)``, float32; it is overwritten with the errors, the target less the cells.
    cells
        Blocks that do not overlap; entries in none of them are held to be zero.
    moments, row_moments
        Moments of the columns, and of the rows.

    Returns
    -------
    list
        The leaves of each cell.
    """
    results = [
        tuple(_empty(cell.rows.stop - cell.rows.start, cell.columns, precision) for precision in cell.depth.value)
        for cell in cells
    ]
    root, covariance = moments.root, moments.covariance()
    steps = {
        (cell.columns.start, cell.columns.stop, precision): steps_of(cell.columns, precision, root)
        for cell in cells
        for precision in cell.depth.value
    }
    edges = sorted({edge for cell in cells for edge in (cell.rows.start, cell.rows.stop)})
    m, n = target.shape
    height = min(max(1, _ENTRIES // n), row_moments.height(m))
    for top, bottom in pairwise(edges):
        inside = [number for number, cell in enumerate(cells) if cell.rows.start <= top and bottom <= cell.rows.stop]
        if not inside:
            continue
        inside.sort(key=lambda number: cells[number].columns.start)
        for start in range(top, bottom, height):
            stop = min(start + height, bottom)
            owed = row_moments.owed(target, slice(start, stop))
            if owed is not None:
                target[start:stop] += owed
            planes = []
            for number in inside:
                cell = cells[number]
                own = slice(start - cell.rows.start, stop - cell.rows.start)
                scales = scales_of(target[start:stop, cell.columns], cell.depth)
                for encoded, scale in zip(results[number], scales, strict=True):
                    encoded.scales[own, 0] = scale
                    key = (cell.columns.start, cell.columns.stop, encoded.precision)
                    planes.append(_Plane(cell.columns, encoded.codes[own], encoded.scales[own, 0], steps[key]))
            _Rows(target[start:stop], planes, root, covariance).round()
            if owed is not None:
                target[start:stop] -= owed
    return results


def _empty(m: int, columns: slice, precision: Precision) -> Encoded:
    """Return room for codes and scales."""
    n = columns.stop - columns.start
    return Encoded(np.empty((m, n), np.uint8), np.empty((m, 1), np.float32), n, precision)


class _Plane:
    """Rows of a leaf while they are rounded.

    Parameters
    ----------
    columns
        Range of its columns.
    codes
        ``(rows, columns)``, to be overwritten.
    scale
        First scales, ``(rows,)``, to be overwritten.
    steps
        Its columns.
    """

    def __init__(self, columns: slice, codes: Codes, scale: Floats32, steps: Sequence[Step]) -> None:
        self.columns = columns
        numbers = range(0, len(steps), max(1, _CHUNK // (steps[0].columns.stop - steps[0].columns.start)))
        parts = [steps[first:end] for first, end in pairwise([*numbers, len(steps)])]
        self.chunks = [(slice(part[0].columns.start, part[-1].columns.stop), part) for part in parts]
        self.codes, self.scale = codes, scale
        self.values = np.zeros(codes.shape, np.float32)

    def inverse(self) -> FloatArray:
        """Return 1 / scale ``(rows, 1)``; 0 for scales that are zero, or so small that it would overflow."""
        usable = np.abs(self.scale) > np.finfo(np.float32).tiny
        inverse = np.divide(1, self.scale, out=np.zeros_like(self.scale), where=usable)
        return inverse[:, None]


class _Rows:
    """Rows that the same cells reach, while they are rounded.

    Parameters
    ----------
    target
        ``(m, n)``, to be overwritten with the errors.
    planes
        Leaves in the order of their columns, the finer one of a cell after the coarser one.
    root, covariance
        Root and second moment of the columns, or ``None`` for the identity.
    """

    def __init__(
        self, target: FloatArray, planes: Sequence[_Plane], root: FloatArray | None, covariance: FloatArray | None
    ) -> None:
        self._errors, self._planes = target, planes
        self._root, self._covariance = root, covariance

    def round(self) -> None:
        """Round all planes."""
        for plane in self._planes:
            self._feed_forward(plane)
        for _ in range(_PASSES):
            for plane in self._planes:
                self._fit(plane)
                self._descend(plane)

    def _feed_forward(self, plane: _Plane) -> None:
        """Round the steps of a plane one after the other, each making up for the errors before it."""
        inverse, scale = plane.inverse(), plane.scale[:, None]
        for chunk, steps in plane.chunks:
            debts = None
            if self._root is not None:
                debts = self._errors[:, : chunk.start] @ self._root[: chunk.start, chunk]
            for step in steps:
                target = self._errors[:, step.columns]
                owed = None
                if debts is not None and step.forward is not None:
                    owed = step.forward.owed(debts[:, step.inside(chunk)])
                codes, values = step.nearest(target, inverse, step.forward, owed, TRIES)
                plane.codes[:, step.within], plane.values[:, step.within] = codes, values
                self._errors[:, step.columns] = target - scale * values
                if debts is not None and self._root is not None:
                    debts += self._errors[:, step.columns] @ self._root[step.columns, chunk]

    def _descend(self, plane: _Plane) -> None:
        """Round each step anew with all others known, where that is better."""
        inverse, scale = plane.inverse(), plane.scale[:, None]
        covariance = self._covariance
        for chunk, steps in plane.chunks:
            gradient = None if covariance is None else self._errors @ covariance[:, chunk]
            for step in steps:
                errors = self._errors[:, step.columns].copy()
                target = errors + scale * plane.values[:, step.within]
                owed = None
                if gradient is not None and covariance is not None and step.descending is not None:
                    own = errors @ covariance[step.columns, step.columns]
                    owed = step.descending.owed(gradient[:, step.inside(chunk)] - own)
                codes, values = step.nearest(target, inverse, step.descending, owed, _TRIES)
                found = target - scale * values
                better = step.cost(found, owed) < step.cost(errors, owed)
                plane.codes[better, step.within], plane.values[better, step.within] = codes[better], values[better]
                self._errors[better, step.columns] = found[better]
                if gradient is not None and covariance is not None:
                    gradient += (self._errors[:, step.columns] - errors) @ covariance[step.columns, chunk]

    def _fit(self, plane: _Plane) -> None:
        """Fit the scales of a plane to its values."""
        values, columns = plane.values, plane.columns
        gradient: FloatArray
        spread: FloatArray
        if self._covariance is None:
            gradient, spread = self._errors[:, columns], values
        else:
            gradient = self._errors @ self._covariance[:, columns]
            spread = values @ self._covariance[columns, columns]
        norm = np.einsum("ij,ij->i", values, spread)
        change = np.einsum("ij,ij->i", values, gradient) / np.where(norm > 0, norm, 1)
        plane.scale[:] += change
        self._errors[:, columns] -= values * change[:, None]
