"""The operating point of a progressive head: its rank, precision and rule, for the least time at a stated agreement."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hmatrix._validation import FloatArray, check_integer
from hmatrix.calibration import Cost, conservative_quantile
from hmatrix.errors import ArgumentError
from hmatrix.head import Bound, PackedHead
from hmatrix.head_kernels import ReferenceHead
from hmatrix.precision import Precision
from hmatrix.subspace import FineRows, fit, gram, pack_head

RANKS = (0, 16, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512)
"""Ranks of the coarse part that are tried."""

_LEAST_REMAINDER = 0.01
"""Of a row's norm: what quantisation leaves where the subspace leaves nothing."""

_FOLDS = 2
_SAMPLES = 64
"""Samples that are looked at together."""


@dataclass(frozen=True)
class Margin:
    """Refine the rows whose coarse output is within a margin of the best; where these are too many, the best of them.

    The margin is the norm of x outside the coarse subspace times the norm of the row's remainder times a constant.
    The constant and the number are calibrated, each for half of the disagreement that is allowed.
    """


@dataclass(frozen=True)
class FixedRows:
    """Refine the same number of rows for every sample.

    Parameters
    ----------
    count
        Rows, at least 1.
    """

    count: int

    def __post_init__(self) -> None:
        check_integer("count", self.count, at_least=1)


@dataclass(frozen=True)
class Rigorous:
    """Refine all rows that can be among the largest, by Cauchy-Schwarz and bounds of all errors of the coarse part."""


Rule: TypeAlias = Margin | FixedRows | Rigorous


@dataclass(frozen=True, eq=False)
class _Needs:
    """What samples need at one rank: the constant, the rows with it, and the rows that are then within the margin."""

    scale: float
    most: int
    refined: float


def choose(
    weight: FloatArray,
    bias: FloatArray,
    calibration: FloatArray | None,
    agreement: float,
    top: int,
    rule: Rule,
    ranks: Sequence[int],
    precisions: Sequence[Precision],
    cost: Cost,
) -> PackedHead:
    """Return the head of the least cost whose `top` largest outputs are the dense ones in `agreement` of the samples.

    The subspace is fitted to other samples than those that calibrate the rule, in turn; the final one to all.

    Raises
    ------
    ArgumentError
        If there is a choice but nothing to choose by, or no choice agrees as it should.
    """
    square = gram(weight)
    if calibration is None:
        if len(ranks) > 1 or len(precisions) > 1 or isinstance(rule, Margin):
            mend = "give calibration inputs, or one rank, one precision, and the rule Rigorous() or FixedRows()"
            raise ArgumentError("calibration", "is missing", mend)
        rank, precision, needs = ranks[0], precisions[0], _Needs(1.0, len(weight), 0.0)
    else:
        rank, precision, needs = _cheapest(
            weight, bias, calibration, square, agreement, top, rule, ranks, precisions, cost
        )
    subspace = fit(square, calibration, rank)
    return _with_rule(pack_head(FineRows.of(weight, precision), bias, subspace, rank), rule, top, needs)


def _cheapest(
    weight: FloatArray,
    bias: FloatArray,
    calibration: FloatArray,
    square: npt.NDArray[np.float64],
    agreement: float,
    top: int,
    rule: Rule,
    ranks: Sequence[int],
    precisions: Sequence[Precision],
    cost: Cost,
) -> tuple[int, Precision, _Needs]:
    dense = calibration @ weight.T + bias
    wanted = _largest(dense, top)
    usable = [
        precision
        for precision in precisions
        if precision is Precision.FLOAT32
        or isinstance(rule, Rigorous)
        or _agrees(FineRows.of(weight, precision), bias, calibration, wanted, agreement)
    ]
    exact = FineRows.of(weight, Precision.FLOAT32)
    folds = np.arange(len(calibration)) % min(_FOLDS, len(calibration))
    parts = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(folds.max() + 1)]
    subspaces = [fit(square, calibration[others if len(others) else own], max(ranks)) for others, own in parts]
    best: tuple[float, int, Precision, _Needs] | None = None
    for rank in ranks:
        heads = [pack_head(exact, bias, subspace, rank) for subspace in subspaces]
        groups = [(head, own) for head, (_, own) in zip(heads, parts, strict=True)]
        needs = _needs(groups, calibration, dense, wanted, agreement, top, rule)
        if needs is None:
            continue
        for precision in usable:
            seconds = cost.seconds((weight.shape[0], weight.shape[1]), rank, needs.refined, precision.bits)
            if best is None or seconds < best[0]:
                best = seconds, rank, precision, needs
    if best is None:
        raise ArgumentError(
            "ranks, precisions and rule",
            f"do not agree with the dense layer in {agreement:.2%} of the samples",
            "allow larger ranks, float32, more rows, or less agreement",
        )
    return best[1:]


