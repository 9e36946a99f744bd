"""The best H-matrix for a budget."""

import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hmatrix._support.checks import check_integer, check_matrix
from hmatrix._support.machine import blas_threads
from hmatrix._support.scores import scores_of
from hmatrix._support.ties import first_least, rounding_of
from hmatrix._support.typing import FloatArray, Floats64, Scores
from hmatrix.allocation.result import Allocation
from hmatrix.allocation.search.arrangements import Arrangement, of_index
from hmatrix.allocation.search.bounds import bound, check_possible
from hmatrix.allocation.search.budget import Budget
from hmatrix.allocation.search.costs import Bytes, CostModel
from hmatrix.allocation.search.layout import Layout
from hmatrix.allocation.search.screening import Screening
from hmatrix.allocation.weighted_matrix import THREADS, WeightedMatrix
from hmatrix.assembly import Sides
from hmatrix.codes.precision import Activations
from hmatrix.errors import ArgumentError
from hmatrix.matrix import HMatrix
from hmatrix.partitions.splitters import Cardinality, Splitter

Evaluate: TypeAlias = Callable[[HMatrix, FloatArray], float | Scores]
"""A score, higher for better, of an H-matrix and a correction of the bias, or one for each sample."""

_EVALUATIONS = 12


class Allocator:
    """Chooses the H-matrix with the least error for one budget after another.

    For each block of the block cluster tree it decides whether to split it, to drop it, to approximate it with some
    rank, to keep it dense, or to store the sum of both, each in some precision. The second moment of the inputs and the
    errors of all candidates, which budgets share, are computed once.

    Parameters
    ----------
    weight
        ``(m, n)``, finite.
    calibration
        Inputs of the layer, ``(samples, n)``, or ``(samples, vectors, n)`` where those of a sample are alike, such as
        the tokens of a sentence; without them errors count as in the Frobenius norm.
    coordinates
        Coordinates of rows and columns: one for both, or (rows, columns). ``None`` tries the order of the index and
        orders from the weight and from the inputs.
    splitter
        Splitter of the clusters, where coordinates are given; its leaf size is that of all trees.
    activations
        Treatment of a product's input where it meets integer codes: ``"exact"``, or ``"int8"`` for speed. The errors
        that int8 adds on calibration data count: inputs that are much larger than others get blocks of their own.
    row_weights
        Weight of the square of an error in each row ``(m,)``, positive: the frequency of an embedding's rows. ``None``
        counts all alike.
    derivatives
        Derivatives of the output of a network that the layer is part of; they take the place of the inputs' second
        moment. Rows ``(parts, rows, n)``, at least two parts: the mean square of their products with an error is, up to
        a factor, the change of the network's output. Each part is left out once, to choose the damping.
    row_derivatives
        The same by rows of the weight, ``(parts, rows, m)``: errors of rows that the network adds up may then cancel.
        ``None`` treats rows as independent.

    Raises
    ------
    ArgumentError
        If an argument cannot be used.

    Examples
    --------
    >>> weight = np.random.default_rng(0).standard_normal((64, 48))
    >>> allocator = hm.Allocator(weight, coordinates=hm.Index())
    >>> found = [allocator.allocate(hm.Budget(storage=share)) for share in (0.15, 0.25)]
    >>> found[0].measured_error > found[1].measured_error
    True
    """

    def __init__(
        self,
        weight: npt.ArrayLike,
        *,
        calibration: npt.ArrayLike | None = None,
        coordinates: Sides | None = None,
        splitter: Splitter = Cardinality(),
        activations: Activations | str = Activations.EXACT,
        row_weights: npt.ArrayLike | None = None,
        derivatives: npt.ArrayLike | None = None,
        row_derivatives: npt.ArrayLike | None = None,
    ) -> None:
        self._weighted = WeightedMatrix.of(weight, calibration, activations, row_weights, derivatives, row_derivatives)
        self._leaf_size = check_integer("leaf_size", splitter.leaf_size, at_least=1)
        index = of_index(self._leaf_size)
        self._first = (index, index)
        self._is_given = coordinates is not None
        self._layouts: dict[tuple[str, str], Layout] = {}
        self._screenings: dict[CostModel, Screening] = {}
        if coordinates is not None:
            sides = coordinates if isinstance(coordinates, tuple) else (coordinates, coordinates)
            if len(sides) != 2:
                came = f"has {len(sides)} parts"
                raise ArgumentError("coordinates", came, "give one for both sides, or (rows, columns)")
            self._first = (Arrangement("given", sides[0], splitter), Arrangement("given", sides[1], splitter))

    @property
    def limits(self) -> tuple[int, int]:
        """Bytes of the smallest and of the largest H-matrix that a budget can ask for."""
        smallest, largest = self._layout(*self._first).limits(Bytes())
        return int(np.ceil(smallest)), int(largest)

    def curve(self) -> tuple[Floats64, Floats64]:
        """Return the predicted frontier, convex: bytes, rising, and squares of errors, falling; ``(points,)``."""
        return self._layout(*self._first).curve(Bytes())

    def allocate(self, budget: Budget, evaluate: Evaluate | None = None, *, unbiased: bool = False) -> Allocation:
        """Return the H-matrix with the least error that the budget allows.

        Parameters
        ----------
        budget
            Largest cost; with `max_drop`, the smallest H-matrix whose score is found to be high enough.
        evaluate
            For `max_drop`: gives a score, higher for better, to an H-matrix ``(m, n)`` and a correction of the
            layer's bias ``(m,)``. It is called at most 12 times, first with the dense matrix, and should use data
            that are not calibration data.
        unbiased
            Whether each row is scaled so that its outputs are right on average, given those of the weight. The least
            error shrinks each row by another share, which changes the order of a classifier's outputs. Choose it for a
            head, and wherever sizes of outputs matter; the error grows a little.

        Raises
        ------
        ArgumentError
            If the budget is below the smallest H-matrix, or above the dense matrix; if `evaluate` is there without
            `max_drop` or the other way round, or returns no finite number.
        """
        _check_together(budget, evaluate)
        if evaluate is None:
            return self._within(budget, unbiased)
        return self._search(float(budget.max_drop or 0), evaluate, unbiased)

    def _within(self, budget: Budget, unbiased: bool) -> Allocation:
        start = time.perf_counter()
        first = self._layout(*self._first)
        cost, most = bound(budget, self._weighted.weight.shape, self._weighted.activations, first)
        tried = [(layout, layout.pieces(cost, most)) for layout in self._promising(cost, most)]
        # Predictions may err. That of sums says what is left to round where low rank took the larger part, but not how
        # rounding spreads over columns that matter unequally: what does without is tried, too.
        tried += [
            (layout, layout.pieces(cost, most, sums=False))
            for layout, pieces in tried
            if any(piece.form.is_sum for piece in pieces)
        ]
        allocations = [self._weighted.allocation(*choice, start, unbiased=unbiased) for choice in tried]
        # Where a single leaf was predicted to do better than what came out, it is tried.
        whole = first.whole(cost, most)
        least = min(allocation.measured_error for allocation in allocations)
        if whole is not None and self._weighted.relative(whole.error) < least * (1 - self._weighted.rounding):
            allocations.append(self._weighted.allocation(first, [whole], start, unbiased=unbiased))
        errors = [allocation.measured_error for allocation in allocations]
        return allocations[first_least(errors, self._weighted.rounding * min(errors))]

    def frontier(self, budgets: Sequence[Budget], *, unbiased: bool = False) -> list[Allocation]:
        """Return the best H-matrix for each of several budgets."""
        return [self.allocate(budget, unbiased=unbiased) for budget in budgets]

    def _search(self, max_drop: float, evaluate: Evaluate, unbiased: bool) -> Allocation:
        """Return the smallest H-matrix found whose score falls by no more than `max_drop`."""
        smallest, largest = self.limits
        best = self._within(Budget(bytes=largest), unbiased)
        # Less what rounding may take of a score that falls by just as much as is allowed.
        reference = _score(evaluate, best)
        least = reference - max_drop - rounding_of(np.float64, 1) * abs(reference)
        low, high = np.log(smallest), np.log(largest)
        for _ in range(_EVALUATIONS - 1):
            # Halves first: most of the range lies below what any network bears.
            middle = high - np.log(2) if high - low > np.log(4) else (low + high) / 2
            allocation = self._within(Budget(bytes=max(smallest, int(np.exp(middle)))), unbiased)
            if _score(evaluate, allocation) >= least:
                best, high = allocation, middle
            else:
                low = middle
        return best

    def _promising(self, cost: CostModel, most: float) -> list[Layout]:
        """Return the layout of the index or of given coordinates, and that with the least predicted error."""
        first = self._layout(*self._first)
        if self._is_given:
            return [first]
        best = self._layout(*self._screening(cost).best(most))
        bounds = first.bound(cost, most), best.bound(cost, most)
        return [first, best] if bounds[1] < bounds[0] * (1 - self._weighted.rounding) else [first]

    def _screening(self, cost: CostModel) -> Screening:
        if cost not in self._screenings:
            known = self._weighted
            with blas_threads(THREADS):
                self._screenings[cost] = Screening(
                    known.weight, known.moments, self._leaf_size, quantized=known.quantized, cost=cost
                )
        return self._screenings[cost]

    def _layout(self, rows: Arrangement, columns: Arrangement) -> Layout:
        key = (rows.name, columns.name)
        if key not in self._layouts:
            known = self._weighted
            with blas_threads(THREADS):
                self._layouts[key] = Layout(known.weight, known.moments, rows, columns, quantized=known.quantized)
        return self._layouts[key]


