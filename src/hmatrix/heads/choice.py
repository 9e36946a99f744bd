"""The operating point of a progressive head: the one of least time at a stated agreement."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from hmatrix._support.typing import FloatArray, Floats64
from hmatrix.codes.precision import Precision
from hmatrix.errors import ArgumentError
from hmatrix.heads.clusters import RowClusters, row_tree
from hmatrix.heads.coarse_arguments import LowRanks
from hmatrix.heads.coarse_low_rank import Coarse, fit, gram
from hmatrix.heads.coarse_matrix import CoarseMatrix
from hmatrix.heads.cost import Cost
from hmatrix.heads.fine_rows import FineRows
from hmatrix.heads.first_rows import Opening, calibrated_radius, calibrated_remainder
from hmatrix.heads.levels import Bound
from hmatrix.heads.margins import Limits, Needs, needs_of
from hmatrix.heads.packed_head import PackedHead
from hmatrix.heads.rules import FixedRows, Margin, Rigorous, Rule
from hmatrix.heads.samples import Samples, largest_rows
from hmatrix.packed.packed_blocks import PackedBlocks

PROBES = (1, 4, 16)
"""Numbers of clusters to look into first that are tried."""

FIRST = 8
"""Rows that are refined first. The best of them make a higher threshold than the wanted ones alone would, so
that a smaller margin suffices, and the runners-up among all outputs are fine ones."""

_FOLDS = 2


@dataclass(frozen=True, eq=False)
class Asked:
    """The promises and choices that a user asks of a head.

    Parameters
    ----------
    top
        Outputs that are to be the dense layer's.
    agreement
        Part of the samples in which they are to be.
    rule
        The rule that says which rows are refined.
    coarse
        Coarse parts to choose from, or an H-matrix.
    precisions
        Precisions of the fine rows, to choose from.
    cost
        Model of the seconds of a product.
    """

    top: int
    agreement: float
    rule: Rule
    coarse: LowRanks | PackedBlocks
    precisions: Sequence[Precision]
    cost: Cost

    def first(self, m: int) -> int:
        """Return the number of rows, of m, that are refined first."""
        count = self.rule.count if isinstance(self.rule, FixedRows) else FIRST
        return max(self.top, min(count, m))


@dataclass(frozen=True, eq=False)
class _Point:
    rank: int
    coarse: Precision
    precision: Precision
    needs: Needs


def choose(weight: FloatArray, bias: FloatArray, calibration: FloatArray | None, asked: Asked) -> PackedHead:
    """Return the head of the least cost whose largest outputs are the dense ones as often as is asked.

    Raises
    ------
    ArgumentError
        If there is a choice but nothing to choose by, or no choice agrees as it should.
    """
    samples = None
    if calibration is not None:
        samples = Samples.of(calibration, weight, bias, asked.top)
    if isinstance(asked.coarse, PackedBlocks):
        return _after_matrix(weight, bias, samples, asked.coarse, asked)
    return _after_low_rank(weight, bias, samples, asked.coarse, asked)


def _after_matrix(
    weight: FloatArray, bias: FloatArray, samples: Samples | None, matrix: PackedBlocks, asked: Asked
) -> PackedHead:
    precision, needs = asked.precisions[0], _unseen(Opening(asked.first(len(weight))))
    if samples is None:
        _check_chosen(asked, asked.precisions)
    else:
        exact = CoarseMatrix.of(FineRows.of(weight, Precision.FLOAT32), bias, matrix)
        usable, agreement = _usable(weight, bias, samples, asked)
        found = needs_of([(exact, samples)], [Opening(asked.first(len(weight)))], asked.rule, agreement)
        choices = list(product(found, usable))
        if not choices:
            raise _refused("coarse, precisions and rule", asked, "give a finer H-matrix")

        def seconds(choice: tuple[Needs, Precision]) -> float:
            (needs, precision), (m, n) = choice, weight.shape
            stored = matrix.data.nbytes
            return asked.cost.seconds(n, 0, 0, m, m, needs.refined, precision.bits, stored=stored)

        needs, precision = min(choices, key=seconds)
    return _with_rule(CoarseMatrix.of(FineRows.of(weight, precision), bias, matrix).pack(), asked, needs)


def _after_low_rank(
    weight: FloatArray, bias: FloatArray, samples: Samples | None, low: LowRanks, asked: Asked
) -> PackedHead:
    """Choose the coarse part, too.

    The subspace is fitted to other samples than those that calibrate the rule, in turn; the final one to all. The
    clusters follow from the weight alone.
    """
    square = gram(weight)
    sizes = [rows for rows in low.cluster_rows if rows]
    tree = row_tree(weight, square, min(sizes)) if sizes else None
    partitions = [None if tree is None or not rows else RowClusters.cut(tree, rows) for rows in low.cluster_rows]
    if samples is None:
        _check_chosen(asked, low.ranks, asked.precisions, low.precisions, partitions)
        opening = Opening(asked.first(len(weight)), partitions[0], 0 if partitions[0] is None else 1)
        point = _Point(low.ranks[0], low.precisions[0], asked.precisions[0], _unseen(opening))
    else:
        point = _cheapest(weight, bias, samples, square, partitions, low, asked)
    subspace = fit(square, None if samples is None else samples.inputs, point.rank)
    coarse = Coarse.project(FineRows.of(weight, point.precision), bias, subspace, point.rank, point.coarse)
    return _with_rule(coarse.pack(point.needs.opening.clusters), asked, point.needs)


def _unseen(opening: Opening) -> Needs:
    """Return the needs of a rule that asks nothing of samples."""
    return Needs(opening, Limits(1.0, 0.0, 1.0), 0.0, 0.0)


def _check_chosen(asked: Asked, *choices: Sequence[object]) -> None:
    """Refuse choices that only samples can decide."""
    if max(map(len, choices)) > 1 or isinstance(asked.rule, Margin):
        mend = "give calibration inputs, or one rank, one precision a part, and the rule Rigorous() or FixedRows()"
        raise ArgumentError("calibration", "is missing", mend)


def _refused(subject: str, asked: Asked, mend: str) -> ArgumentError:
    came = f"do not agree with the dense layer in {asked.agreement:.2%} of the samples"
    return ArgumentError(subject, came, f"{mend}, float32, more rows, or less agreement")


def _usable(weight: FloatArray, bias: FloatArray, samples: Samples, asked: Asked) -> tuple[list[Precision], float]:
    """Return the precisions whose rows agree with the dense layer often enough, and the agreement asked of margins.

    Rounded rows may take up to half of the disagreement that is allowed; the rest is left for the margins.
    """
    if isinstance(asked.rule, Rigorous):
        return list(asked.precisions), asked.agreement
    allowed = 1 - asked.agreement
    taken = {
        precision: 0.0 if precision is Precision.FLOAT32 else _disagreement(weight, bias, samples, precision)
        for precision in asked.precisions
    }
    usable = {precision: part for precision, part in taken.items() if part <= allowed / 2}
    return list(usable), asked.agreement + max(usable.values(), default=0.0)


def _cheapest(
    weight: FloatArray,
    bias: FloatArray,
    samples: Samples,
    square: Floats64,
    partitions: Sequence[RowClusters | None],
    low: LowRanks,
    asked: Asked,
) -> _Point:
    usable, agreement = _usable(weight, bias, samples, asked)
    exact = FineRows.of(weight, Precision.FLOAT32)
    inputs = samples.inputs
    folds = np.arange(len(inputs)) % min(_FOLDS, len(inputs))
    parts = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(folds.max() + 1)]
    subspaces = [fit(square, inputs[others if len(others) else own], max(low.ranks)) for others, own in parts]
    openings = [opening for clusters in partitions for opening in _openings(clusters, asked.first(len(weight)))]
    best: tuple[float, _Point] | None = None
    for rank, coarse in product(low.ranks, low.precisions):
        groups = [
            (Coarse.project(exact, bias, subspace, rank, coarse), samples[own])
            for subspace, (_, own) in zip(subspaces, parts, strict=True)
        ]
        for needs in needs_of(groups, openings, asked.rule, agreement):
            for precision in usable:
                point = _Point(rank, coarse, precision, needs)
                seconds = _seconds(asked.cost, weight, point)
                if best is None or seconds < best[0]:
                    best = seconds, point
    if best is None:
        raise _refused("ranks, precisions and rule", asked, "allow larger ranks")
    return best[1]


def _openings(clusters: RowClusters | None, first: int) -> list[Opening]:
    """Return the openings to choose from: first clusters that hold enough rows for certain."""
    if clusters is None:
        return [Opening(first)]
    enough = np.cumsum(np.sort(clusters.sizes)) >= first
    return [Opening(first, clusters, probes) for probes in PROBES if probes <= len(clusters) and enough[probes - 1]]


def _seconds(cost: Cost, weight: FloatArray, point: _Point) -> float:
    m, n = weight.shape
    needs = point.needs
    clusters = needs.opening.clusters
    centres, places = (0, m) if clusters is None else (len(clusters), len(clusters.order))
    return cost.seconds(
        n, point.rank, centres, places, needs.looked, needs.refined, point.precision.bits, point.coarse.bits
    )


def _with_rule(head: PackedHead, asked: Asked, needs: Needs) -> PackedHead:
    rule, first, limits = asked.rule, needs.opening.first, needs.limits
    # FixedRows: all of them are the first ones, and nothing is asked after that.
    most = first if isinstance(rule, FixedRows) else head.sizes.rows
    sizes = replace(head.sizes, top=asked.top, most=most, probes=needs.opening.probes, first=first)
    if isinstance(rule, Rigorous):
        return replace(head, sizes=sizes)
    return replace(
        head,
        sizes=sizes,
        limits=Bound(limits.scale, constant=limits.constant),
        remainder=calibrated_remainder(head.places),
        cluster_limits=Bound(0.0, relative=limits.cluster_scale),
        cluster_reach=calibrated_radius(head.clusters),
    )


def _disagreement(weight: FloatArray, bias: FloatArray, samples: Samples, precision: Precision) -> float:
    """Return the part of the samples in which the rows alone disagree with the dense layer."""
    rows = FineRows.of(weight, precision).weight
    own = largest_rows(samples.inputs @ rows.T + bias, samples.wanted.shape[1])
    return float(np.mean(~samples.agree(own)))
