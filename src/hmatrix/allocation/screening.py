"""Which order of rows and of columns is best for a budget: all are tried, on a part of a large matrix."""

from dataclasses import dataclass

import numpy as np

from hmatrix._validation import FloatArray
from hmatrix.allocation.arrangements import Arrangement, of_columns, of_index, of_rows
from hmatrix.allocation.costs import Cost
from hmatrix.allocation.layout import Layout
from hmatrix.allocation.moments import Moments

_SAMPLE = 1024
"""Orders of one side are tried with at most so many rows or columns of the other, evenly spread."""


@dataclass(frozen=True, eq=False)
class _Trial:
    arrangement: Arrangement
    layout: Layout
    share: float

    def bound(self, cost: Cost, most: float) -> float:
        """Return the least error, as predicted, of this part of the matrix, for its share of a budget."""
        return self.layout.bound(cost, most, self.share)


class Screening:
    """Orders of rows and columns, each of one side tried with the index order of the other.

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
        self._columns = [
            _Trial(side, Layout(few_rows, moments, index, side, quantized=quantized), len(rows) / m)
            for side in (index, *of_columns(weight, moments, leaf_size))
        ]
        self._rows = [
            _Trial(side, Layout(few_columns, few_moments, side, index, quantized=quantized), len(columns) / n)
            for side in (index, *of_rows(weight, moments, leaf_size))
        ]

    def best(self, cost: Cost, most: float) -> tuple[Arrangement, Arrangement]:
        """Return the best order of rows, and that of columns, for a budget."""
        rows, columns = (min(side, key=lambda trial: trial.bound(cost, most)) for side in (self._rows, self._columns))
        return rows.arrangement, columns.arrangement


def _spread(size: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    return np.unique(np.linspace(0, size - 1, min(size, _SAMPLE)).astype(np.intp))
