"""The operating point of a progressive head: what takes the least time at a stated agreement."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import numpy.typing as npt

from hmatrix._validation import FloatArray
from hmatrix.calibration import Cost
from hmatrix.errors import ArgumentError
from hmatrix.head import Bound, PackedHead
from hmatrix.needs import Needs, Opening, Samples, calibrated_radius, calibrated_remainder, largest_rows, needs_of
from hmatrix.precision import Precision
from hmatrix.row_clusters import RowClusters, row_tree
from hmatrix.rules import FixedRows, Margin, Rigorous, Rule
from hmatrix.subspace import Coarse, FineRows, fit, gram

RANKS = (0, 16, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512)
"""Ranks of the coarse part that are tried."""

CLUSTER_ROWS = (0, 256, 128, 64)
"""Most rows of a cluster that are tried; 0 is no clusters."""

MANY_ROWS = 8192
"""Clusters are tried for layers of at least so many rows."""

PROBES = (1, 4, 16)
"""Clusters that are looked into first that are tried."""

_FOLDS = 2


@dataclass(frozen=True, eq=False)
class Asked:
    """What a head is asked for.

    Parameters
    ----------
    top
        Outputs that are to be the dense layer's.
    agreement
        In which part of the samples they are to be.
    rule
        Which rows are refined.
    ranks, precisions, coarse_precisions, cluster_rows
        What there is to choose from; 0 rows a cluster are no clusters.
    cost
        What a product costs.
    """

    top: int
    agreement: float
    rule: Rule
    ranks: Sequence[int]
    precisions: Sequence[Precision]
    coarse_precisions: Sequence[Precision]
    cluster_rows: Sequence[int]
    cost: Cost


@dataclass(frozen=True, eq=False)
class _Point:
    rank: int
    coarse: Precision
    precision: Precision
    needs: Needs


def choose(weight: FloatArray, bias: FloatArray, calibration: FloatArray | None, asked: Asked) -> PackedHead:
    """Return the head of the least cost whose largest outputs are the dense ones as often as is asked.

    The subspace is fitted to other samples than those that calibrate the rule, in turn; the final one to all. The
    clusters follow from the weight alone.

    Raises
    ------
    ArgumentError
        If there is a choice but nothing to choose by, or no choice agrees as it should.
    """
    square = gram(weight)
    sizes = [rows for rows in asked.cluster_rows if rows]
    tree = row_tree(weight, square, min(sizes)) if sizes else None
    partitions = [None if tree is None or not rows else RowClusters.cut(tree, rows) for rows in asked.cluster_rows]
    if calibration is None:
        choices = (asked.ranks, asked.precisions, asked.coarse_precisions, partitions)
        if max(map(len, choices)) > 1 or isinstance(asked.rule, Margin):
            mend = "give calibration inputs, or one rank, one precision a part, and the rule Rigorous() or FixedRows()"
            raise ArgumentError("calibration", "is missing", mend)
        opening = Opening(partitions[0], 0 if partitions[0] is None else 1)
        needs = Needs(opening, 1.0, 0.0, 1.0, len(weight), 0.0, 0.0)
        point = _Point(asked.ranks[0], asked.coarse_precisions[0], asked.precisions[0], needs)
    else:
        point = _cheapest(weight, bias, calibration, square, partitions, asked)
    subspace = fit(square, calibration, point.rank)
    coarse = Coarse.project(FineRows.of(weight, point.precision), bias, subspace, point.rank, point.coarse)
    return _with_rule(coarse.pack(point.needs.opening.clusters), asked, point.needs)


def _cheapest(
    weight: FloatArray,
    bias: FloatArray,
    calibration: FloatArray,
    square: npt.NDArray[np.float64],
    partitions: Sequence[RowClusters | None],
    asked: Asked,
) -> _Point:
    dense = calibration @ weight.T + bias
    samples = Samples(calibration, dense, largest_rows(dense, asked.top))
    usable = [
        precision
        for precision in asked.precisions
        if precision is Precision.FLOAT32
        or isinstance(asked.rule, Rigorous)
        or _agrees(FineRows.of(weight, precision), bias, samples, asked.agreement)
    ]
    exact = FineRows.of(weight, Precision.FLOAT32)
    folds = np.arange(len(calibration)) % min(_FOLDS, len(calibration))
    parts = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(folds.max() + 1)]
    subspaces = [fit(square, calibration[others if len(others) else own], max(asked.ranks)) for others, own in parts]
    openings = [opening for clusters in partitions for opening in _openings(clusters, asked.top)]
    best: tuple[float, _Point] | None = None
    for rank, coarse in product(asked.ranks, asked.coarse_precisions):
        groups = [
            (Coarse.project(exact, bias, subspace, rank, coarse), samples[own])
            for subspace, (_, own) in zip(subspaces, parts, strict=True)
        ]
        for needs in needs_of(groups, openings, asked.rule, asked.agreement):
            for precision in usable:
                point = _Point(rank, coarse, precision, needs)
                seconds = _seconds(asked.cost, weight, point)
                if best is None or seconds < best[0]:
                    best = seconds, point
    if best is None:
        raise ArgumentError(
            "ranks, precisions and rule",
            f"do not agree with the dense layer in {asked.agreement:.2%} of the samples",
            "allow larger ranks, float32, more rows, or less agreement",
        )
    return best[1]


def _openings(clusters: RowClusters | None, top: int) -> list[Opening]:
    """Return the openings to choose from: first clusters that hold enough rows for certain."""
    if clusters is None:
        return [Opening()]
    enough = np.cumsum(np.sort(clusters.sizes)) >= top
    return [Opening(clusters, probes) for probes in PROBES if probes <= len(clusters) and enough[probes - 1]]


def _seconds(cost: Cost, weight: FloatArray, point: _Point) -> float:
    m, n = weight.shape
    needs = point.needs
    clusters = needs.opening.clusters
    centres, places = (0, m) if clusters is None else (len(clusters), len(clusters.order))
    return cost.seconds(
        n, point.rank, centres, places, needs.looked, needs.refined, point.precision.bits, point.coarse.bits
    )


def _with_rule(head: PackedHead, asked: Asked, needs: Needs) -> PackedHead:
    sizes = head.sizes.copy()
    m, rule, top = sizes[0], asked.rule, asked.top
    sizes[7] = needs.opening.probes
    if isinstance(rule, Rigorous):
        sizes[3:5] = top, m
        return replace(head, sizes=sizes)
    if isinstance(rule, FixedRows):
        # All of them are the first ones: nothing is asked after that.
        sizes[3:5] = max(top, min(rule.count, m))
    else:
        sizes[3:5] = top, max(top, needs.most)
    return replace(
        head,
        sizes=sizes,
        limits=np.array(Bound(needs.scale, constant=needs.constant).as_floats(), np.float32),
        remainder=calibrated_remainder(head.places),
        cluster_limits=np.array(Bound(0.0, relative=needs.cluster_scale).as_floats(), np.float32),
        cluster_reach=calibrated_radius(head.clusters),
    )


def _agrees(rows: FineRows, bias: FloatArray, samples: Samples, agreement: float) -> bool:
    """Whether the rows alone agree with the dense layer often enough."""
    wanted = samples.wanted
    own = largest_rows(samples.inputs @ rows.weight.T + bias, wanted.shape[1])
    different = (np.sort(own, axis=1) != np.sort(wanted, axis=1)).any(axis=1)
    return bool(np.count_nonzero(different) <= (1 - agreement) * len(different))
