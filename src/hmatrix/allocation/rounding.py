"""Second-order rounding: levels that leave the least error of the *output*, not of each entry.

The error that matters is ``tr(E C E^T)`` with C the second moment of the inputs. With ``C = R R^T``, R upper
triangular, it is the sum over columns j of the squares of ``(E R)_j``, which holds the errors of columns up to j
alone. So columns are rounded one after the other, each so as to make up for those before it (error feedback);
then each is rounded anew with all others known, in turns, with the scales fitted anew (coordinate descent).
Each row is a problem of its own.

References
----------
E. Frantar, S. P. Singh and D. Alistarh, "Optimal Brain Compression", NeurIPS 2022, arXiv:2208.11580; J. Chee, Y. Cai,
V. Kuleshov and C. De Sa, "QuIP", NeurIPS 2023, arXiv:2307.13304 (the triangular form).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hmatrix._validation import FloatArray
from hmatrix.allocation.depths import Depth, first_scales
from hmatrix.allocation.moments import Moments
from hmatrix.precision import Codes

_BLOCK = 64
"""Columns whose mutual influence is followed one by one; on the others it acts by matrix products."""

_ENTRIES = 1 << 20
"""Of the rows that are rounded together: memory stays bounded."""

_PASSES = 6


@dataclass(frozen=True)
class Cell:
    """A block to be rounded.

    Parameters
    ----------
    rows, columns
        Its place.
    depth
        Its grid.
    """

    rows: slice
    columns: slice
    depth: Depth


@dataclass(frozen=True, eq=False)
class Rounded:
    """A rounded cell.

    Parameters
    ----------
    levels
        ``(m, n)``.
    scales
        ``(m,)``.
    """

    levels: Codes
    scales: FloatArray


def round_cells(target: FloatArray, cells: Sequence[Cell], moments: Moments) -> list[Rounded]:
    """Round the cells of a matrix together.

    Parameters
    ----------
    target
        ``(m, n)``, float32; it is overwritten with what the cells leave of it.
    cells
        Blocks that do not overlap; what lies in none of them is held to be zero.
    moments
        Of the columns.
    """
    results = [
        Rounded(
            np.empty((cell.rows.stop - cell.rows.start, cell.columns.stop - cell.columns.start), np.uint8),
            np.empty(cell.rows.stop - cell.rows.start, np.float32),
        )
        for cell in cells
    ]
    height = max(_BLOCK, _ENTRIES // target.shape[1])
    covariance = moments.covariance()
    for start in range(0, len(target), height):
        stop = min(start + height, len(target))
        parts = [
            (cell, result, max(cell.rows.start, start), min(cell.rows.stop, stop))
            for cell, result in zip(cells, results, strict=True)
            if cell.rows.start < stop and start < cell.rows.stop
        ]
        places = [(cell, slice(a - start, b - start)) for cell, _, a, b in parts]
        work = _Rows(target[start:stop], places, moments.root, covariance)
        work.feed_forward()
        for _ in range(_PASSES):
            work.descend()
        target[start:stop] = work.errors.T
        for (cell, result, a, b), (levels, scales) in zip(parts, work.levels(), strict=True):
            own = slice(a - cell.rows.start, b - cell.rows.start)
            result.levels[own], result.scales[own] = levels, scales
    return results


class _Rows:
    """Some rows while they are rounded. All arrays are transposed, so that a column of the matrix is contiguous."""

    def __init__(
        self,
        target: FloatArray,
        parts: Sequence[tuple[Cell, slice]],
        root: FloatArray | None,
        covariance: FloatArray | None,
    ) -> None:
        m, n = target.shape
        self._parts = parts
        self._covariance, self._root = covariance, root
        self._target = np.ascontiguousarray(target.T, np.float32)
        self._scale = np.ones((n, m), np.float32)
        self._uneven = [(cell, rows) for cell, rows in parts if not cell.depth.is_even]
        # Outside of the cells zero is the only level, and for the time being in uneven ones.
        self._zero, self._low, self._high = (np.zeros((n, m), np.float32) for _ in range(3))
        for cell, rows in parts:
            place = (cell.columns, rows)
            self._scale[place] = first_scales(target[rows, cell.columns], cell.depth)
            if cell.depth.is_even:
                self._zero[place] = cell.depth.zero
                self._low[place], self._high[place] = cell.depth.lowest, cell.depth.highest
        self._inverse = _inverse(self._scale)
        self._level = np.zeros((n, m), np.float32)
        self.errors = self._target.copy()

    def feed_forward(self) -> None:
        """Round the columns one after the other, each making up for those before it."""
        n, root = len(self._target), self._root
        if root is None:
            self._round(slice(None), self._target)
            return
        for start in range(0, n, _BLOCK):
            stop = min(start + _BLOCK, n)
            owed = root[:start, start:stop].T @ self.errors[:start]
            for j in range(start, stop):
                self._round(j, self._target[j] + owed[j - start] / root[j, j])
                owed[j - start + 1 :] += np.multiply.outer(root[j, j + 1 : stop], self.errors[j])

    def descend(self) -> None:
        """Fit the scales to the levels, then round each column anew with all others known."""
        covariance = self._covariance
        gradient = self.errors.copy() if covariance is None else covariance @ self.errors
        for cell, rows in self._parts:
            self._fit(cell.columns, rows, gradient)
        if covariance is None:
            self._round(slice(None), self._target)
            return
        n = len(self._target)
        for start in range(0, n, _BLOCK):
            stop = min(start + _BLOCK, n)
            own = gradient[start:stop].copy()
            before = self.errors[start:stop].copy()
            for j in range(start, stop):
                old = self.errors[j].copy()
                self._round(j, self._target[j] - old + own[j - start] / covariance[j, j])
                own[j - start + 1 :] += np.multiply.outer(covariance[j, j + 1 : stop], self.errors[j] - old)
            gradient[stop:] += covariance[stop:, start:stop] @ (self.errors[start:stop] - before)

    def levels(self) -> list[tuple[npt.NDArray[Any], FloatArray]]:
        """Return levels ``(m, n)`` and scales ``(m,)`` of each part."""
        return [
            (
                cell.depth.levels(self._level[cell.columns, rows].T),
                self._scale[cell.columns.start, rows],
            )
            for cell, rows in self._parts
        ]

    def _round(self, j: int | slice, wanted: FloatArray) -> None:
        """Set column j, or all of them for ``slice(None)``, to the levels nearest to what is wanted."""
        zero = self._zero[j]
        scaled = wanted * self._inverse[j]
        level = np.clip(np.rint(scaled + zero), self._low[j], self._high[j]) - zero
        for cell, rows in self._uneven:
            columns = cell.columns
            if isinstance(j, slice):
                level[columns, rows] = cell.depth.nearest(scaled[columns, rows])
            elif columns.start <= j < columns.stop:
                level[rows] = cell.depth.nearest(scaled[rows])
        self._level[j] = level
        self.errors[j] = self._target[j] - level * self._scale[j]

    def _fit(self, columns: slice, rows: slice, gradient: FloatArray) -> None:
        """Fit the scales of a part, its levels being as they are."""
        level = self._level[columns, rows]
        covariance = None if self._covariance is None else self._covariance[:, columns]
        spread = level if covariance is None else covariance[columns] @ level
        norm = np.einsum("ij,ij->j", level, spread)
        change = np.einsum("ij,ij->j", level, gradient[columns, rows]) / np.where(norm > 0, norm, 1)
        self._scale[columns, rows] += change
        self._inverse[columns, rows] = _inverse(self._scale[columns, rows])
        moved = level * change
        self.errors[columns, rows] -= moved
        if covariance is None:
            gradient[columns, rows] -= moved
        else:
            gradient[:, rows] -= covariance @ moved


def _inverse(scale: FloatArray) -> FloatArray:
    """Return 1 / scale; 0 for scales that are zero, or so small that it would overflow."""
    usable = np.abs(scale) > np.finfo(np.float32).tiny
    inverse: FloatArray = np.divide(1, scale, out=np.zeros_like(scale), where=usable)
    return inverse