def _needs(
    groups: Sequence[tuple[PackedHead, npt.NDArray[np.intp]]],
    calibration: FloatArray,
    dense: FloatArray,
    wanted: npt.NDArray[np.intp],
    agreement: float,
    top: int,
    rule: Rule,
) -> "_Needs | None":
    """Return what the rule needs, or None where it cannot agree."""
    m = dense.shape[1]

    def looks() -> Iterator["_Look"]:
        for head, own in groups:
            for start in range(0, len(own), _SAMPLES):
                some = own[start : start + _SAMPLES]
                yield _Look(head, calibration[some], dense[some], wanted[some], top)

    if isinstance(rule, Rigorous):
        return _Needs(1.0, m, float(np.concatenate([look.within_bound() for look in looks()]).mean()))
    if isinstance(rule, FixedRows):
        places = np.concatenate([look.places() for look in looks()])
        count = min(rule.count, m)
        enough = conservative_quantile(np.log2(places), agreement) <= np.log2(count)
        return _Needs(0.0, count, count) if enough or count == m else None
    # Half of what may disagree for the constant, half for the number of rows.
    level = 1 - (1 - agreement) / 2
    scale = conservative_quantile(np.concatenate([look.scales() for look in looks()]), level)
    if not np.isfinite(scale):
        return None
    places = np.concatenate([look.places() for look in looks()])
    most = min(m, int(np.ceil(2 ** conservative_quantile(np.log2(places), level))))
    counts = np.concatenate([look.counts(scale) for look in looks()])
    return _Needs(scale, most, float(np.minimum(counts, most).mean()))


class _Look:
    """Some samples as a head sees them: coarse outputs, and the threshold after its first rows are refined."""

    def __init__(
        self, head: PackedHead, x: FloatArray, dense: FloatArray, wanted: npt.NDArray[np.intp], top: int
    ) -> None:
        reference = ReferenceHead(head)
        self._coarse, self._upper, slack = reference.coarse(x)
        self._spread = reference.inside(x)[2][:, None] * calibrated_remainder(head)[: head.shape[0]]
        first = _largest(self._coarse, top)
        self._first = np.zeros(dense.shape, bool)
        np.put_along_axis(self._first, first, True, axis=1)
        self._threshold = np.take_along_axis(dense, first, axis=1).min(axis=1)
        self._slack = slack
        self._wanted = wanted

    def scales(self) -> FloatArray:
        """Return the least constant with which each sample's largest outputs are all refined."""
        coarse, spread, done = (
            np.take_along_axis(array, self._wanted, axis=1) for array in (self._coarse, self._spread, self._first)
        )
        missing = np.where(done, 0, np.maximum(self._threshold[:, None] - coarse, 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            scales: FloatArray = np.where(missing > 0, missing / spread, 0).max(axis=1)
        return scales

    def places(self) -> FloatArray:
        """Return how many rows are refined, in the order of coarse outputs, until all of the largest outputs are."""
        coarse = np.where(self._first, np.inf, self._coarse)
        last = np.take_along_axis(coarse, self._wanted, axis=1).min(axis=1)
        places: FloatArray = np.count_nonzero(coarse >= last[:, None], axis=1).astype(np.float64)
        return places

    def counts(self, scale: float) -> npt.NDArray[np.intp]:
        """Return how many rows are within the margin."""
        upper = self._coarse + np.float32(scale) * self._spread
        counts: npt.NDArray[np.intp] = np.count_nonzero((upper >= self._threshold[:, None]) | self._first, axis=1)
        return counts

    def within_bound(self) -> npt.NDArray[np.intp]:
        """Return how many rows are within the rigorous bound."""
        threshold = self._threshold - self._slack
        counts: npt.NDArray[np.intp] = np.count_nonzero((self._upper >= threshold[:, None]) | self._first, axis=1)
        return counts


def calibrated_remainder(head: PackedHead) -> FloatArray:
    """Return the norms of the remainders, no less than quantisation leaves."""
    norms = np.hypot(head.remainder, head.reach)
    return np.maximum(head.remainder, np.float32(_LEAST_REMAINDER) * norms)


def _with_rule(head: PackedHead, rule: Rule, top: int, needs: _Needs) -> PackedHead:
    sizes = head.sizes.copy()
    m = sizes[0]
    if isinstance(rule, Rigorous):
        sizes[3:5] = top, m
        return replace(head, sizes=sizes)
    if isinstance(rule, FixedRows):
        # All of them are the first ones: nothing is asked after that.
        sizes[3:5] = max(top, min(rule.count, m))
    else:
        sizes[3:5] = top, max(top, needs.most)
    limits = np.array(Bound(scale=needs.scale).as_floats(), np.float32)
    return replace(head, sizes=sizes, limits=limits, remainder=calibrated_remainder(head))


def _agrees(rows: FineRows, bias: FloatArray, x: FloatArray, wanted: npt.NDArray[np.intp], agreement: float) -> bool:
    """Whether the rows alone agree with the dense layer often enough."""
    own = _largest(x @ rows.weight.T + bias, wanted.shape[1])
    different = (np.sort(own, axis=1) != np.sort(wanted, axis=1)).any(axis=1)
    return bool(np.count_nonzero(different) <= (1 - agreement) * len(x))


def _largest(outputs: FloatArray, top: int) -> npt.NDArray[np.intp]:
    """Return the rows of the `top` largest outputs ``(samples, top)``; of equal ones the first, where it is one."""
    if top == 1:
        best: npt.NDArray[np.intp] = outputs.argmax(axis=1)[:, None]
        return best
    rows: npt.NDArray[np.intp] = np.argpartition(-outputs, min(top, outputs.shape[1]) - 1, axis=1)[:, :top]
    return rows
