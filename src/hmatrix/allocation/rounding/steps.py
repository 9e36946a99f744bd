"""Columns that are rounded together: a word of a trellis, or some columns of evenly spaced values."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from hmatrix import _core
from hmatrix._support.typing import Codes, FloatArray, IndexArray
from hmatrix.codes.precision import Precision
from hmatrix.codes.trellis import ALL_TRIES, Trellis

_EVEN_COLUMNS = 32
"""Columns of a step of evenly spaced values."""


@dataclass(frozen=True, eq=False)
class Coupling:
    """Mutual influence of the columns of a step.

    Parameters
    ----------
    root
        Upper triangular root, by visits, of their second moment, float32 ``(columns, columns)``.
    turn
        Matrix T of the same shape: ``debts @ T`` converts carried errors from column order to visit order.
    """

    root: FloatArray
    turn: FloatArray

    def owed(self, debts: FloatArray) -> FloatArray:
        """Return the carried errors in visit order, ``(m, columns)``."""
        return debts @ self.turn


@dataclass(frozen=True, eq=False)
class Step:
    """Columns of a leaf that are rounded together, in the order of *visits*.

    Parameters
    ----------
    columns, within
        Ranges of the columns in the matrix, and in the leaf.
    precision
        Precision of the leaf.
    order
        Column of each visit, within the step, ``(columns,)``.
    forward
        Coupling when all columns before the step are known, and none after it; carried errors are ``E @ root`` of the
        columns before. ``None`` where no column acts on another.
    descending
        Coupling when all other columns are known; carried errors are ``E @ C`` of the others.
    """

    columns: slice
    within: slice
    precision: Precision
    order: IndexArray
    forward: Coupling | None = None
    descending: Coupling | None = None

    def inside(self, chunk: slice) -> slice:
        """Return the step's place in a range of columns."""
        return slice(self.columns.start - chunk.start, self.columns.stop - chunk.start)

    def cost(self, errors: FloatArray, owed: FloatArray | None) -> FloatArray:
        """Return the cost of errors ``(m, columns)`` when all other columns are known, ``(m,)``."""
        weighted = errors
        if owed is not None and self.descending is not None:
            weighted = errors[:, self.order] @ self.descending.root + owed
        costs: FloatArray = np.einsum("ij,ij->i", weighted, weighted)
        return costs

    def nearest(
        self, target: FloatArray, inverse: FloatArray, coupling: Coupling | None, owed: FloatArray | None, tries: int
    ) -> tuple[Codes, FloatArray]:
        """Return the codes nearest to `target`, or nearly so, and their values.

        Parameters
        ----------
        target
            ``(m, columns)``.
        inverse
            1 / scale, ``(m, 1)``.
        coupling, owed
            Mutual influence of the columns, and carried errors in visit order, ``(m, columns)``.
        tries
            States in which a word of a trellis may begin that are tried.

        Returns
        -------
        codes, values
            ``(m, columns)``; values in units of the scale.
        """
        wanted = target * inverse
        debts = None if owed is None else owed * inverse
        root = None if coupling is None else coupling.root
        trellis = self.precision.trellis
        return self._evenly(wanted, debts, root) if trellis is None else self._word(trellis, wanted, debts, root, tries)

    def _evenly(self, wanted: FloatArray, owed: FloatArray | None, root: FloatArray | None) -> tuple[Codes, FloatArray]:
        values = np.empty(wanted.shape, np.float32)
        owed = np.zeros_like(values) if owed is None else np.ascontiguousarray(owed)
        root = np.eye(wanted.shape[1], dtype=np.float32) if root is None else root
        codes = self.precision
        _core.round_columns(np.ascontiguousarray(wanted), owed, root, codes.lowest, codes.highest, codes.zero, values)
        return (values + np.float32(codes.zero)).astype(np.uint8), values

    def _word(
        self, trellis: Trellis, wanted: FloatArray, owed: FloatArray | None, root: FloatArray | None, tries: int
    ) -> tuple[Codes, FloatArray]:
        present = trellis.present(len(self.order))
        m, visits = len(wanted), trellis.visits
        if present.all():
            target = wanted[:, self.order]
        else:
            # The last word of a leaf: other visits are not present, and owe nothing.
            tries = ALL_TRIES
            target, whole = np.zeros((m, visits), np.float32), np.ix_(present, present)
            target[:, present] = wanted[:, self.order]
            if owed is not None and root is not None:
                owed, root = _placed(owed, (m, visits), (slice(None), present)), _placed(root, (visits, visits), whole)
        windows = trellis.encode(target, present, owed, root, tries=tries)[:, present]
        codes, values = np.empty(wanted.shape, np.uint8), np.empty(wanted.shape, np.float32)
        codes[:, self.order], values[:, self.order] = trellis.codes(windows), trellis.values[windows]
        return codes, values


def _float32(matrix: FloatArray) -> FloatArray:
    return np.ascontiguousarray(matrix, np.float32)


def _placed(part: FloatArray, shape: tuple[int, int], place: tuple[Any, ...]) -> FloatArray:
    """Return an array of zeros with a part at some place."""
    whole = np.zeros(shape, np.float32)
    whole[place] = part
    return whole


def steps_of(columns: slice, precision: Precision, root: FloatArray | None) -> list[Step]:
    """Cut the columns of a leaf into steps.

    Parameters
    ----------
    columns
        Columns of the leaf.
    precision
        An integer precision.
    root
        Root of the second moment of all columns, upper triangular, ``(n, n)``; ``None`` is the identity.
    """
    trellis = precision.trellis
    width = trellis.visits if trellis else _EVEN_COLUMNS
    steps = []
    for start in range(columns.start, columns.stop, width):
        place = slice(start, min(start + width, columns.stop))
        within = slice(place.start - columns.start, place.stop - columns.start)
        n = place.stop - place.start
        order = trellis.columns[trellis.present(n)] if trellis else np.arange(n, dtype=np.int32)
        if root is None:
            steps.append(Step(place, within, precision, order))
            continue
        # R and an orthogonal Q with R Q the rows of the root, in the order of the visits.
        given, turn = scipy.linalg.rq(root[place, place][order].astype(np.float64), check_finite=False)
        alone, _ = scipy.linalg.rq(root[place, start:][order].astype(np.float64), mode="economic", check_finite=False)
        solved = np.empty((n, n))
        solved[order] = np.linalg.inv(alone).T
        forward, descending = Coupling(_float32(given), _float32(turn.T)), Coupling(_float32(alone), _float32(solved))
        steps.append(Step(place, within, precision, order, forward, descending))
    return steps