def _check_together(budget: Budget, evaluate: Evaluate | None) -> None:
    if (budget.max_drop is None) != (evaluate is None):
        came = "is given without max_drop" if evaluate else "is not given"
        raise ArgumentError("evaluate", came, "give a function and Budget(max_drop=...), or neither")


def _score(evaluate: Evaluate, allocation: Allocation) -> float:
    return float(scores_of(evaluate(allocation.matrix, allocation.bias_correction)).mean())


def allocate(
    weight: npt.ArrayLike,
    budget: Budget,
    *,
    evaluate: Evaluate | None = None,
    calibration: npt.ArrayLike | None = None,
    coordinates: Sides | None = None,
    splitter: Splitter = Cardinality(),
    activations: Activations | str = Activations.EXACT,
    row_weights: npt.ArrayLike | None = None,
    derivatives: npt.ArrayLike | None = None,
    row_derivatives: npt.ArrayLike | None = None,
    unbiased: bool = False,
) -> Allocation:
    """Return the best H-matrix for a budget; `Allocator` describes the arguments, and serves several budgets.

    Raises
    ------
    ArgumentError
        If an argument cannot be used, or the budget is impossible.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> weight, inputs = rng.standard_normal((64, 48)), rng.standard_normal((100, 48))
    >>> found = hm.allocate(weight, hm.Budget(storage=0.2), calibration=inputs, coordinates=hm.Index())
    >>> found.matrix.storage().ratio <= 0.2
    True
    >>> outputs = found.matrix.apply(inputs) + found.bias_correction
    >>> outputs.shape
    (100, 64)
    """
    # Not only once all errors of candidates are known, which takes long.
    _check_together(budget, evaluate)
    # An order of its own costs something more.
    if coordinates is None:
        m, n = check_matrix("weight", weight).shape
        check_possible(budget, (m, n), Activations.of(activations))
    allocator = Allocator(
        weight,
        calibration=calibration,
        coordinates=coordinates,
        splitter=splitter,
        activations=activations,
        row_weights=row_weights,
        derivatives=derivatives,
        row_derivatives=row_derivatives,
    )
    return allocator.allocate(budget, evaluate, unbiased=unbiased)
