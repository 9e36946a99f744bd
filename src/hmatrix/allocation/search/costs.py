"""Costs of a form of a block: bytes, or seconds."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from hmatrix._support.typing import AnyArray, Floats64, IndexArray
from hmatrix.allocation.search.leaf_forms import Form
from hmatrix.codes.precision import Precision
from hmatrix.packed.panels import PANEL_HEIGHT, Schedule
from hmatrix.packed.schedule import GROUP

_PANEL = 24
_RUN = 16
"""Bytes of a panel and of a run in the tables of the schedule."""

_LEAF = 4 * (GROUP + 1)
"""Bytes of a leaf in the table of leaves."""


class CostModel(Protocol):
    """A cost that a budget bounds."""

    @property
    def unit(self) -> float:
        """A cost about as large as that of one byte."""
        ...

    def of_form(self, form: Form, rows: AnyArray, columns: AnyArray) -> Floats64:
        """Estimate the costs of blocks of `rows` times `columns`, which are broadcast against each other."""
        ...

    def of_matrix(self, leaves: IndexArray, schedule: Schedule) -> float:
        """Return the cost of a whole matrix, given its table of leaves, without permutations."""
        ...

    def of_permutations(self, entries: int) -> float:
        """Return the cost of permutations of so many entries in all."""
        ...


@dataclass(frozen=True)
class Bytes:
    """Bytes of everything that the product needs."""

    unit = 1.0

    def of_form(self, form: Form, rows: AnyArray, columns: AnyArray) -> Floats64:
        """Estimate the bytes of blocks; nearly exact but for the number of panels."""
        panels = np.ceil(rows / PANEL_HEIGHT)
        total = np.zeros(np.broadcast_shapes(rows.shape, columns.shape))
        for plane in form.planes:
            total += 4 * rows * words(plane, columns) + _LEAF + _RUN * panels
        if form.rank:
            total += 4 * (rows * words(form.factors, np.array(form.rank)) + form.rank * words(form.factors, columns))
            total += _LEAF + _RUN * panels + (_PANEL + _RUN) * np.ceil(form.rank / PANEL_HEIGHT)
        return total if form.planes or form.rank else total + _LEAF

    def of_matrix(self, leaves: IndexArray, schedule: Schedule) -> float:
        """Return the bytes of a matrix with float32 as its widest precision."""
        return 4.0 * schedule.words + schedule.nbytes + leaves.nbytes

    def of_permutations(self, entries: int) -> float:
        """Return the bytes of permutations."""
        return 4.0 * entries


@dataclass(frozen=True)
class Both:
    """Two costs with a bound each: the cost of a matrix is the larger of their fractions, so that 1 keeps both bounds.

    The larger fraction does not add up over blocks, so forms are priced by a weighted sum of the fractions: the
    Lagrangian of both bounds. Weights for which both are reached, or one of them with the other for nothing, are best.

    Parameters
    ----------
    costs
        The two.
    bounds
        Largest value of each, positive.
    share
        Weight of the second cost in the costs of forms, in [0, 1].
    """

    costs: tuple[CostModel, CostModel]
    bounds: tuple[float, float]
    share: float

    @property
    def unit(self) -> float:
        """The weighted sum of the units."""
        return float(self._weighted(*(cost.unit for cost in self.costs)))

    def of_form(self, form: Form, rows: AnyArray, columns: AnyArray) -> Floats64:
        """Estimate the weighted sums of the fractions."""
        total: Floats64 = self._weighted(*(cost.of_form(form, rows, columns) for cost in self.costs))
        return total

    def of_matrix(self, leaves: IndexArray, schedule: Schedule) -> float:
        """Return the larger fraction."""
        return self._larger(*(cost.of_matrix(leaves, schedule) for cost in self.costs))

    def of_permutations(self, entries: int) -> float:
        """Return the larger fraction."""
        return self._larger(*(cost.of_permutations(entries) for cost in self.costs))

    def _weighted(self, first: Any, second: Any) -> Any:
        return (1 - self.share) * first / self.bounds[0] + self.share * second / self.bounds[1]

    def _larger(self, first: float, second: float) -> float:
        return max(first / self.bounds[0], second / self.bounds[1])


def words(precision: Precision, columns: AnyArray) -> AnyArray:
    """Return the words of a row of so many columns, with that of its scale."""
    counts: AnyArray = precision.words(columns) + precision.is_integer
    return counts
