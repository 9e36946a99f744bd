"""Which order of rows and of columns is best for a budget: all are tried, on a part of a large matrix."""

from dataclasses import dataclass

import numpy as np

from hmatrix._validation import FloatArray
from hmatrix.allocation.arrangements import Arrangement, of_both, of_columns, of_index, of_rows
from hmatrix.allocation.costs import Cost
from hmatrix.allocation.layout import Layout
from hmatrix.allocation.moments import Moments

_SAMPLE = 1024
"""Orders of one side are tried with at most so many rows or columns of the other, evenly spread."""


@dataclass(frozen=True, eq=False)
class _Trial:
    rows: Arrangement
    columns: Arrangement
    layout: Layout
    share: float

    def bound(self, cost: Cost, most: float) -> float:
        """Return the least error, as predicted, of this part of the matrix, for its share of a budget."""
        return self.layout.bound(cost, most, self.share)


class Screening:
    """Orders of rows and columns: of one side alone, and of both together.

    Parameters
    ----------
    weight
        ``(m, n)``, float32.
    moments
        Of its columns.
    leaf_size
        Of all cluster trees.
    quantized
        Whether activations are int8.
    """

    def __init__(self, weight: FloatArray, moments: Moments, leaf_size: int, *, quantized: bool) -> None:
        index = of_index(leaf_size)
        m, n = weight.shape
        rows, columns = _spread(m), _spread(n)
        few_rows, few_columns = weight[rows], weight[:, columns]
        few_moments = moments.permuted(columns)

        def trial(part: FloatArray, inputs: Moments, of_rows: Arrangement, of_columns: Arrangement) -> _Trial:
            layout = Layout(part, inputs, of_rows, of_columns, quantized=quantized)
            return _Trial(of_rows, of_columns, layout, part.size / weight.size)

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

    def best(self, cost: Cost, most: float) -> tuple[Arrangement, Arrangement]:
        """Return the best order of rows, and that of columns, for a budget."""
        trials = (self._rows, self._columns, self._both)
        bounds = [np.array([trial.bound(cost, most) for trial in side]) for side in trials]
        # By what each leaves of the error in the order of the index, since the parts of the matrix differ.
        rows, columns, both = (side / side[0] if side[0] > 0 else np.ones_like(side) for side in bounds)
        if both[1] < rows.min() * columns.min():
            return self._together
        return self._rows[int(rows.argmin())].rows, self._columns[int(columns.argmin())].columns


def _spread(size: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    return np.unique(np.linspace(0, size - 1, min(size, _SAMPLE)).astype(np.intp))
