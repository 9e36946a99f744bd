"""The best partition of a matrix and the best form of each block, for a price of error.

For a price p of each unit of cost, the partition with the least ``error + p cost`` is found exactly: for every pair of
clusters, from the smallest up, the best of its own forms is compared with the best of its parts, split by rows or by
columns (dynamic programming). Bisection finds the price for a budget: a Lagrangian relaxation, which reaches the lower
convex hull of all possible matrices. The rest of the budget is spent on a part of the rows of one block.

References
----------
P. A. Chou, T. Lookabaugh and R. M. Gray, "Optimal pruning with applications to tree-structured source coding and
modeling", IEEE Transactions on Information Theory 35 (1989), doi:10.1109/18.32124.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np

from hmatrix._support.ties import rounding_of
from hmatrix._support.typing import Flags, Floats64, Positions
from hmatrix.allocation.search.candidates import Candidates, Levels, Piece
from hmatrix.allocation.search.costs import CostModel
from hmatrix.allocation.search.depths import Depth
from hmatrix.allocation.search.leaf_forms import DENSE_FORMS, Form

Choices: TypeAlias = dict[Levels, Positions]

_OWN, _BY_ROWS, _BY_COLUMNS = range(3)

_TOGETHER = 1 << 17
"""Forms of blocks that are compared together: as many as fit into a cache."""


@dataclass(frozen=True, eq=False)
class Dual:
    """Bounds of the least errors by a grid of prices, without the candidates.

    Parameters
    ----------
    prices
        Falling, ``(prices,)``: at the first everything is dropped, at the last everything is exact.
    values
        The least ``error + price * cost`` for each of them.
    """

    prices: Floats64
    values: Floats64

    def bound(self, budget: float) -> float:
        """Return the least error for a budget, as far as prices can tell (the maximum of the Lagrangian dual)."""
        return float((self.values - self.prices * budget).max())


class Pruner:
    """Finds the best pieces for a price.

    Parameters
    ----------
    candidates
        Forms and errors.
    cost
        Their costs.
    """

    def __init__(self, candidates: Candidates, cost: CostModel) -> None:
        self._candidates = candidates
        self._unit = cost.unit
        rows, columns = candidates.rows, candidates.columns
        # From the smallest blocks to the whole.
        self._order = sorted(
            ((r, c) for r in range(rows.depth + 1) for c in range(columns.depth + 1)), key=sum, reverse=True
        )
        # Clusters have few different sizes, and blocks of equal sizes equal costs: a table of all blocks would be
        # larger than the matrix.
        self._heights = [np.unique(sizes, return_inverse=True) for sizes in rows.sizes]
        self._widths = [np.unique(sizes, return_inverse=True) for sizes in columns.sizes]
        self._costs: dict[Levels, Floats64] = {}
        self._are_sums: dict[Levels, Flags] = {}
        for levels in self._order:
            heights, widths = self._heights[levels[0]][0], self._widths[levels[1]][0]
            forms = candidates.forms(levels)
            self._costs[levels] = np.stack([cost.of_form(form, heights[:, None], widths) for form in forms], axis=2)
            self._are_sums[levels] = np.array([form.is_sum for form in forms])

    def curve(self) -> tuple[Floats64, Floats64]:
        """Return costs, rising, and the least errors that they buy, falling: corners of a convex curve."""
        # Neighbouring lines of the dual meet where the price, and so the partition, changes.
        steps = -np.diff(self.dual.values) / -np.diff(self.dual.prices)
        costs = np.maximum.accumulate(steps)
        errors = np.array([self.dual.bound(float(cost)) for cost in costs]).clip(min=0)
        # Steps that are rounding errors are none.
        keep = np.append(True, np.diff(costs) > 1e-9 * costs[1:])
        return costs[keep], errors[keep]

    @cached_property
    def prices(self) -> Floats64:
        """A grid, falling: at the first everything is dropped, at the last everything is exact."""
        worst = max(float(self._candidates.errors((0, 0)).max()), 1e-30)
        return np.geomspace(worst, worst * 1e-18, 91) / self._unit

    @cached_property
    def dual(self) -> Dual:
        """The least ``error + price * cost`` for the grid of prices."""
        return Dual(self.prices, np.array([self._solve(float(price))[0] for price in self.prices]))

    def prune(self, price: float, *, sums: bool = True) -> list[Piece]:
        """Return the pieces with the least ``error + price * cost``, with or without sums of low rank and dense."""
        _, best, ways = self._solve(price, sums=sums)
        return _joined(self._pieces(best, ways), rounds=self._candidates.rounds)

    def _solve(self, price: float, *, sums: bool = True) -> tuple[float, Choices, Choices]:
        """Return the least ``error + price * cost``, and for each block its best form and whether it is split."""
        rows, columns = self._candidates.rows, self._candidates.columns
        values: dict[Levels, Floats64] = {}
        best: Choices = {}
        ways: Choices = {}
        for levels in self._order:
            r, c = levels
            best[levels], value = self._cheapest(levels, price, sums=sums)
            way = np.full(value.shape, _OWN)
            if r < rows.depth:
                below = np.vstack([values[r + 1, c], np.zeros((1, value.shape[1]))])
                _improve(value, way, below[rows.sons[r]].sum(axis=1), _BY_ROWS)
            if c < columns.depth:
                below = np.hstack([values[r, c + 1], np.zeros((len(value), 1))])
                _improve(value, way, below[:, columns.sons[c]].sum(axis=2), _BY_COLUMNS)
            values[levels], ways[levels] = value, way
        return float(values[0, 0][0, 0]), best, ways

    def _cheapest(self, levels: Levels, price: float, *, sums: bool) -> tuple[Positions, Floats64]:
        """Return the best form of each block, and its ``error + price * cost``, ``(row clusters, column clusters)``."""
        heights, widths = self._heights[levels[0]][1], self._widths[levels[1]][1]
        costs = price * self._costs[levels]
        if not sums:
            costs[:, :, self._are_sums[levels]] = np.inf
        best, values = np.empty((len(heights), len(widths)), np.intp), np.empty((len(heights), len(widths)))
        height = max(1, _TOGETHER // (len(widths) * costs.shape[2]))
        for start in range(0, len(heights), height):
            chosen = slice(start, start + height)
            total = self._candidates.errors(levels, chosen) + costs[heights[chosen, None], widths]
            best[chosen] = total.argmin(axis=2)
            values[chosen] = np.take_along_axis(total, best[chosen][:, :, None], axis=2)[:, :, 0]
        return best, values

    def _pieces(self, best: Choices, ways: Choices) -> Iterable[Piece]:
        rows, columns = self._candidates.rows, self._candidates.columns
        cache: dict[Levels, tuple[tuple[Form, ...], Floats64]] = {}
        stack = [(0, 0, 0, 0)]
        while stack:
            r, c, row, column = stack.pop()
            way = ways[r, c][row, column]
            if way == _BY_ROWS:
                stack += [(r + 1, c, son, column) for son in rows.sons[r][row] if son < len(rows.levels[r + 1])]
            elif way == _BY_COLUMNS:
                stack += [(r, c + 1, row, son) for son in columns.sons[c][column] if son < len(columns.levels[c + 1])]
            else:
                if (r, c) not in cache:
                    cache[r, c] = self._candidates.forms((r, c)), self._candidates.errors((r, c))
                forms, errors = cache[r, c]
                number = best[r, c][row, column]
                own = errors[row, column]
                yield Piece(
                    rows.levels[r][row].slice,
                    columns.levels[c][column].slice,
                    forms[number],
                    float(own[number]),
                    own[: len(DENSE_FORMS)],
                )


def _improve(value: Floats64, way: Positions, other: Floats64, name: int) -> None:
    better = other < value
    value[better] = other[better]
    way[better] = name


def _joined(pieces: Iterable[Piece], *, rounds: bool) -> list[Piece]:
    """Join neighbours of one form without a low-rank part: fewer scales, and fewer leaves.

    Where products round their inputs, integers are not joined to longer rows, whose inputs would be rounded together.
    """
    alone: list[Piece] = []
    done: list[Piece] = []
    for piece in pieces:
        (alone if piece.form.rank else done).append(piece)
    while True:
        before = len(done)
        for along, across in (("columns", "rows"), ("rows", "columns")):
            groups: dict[tuple[int, int, Form], list[Piece]] = {}
            for piece in sorted(done, key=lambda piece: getattr(piece, along).start):
                side = getattr(piece, across)
                members = groups.setdefault((side.start, side.stop, piece.form), [])
                may_join = along == "rows" or not rounds or not isinstance(piece.form.dense, Depth)
                if members and may_join and getattr(members[-1], along).stop == getattr(piece, along).start:
                    last = members[-1]
                    members[-1] = _union(last, piece)
                else:
                    members.append(piece)
            done = [piece for members in groups.values() for piece in members]
        if len(done) == before:
            return sorted(alone + done, key=lambda piece: (piece.rows.start, piece.columns.start))


def _union(first: Piece, second: Piece) -> Piece:
    """Return two neighbours of one form as one piece."""
    return Piece(
        slice(first.rows.start, second.rows.stop),
        slice(first.columns.start, second.columns.stop),
        first.form,
        first.error + second.error,
        first.dense + second.dense,
    )


def spend(pieces: list[Piece], left: float, cost: CostModel, *, rounds: bool) -> list[Piece]:
    """Store part of the rows of one dense piece in a deeper grid, where that gains most for the rest of the budget.

    Parameters
    ----------
    pieces
        The pieces.
    left
        Rest of the budget.
    cost
        Costs of forms.
    rounds
        Whether products round their inputs.
    """
    best = (0.0, 0, 0, Form())
    for number, piece in enumerate(pieces):
        if piece.form not in DENSE_FORMS:
            continue
        m, n = piece.rows.stop - piece.rows.start, np.array(piece.columns.stop - piece.columns.start)
        for error, form in zip(piece.dense, DENSE_FORMS, strict=True):
            extra = float(cost.of_form(form, np.array(m), n) - cost.of_form(piece.form, np.array(m), n)) / m
            overhead = float(cost.of_form(form, np.array(0), n)) + 2 * float(cost.of_form(Form(), np.array(1), n))
            if extra <= 0 or left <= overhead:
                continue
            rows = min(int((left - overhead) / extra), m)
            gain = (piece.error - float(error)) * rows / m
            # The first of equal pieces; their errors are float32, summed over columns.
            if rows and gain > best[0] * (1 + rounding_of(np.float32, int(n))):
                best = (gain, number, rows, form)
    _, number, rows, form = best
    if not rows:
        return pieces
    piece = pieces[number]
    middle = piece.rows.start + rows
    share = rows / (piece.rows.stop - piece.rows.start)
    error = dict(zip(DENSE_FORMS, piece.dense, strict=True))[form]
    upper = replace(piece, rows=slice(piece.rows.start, middle), form=form, error=error * share)
    lower = replace(piece, rows=slice(middle, piece.rows.stop), error=piece.error * (1 - share))
    rest = [upper] if middle == piece.rows.stop else [upper, lower]
    return _joined([*pieces[:number], *rest, *pieces[number + 1 :]], rounds=rounds)
