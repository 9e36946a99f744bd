"""The best order of rows and of columns for a budget: all are tried, on a part of a large matrix."""

from dataclasses import dataclass

import numpy as np

from hmatrix._support.ties import first_least, rounding_of
from hmatrix._support.typing import FloatArray, Positions
from hmatrix.allocation.error.moments import Moments
from hmatrix.allocation.search.arrangements import Arrangement, of_both, of_columns, of_index, of_rows
from hmatrix.allocation.search.costs import CostModel
from hmatrix.allocation.search.layout import Layout
from hmatrix.allocation.search.spending import Dual

_SAMPLE = 1024
"""Orders of one side are tried with at most so many rows or columns of the other, evenly spread."""


_ROUNDING = rounding_of(np.float32, 2 * _SAMPLE)
"""Largest difference of the errors of equal orders, relative to those in the order of the index."""


@dataclass(frozen=True, eq=False)
class _Trial:
    """An order on a part of the matrix, which is `share` of the whole."""

    rows: Arrangement
    columns: Arrangement
    dual: Dual
    reordering: float
    share: float

    def bound(self, most: float) -> float:
        """Return the least error, as predicted, of this part of the matrix, for its share of a budget."""
        return self.dual.bound(self.share * (most - self.reordering))


class Screening:
    """Orders of rows and columns: of one side alone, and of both together.

    Parameters
    ----------
    weight
        ``(m, n)``, float32.
    moments
        Moments of its columns.
    leaf_size
        Leaf size of all cluster trees.
    quantized
        Whether activations are int8.
    cost
        The cost that budgets bound.
    """

    def __init__(
        self, weight: FloatArray, moments: Moments, leaf_size: int, *, quantized: bool, cost: CostModel
    ) -> None:
        index = of_index(leaf_size)
        m, n = weight.shape
        rows, columns = _spread(m), _spread(n)
        few_rows, few_columns = weight[rows], weight[:, columns]
        few_moments = moments.permuted(columns)

        def trial(part: FloatArray, inputs: Moments, of_rows: Arrangement, of_columns: Arrangement) -> _Trial:
            # The layout goes: of a large matrix all candidates together take more memory than the matrix.
            layout = Layout(part, inputs, of_rows, of_columns, quantized=quantized)
            return _Trial(of_rows, of_columns, layout.dual(cost), layout.reordering(cost), part.size / weight.size)

        self._columns = [
            trial(few_rows, moments, index, side) for side in (index, *of_columns(weight, moments, leaf_size))
        ]
        self._rows = [
            trial(few_columns, few_moments, side, index) for side in (index, *of_rows(weight, moments, leaf_size))
        ]
        # The part is ordered anew: the order of the whole would say which rows and columns of it are neighbours, too,
        # but clusters are halved, and those of a part have other halves.
        few = few_rows[:, columns]
        self._both = [
            trial(few, few_moments, *sides) for sides in ((index, index), of_both(few, few_moments, leaf_size))
        ]
        self._together = of_both(weight, moments, leaf_size)

    def best(self, most: float) -> tuple[Arrangement, Arrangement]:
        """Return the best order of rows, and that of columns, for a budget."""
        trials = (self._rows, self._columns, self._both)
        bounds = [np.array([trial.bound(most) for trial in side]) for side in trials]
        # By what each leaves of the error in the order of the index, since the parts of the matrix differ.
        rows, columns, both = (side / side[0] if side[0] > 0 else np.ones_like(side) for side in bounds)
        best = self._rows[first_least(rows, _ROUNDING)], self._columns[first_least(columns, _ROUNDING)]
        if both[1] < rows.min() * columns.min() - _ROUNDING:
            return self._together
        return best[0].rows, best[1].columns


def _spread(size: int) -> Positions:
    return np.unique(np.linspace(0, size - 1, min(size, _SAMPLE)).astype(np.intp))
