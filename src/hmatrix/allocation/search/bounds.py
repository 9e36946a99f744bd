"""The cost that a budget bounds, and the bound."""

import math
from collections.abc import Callable
from typing import TypeAlias

from hmatrix.allocation.search.budget import Budget
from hmatrix.allocation.search.costs import Both, Bytes, CostModel
from hmatrix.allocation.search.layout import Layout, limits
from hmatrix.allocation.search.timecost import dense_seconds, time_cost
from hmatrix.codes.precision import Activations
from hmatrix.errors import ArgumentError

_Bounded: TypeAlias = tuple[CostModel, float]
_Limits: TypeAlias = Callable[[CostModel], tuple[float, float]]
"""Function that returns the least and the largest of a cost that a matrix may have."""

_BALANCING = 5
"""Weights of two bounds that are tried between those of one alone."""


def bound(budget: Budget, shape: tuple[int, int], activations: Activations, layout: Layout) -> tuple[CostModel, float]:
    """Return the cost that a budget bounds, and the bound.

    Parameters
    ----------
    budget
        A budget of storage, bytes, time, or bytes and time.
    shape
        Shape of the matrix, ``(m, n)``.
    activations
        Treatment of the products' input.
    layout
        The matrix in one order, which tells what is possible, and what pays.

    Raises
    ------
    ArgumentError
        If no matrix keeps the budget, or the dense one does not reach it.
    """
    bounded = _bounded(budget, shape, activations, layout.limits)
    if len(bounded) == 1:
        return bounded[0]
    (first, most_first), (second, most_second) = bounded
    return _balanced((first, second), (most_first, most_second), layout), 1.0


def check_possible(budget: Budget, shape: tuple[int, int], activations: Activations) -> None:
    """Check, before any error is known, that a matrix in the order of the index keeps the budget.

    Raises
    ------
    ArgumentError
        If none does, or the dense one does not reach it.
    """
    quantized = activations is Activations.INT8
    _bounded(budget, shape, activations, lambda cost: limits(shape, cost, quantized=quantized))


def _bounded(budget: Budget, shape: tuple[int, int], activations: Activations, of: _Limits) -> list[_Bounded]:
    """Return the costs that a budget bounds, with their bounds, if each is between the limits of its cost."""
    m, n = shape
    bounded = []
    if budget.bytes is not None:
        bounded.append(_possible(Bytes(), budget.bytes, 1.0, of, f"is {budget.bytes} bytes", ""))
    if budget.storage is not None:
        came = f"is a storage of {budget.storage:g}"
        bounded.append(_possible(Bytes(), budget.storage, 4.0 * m * n, of, came, " of the dense matrix's bytes"))
    if budget.time is not None:
        came = f"is a time of {budget.time:g}"
        cost = time_cost(activations)
        dense = dense_seconds((m, n), cost, activations)
        bounded.append(_possible(cost, budget.time, dense, of, came, " of the dense matrix's time"))
    return bounded


def _possible(cost: CostModel, asked: float, unit: float, of: _Limits, came: str, share: str) -> _Bounded:
    """Return a cost and its bound, `asked` times `unit`, if a matrix keeps it and the dense one reaches it."""
    smallest, largest = (limit / unit for limit in of(cost))
    if not smallest <= asked <= largest:
        mend = f"give {_shortened(smallest, math.ceil)} to {_shortened(largest, math.floor)}{share}"
        raise ArgumentError("budget", came, mend)
    return cost, asked * unit


def _shortened(limit: float, whole: Callable[[float], int]) -> str:
    """Return a limit in three digits, from 1000 on in all of them, rounded to the possible side."""
    if not 0 < limit < 1000:
        return str(whole(limit))
    step = 10.0 ** (math.floor(math.log10(limit)) - 2)
    return f"{whole(limit / step) * step:.3g}"


def _balanced(costs: tuple[CostModel, CostModel], bounds: tuple[float, float], layout: Layout) -> Both:
    """Return two costs, weighted so that the error is the least that keeps both bounds, as predicted."""
    found: list[tuple[float, Both]] = []

    def is_tighter(share: float) -> bool:
        """Return whether the second bound is the tighter one, with this weight."""
        both = Both(costs, bounds, share)
        pieces = layout.pieces(both, 1.0)
        found.append((sum(piece.error for piece in pieces), both))
        first, second = (layout.cost(pieces, cost) / most for cost, most in zip(costs, bounds, strict=True))
        return second > first

    if is_tighter(0.0) and not is_tighter(1.0):
        low, high = 0.0, 1.0
        for _ in range(_BALANCING):
            share = (low + high) / 2
            low, high = (share, high) if is_tighter(share) else (low, share)
    return min(found, key=lambda pair: pair[0])[1]
