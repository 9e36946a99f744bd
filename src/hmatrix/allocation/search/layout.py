"""A matrix in one order of rows and columns: its candidates, and the best of them for a budget."""

import numpy as np

from hmatrix._support.ties import first_least
from hmatrix._support.typing import FloatArray, Floats64, IndexArray
from hmatrix.allocation.error.moments import Moments
from hmatrix.allocation.error.row_moments import RowMoments
from hmatrix.allocation.search.arrangements import Arrangement
from hmatrix.allocation.search.candidates import Candidates, Piece
from hmatrix.allocation.search.costs import CostModel
from hmatrix.allocation.search.leaf_forms import DENSE_FORMS
from hmatrix.allocation.search.leaf_table import leaf_table
from hmatrix.allocation.search.sides import Side
from hmatrix.allocation.search.spending import Dual, Pruner, spend
from hmatrix.packed.schedule import build_schedule
from hmatrix.partitions.cluster import build_cluster_tree

_BISECTIONS = 14

_NOTHING = 1e-12
"""Part of a budget by which sums of floating-point numbers may seem to exceed it."""

_LEAST_STEP = 1 / 64


class Layout:
    """The candidates of a matrix in one order of rows and columns.

    Parameters
    ----------
    weight
        ``(m, n)``, float32.
    moments
        Moments of its columns.
    rows, columns
        Arrangements of rows and of columns.
    quantized
        Whether activations are int8.
    """

    def __init__(
        self, weight: FloatArray, moments: Moments, rows: Arrangement, columns: Arrangement, *, quantized: bool
    ) -> None:
        self.names = (rows.name, columns.name)
        self._shape = (int(weight.shape[0]), int(weight.shape[1]))
        self._quantized = quantized
        sides = [
            Side(build_cluster_tree(side.coordinates(size), side.splitter))
            for side, size in zip((rows, columns), self._shape, strict=True)
        ]
        self.permutations = sides[0].permutation, sides[1].permutation
        self._candidates = Candidates(*self.ordered(weight, moments), *sides)
        self._pruners: dict[CostModel, Pruner] = {}

    def ordered(self, weight: FloatArray, moments: Moments) -> tuple[FloatArray, Moments]:
        """Return a weight and the moments of its columns in this order."""
        rows, columns = self.permutations
        if all(_is_identity(side) for side in self.permutations):
            return weight, moments
        ordered: FloatArray = weight[np.ix_(rows, columns)]
        return ordered, moments if _is_identity(columns) else moments.permuted(columns)

    def ordered_rows(self, moments: RowMoments) -> RowMoments:
        """Return the moments of the rows in this order."""
        rows = self.permutations[0]
        return moments if _is_identity(rows) else moments.permuted(rows)

    def bound(self, cost: CostModel, most: float) -> float:
        """Return the least error that a budget can reach here, as predicted."""
        return self.dual(cost).bound(most - self.reordering(cost))

    def dual(self, cost: CostModel) -> Dual:
        """Return the predicted errors for all budgets, from which the permutations are already paid."""
        return self._pruner(cost).dual

    def reordering(self, cost: CostModel) -> float:
        """Return the cost of the permutations."""
        return cost.of_permutations(sum(len(side) for side in self.permutations if not _is_identity(side)))

    def curve(self, cost: CostModel) -> tuple[Floats64, Floats64]:
        """Return the predicted frontier: costs, rising, and errors, falling."""
        return self._pruner(cost).curve()

    def limits(self, cost: CostModel) -> tuple[float, float]:
        """Return the costs of dropping everything, and of keeping everything dense in float32."""
        smallest, largest = limits(self._shape, cost, quantized=self._quantized)
        return smallest + self.reordering(cost), largest + self.reordering(cost)

    def whole(self, cost: CostModel, most: float) -> Piece | None:
        """Return the best single block for a budget, or ``None`` where none is cheap enough."""
        forms = self._candidates.whole()
        affordable = [piece for piece in forms if self.cost([piece], cost) <= most]
        if not affordable:
            return None
        # The first form drops all. What float32 does not hold of it is no error: of a low rank no further one is less.
        nothing = forms[0].error * float(np.finfo(np.float32).eps) ** 2
        return affordable[first_least([piece.error for piece in affordable], nothing)]

    def pieces(self, cost: CostModel, most: float, *, sums: bool = True) -> list[Piece]:
        """Return the best pieces for a budget that is within the limits, with or without sums of low rank and dense."""
        pruner = self._pruner(cost)
        prices = pruner.prices
        best = [self._candidates.whole()[0]]
        low, high = 0, len(prices) - 1
        # The grid of prices first, then between two of its neighbours.
        while low < high:
            middle = (low + high + 1) // 2
            pieces = pruner.prune(float(prices[middle]), sums=sums)
            if self.cost(pieces, cost) <= most:
                low, best = middle, pieces
            else:
                high = middle - 1
        upper, lower = float(prices[low]), float(prices[min(low + 1, len(prices) - 1)])
        for _ in range(_BISECTIONS):
            price = float(np.sqrt(upper * lower))
            pieces = pruner.prune(price, sums=sums)
            if self.cost(pieces, cost) <= most:
                upper, best = price, pieces
            else:
                lower = price
        return self._spent(best, cost, most)

    def _spent(self, pieces: list[Piece], cost: CostModel, most: float) -> list[Piece]:
        """Spend the rest of the budget, which prices could not, on more and more rows, while it gains anything."""
        left = most - self.cost(pieces, cost)
        while left > 0:
            richer = spend(pieces, left + _NOTHING * most, cost, rounds=self._candidates.rounds)
            over = self.cost(richer, cost) - most
            if richer is pieces:
                break
            if over <= _NOTHING * most:
                pieces, left = richer, -over
            else:
                # Never by so little that it would take for ever.
                left -= max(over, left * _LEAST_STEP)
        return pieces

    def _pruner(self, cost: CostModel) -> Pruner:
        if cost not in self._pruners:
            self._pruners[cost] = Pruner(self._candidates, cost)
        return self._pruners[cost]

    def cost(self, pieces: list[Piece], cost: CostModel) -> float:
        """Return the cost of a matrix of these pieces."""
        table = leaf_table(pieces)
        schedule = build_schedule(self._shape, table, quantized=self._quantized)
        return cost.of_matrix(table, schedule) + self.reordering(cost)


def limits(shape: tuple[int, int], cost: CostModel, *, quantized: bool) -> tuple[float, float]:
    """Return the costs of dropping everything, and of keeping everything dense in float32, in the order of the index.

    Parameters
    ----------
    shape
        Shape of the matrix, ``(m, n)``.
    cost
        Cost that is asked for.
    quantized
        Whether activations are int8.
    """
    m, n = shape
    no_errors = np.zeros(len(DENSE_FORMS))
    tables = [
        leaf_table([Piece(slice(0, m), slice(0, n), form, 0.0, no_errors)])
        for form in (DENSE_FORMS[0], DENSE_FORMS[-1])
    ]
    smallest, largest = (cost.of_matrix(table, build_schedule(shape, table, quantized=quantized)) for table in tables)
    return smallest, largest


def _is_identity(permutation: IndexArray) -> bool:
    return bool(np.array_equal(permutation, np.arange(len(permutation))))
