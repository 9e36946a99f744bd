"""Margins of a progressive head, calibrated by samples, and the number of rows that it then refines.

A head agrees with the dense layer on a sample if it refines the rows of all its largest outputs. Each sample needs a
least margin for that. The calibrated constants are quantiles of what the samples need.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hmatrix._support.typing import FloatArray
from hmatrix.heads.cost import conservative_quantile
from hmatrix.heads.first_rows import CoarsePart, CoarseProducts, FirstRows, Opening
from hmatrix.heads.rules import FixedRows, Rigorous, Rule
from hmatrix.heads.samples import Samples
from hmatrix.heads.words import STRIP

_CHUNK = 64
"""Number of samples that are multiplied at once."""

_COUNTED = 256
"""Number of samples whose refined rows are counted: enough for an estimate of time."""


@dataclass(frozen=True)
class Limits:
    """Constants of the margins.

    The margin of a row is ``(scale * |x outside the coarse subspace| + constant) * remainder of the row``. The margin
    of a cluster is ``cluster_scale * |x| * radius of the cluster``.

    Parameters
    ----------
    scale, constant
        Constants of rows, one of which is 0.
    cluster_scale
        Constant of clusters.
    """

    scale: float
    constant: float
    cluster_scale: float


@dataclass(frozen=True, eq=False)
class Needs:
    """Margins that a rule needs in order to agree with the dense layer, and the work that they take.

    Parameters
    ----------
    opening
        Rows and clusters that come first.
    limits
        Constants of the margins.
    refined
        Mean number of rows that are refined for a sample.
    looked
        Mean number of places whose coarse outputs are computed for a sample.
    """

    opening: Opening
    limits: Limits
    refined: float
    looked: float


def needs_of(
    groups: Sequence[tuple[CoarsePart, Samples]], openings: Sequence[Opening], rule: Rule, agreement: float
) -> list[Needs]:
    """Return the needs of a rule, for each opening with which it can agree with the dense layer.

    Parameters
    ----------
    groups
        Coarse parts of the same rank, or one H-matrix, each with samples that it was not fitted to.
    openings
        Openings to choose from.
    rule
        The rule.
    agreement
        Fraction of the samples whose wanted rows are all refined.
    """
    partitions = dict.fromkeys(opening.clusters for opening in openings if opening.clusters is not None)
    rigorous = isinstance(rule, Rigorous)
    products = [(CoarseProducts(coarse, partitions, rigorous=rigorous), samples) for coarse, samples in groups]
    choices = _choices(products, openings, rule, agreement)
    counted = [
        [[_counts(first, limits, rule) for limits in some] for first, some in zip(opened, choices, strict=True)]
        for opened in _opened(products, openings, _COUNTED)
    ]
    needs = []
    for opening, some, of_samples in zip(openings, choices, zip(*counted, strict=True), strict=True):
        for limits, counts in zip(some, zip(*of_samples, strict=True), strict=True):
            refined, looked = np.concatenate(counts, axis=1).mean(axis=1).tolist()
            needs.append(Needs(opening, limits, refined, looked))
    return needs


def _choices(
    products: Sequence[tuple[CoarseProducts, Samples]], openings: Sequence[Opening], rule: Rule, agreement: float
) -> list[list[Limits]]:
    """Return the constants to choose from, for each opening; none where the rule cannot agree."""
    if isinstance(rule, Rigorous):
        return [[Limits(1.0, 0.0, 1.0)] for _ in openings]
    needed = _needed_rows if isinstance(rule, FixedRows) else _needed_constants
    chunks = [[needed(first) for first in opened] for opened in _opened(products, openings)]
    m = products[0][1].dense.shape[1]
    choices = []
    for opening, of_samples in zip(openings, zip(*chunks, strict=True), strict=True):
        of_all = np.concatenate(of_samples, axis=-1)
        if isinstance(rule, FixedRows):
            choices.append(_enough_rows(of_all, agreement, rule.count, m))
        else:
            choices.append(_constants(of_all, agreement, clustered=opening.clusters is not None))
    return choices


def _opened(
    products: Sequence[tuple[CoarseProducts, Samples]], openings: Sequence[Opening], most: int | None = None
) -> Iterator[list[FirstRows]]:
    """Yield the first rows of each opening, for a chunk of samples at a time, of about `most` samples in all."""
    for coarse, samples in products:
        count = len(samples.inputs)
        if most is not None:
            count = min(count, -(-most // len(products)))
        for start in range(0, count, _CHUNK):
            view = coarse.view(samples[np.arange(start, min(start + _CHUNK, count))])
            yield [FirstRows.of(view, opening) for opening in openings]


def _needed_constants(first: FirstRows) -> FloatArray:
    """Return the constants that each sample needs: scale, constant and cluster scale, ``(3, samples)``.

    Scale and constant are alternatives.
    """
    view, clusters, wanted = first.view, first.clusters, first.wanted
    constants = view.rows.least_constants(first.threshold, wanted, first.done)
    cluster_scales: FloatArray = np.zeros(len(constants))
    if clusters is not None:
        labels = clusters.labels[wanted]
        opened = np.take_along_axis(first.opened, labels, axis=1)
        cluster_scales = view.clusters[clusters].least_constants(first.threshold, labels, opened)
    return np.stack([constants / view.outside, constants, cluster_scales])


def _needed_rows(first: FirstRows) -> FloatArray:
    """Return how many rows each sample needs, in the order of the coarse outputs of all rows ``(samples,)``."""
    outputs = first.view.rows.values
    wanted = np.where(first.done, np.inf, np.take_along_axis(outputs, first.wanted, axis=1)).min(axis=1)[:, None]
    # The first rows are refined whatever their coarse outputs are.
    behind = np.take_along_axis(outputs, first.rows, axis=1) < wanted
    needed: FloatArray = np.count_nonzero(outputs >= wanted, axis=1) + np.count_nonzero(behind, axis=1)
    return np.maximum(needed, first.rows.shape[1]).astype(np.float64)


def _enough_rows(needed: FloatArray, agreement: float, count: int, m: int) -> list[Limits]:
    """Return no margins if `count` of m rows are as many as the samples need ``(samples,)``, else no choice at all."""
    enough = conservative_quantile(np.log2(needed), agreement) <= np.log2(min(count, m))
    return [Limits(0.0, 0.0, 0.0)] if enough or count >= m else []


def _constants(needed: FloatArray, agreement: float, *, clustered: bool) -> list[Limits]:
    """Return choices of finite constants that are as large as the samples need ``(3, samples)``."""
    # Rows and clusters share what may disagree. Each score is the same whatever the other constant is, so that each
    # quantile holds by itself, and both together by the union bound.
    level = 1 - (1 - agreement) / (2 if clustered else 1)
    scale, constant, cluster_scale = (conservative_quantile(values, level) for values in needed)
    found = [Limits(scale, 0.0, cluster_scale), Limits(0.0, constant, cluster_scale)]
    return [limit for limit in found if np.isfinite([limit.scale, limit.constant, limit.cluster_scale]).all()]


def _counts(first: FirstRows, limits: Limits, rule: Rule) -> FloatArray:
    """Return how many rows are refined and how many places are looked at for each sample ``(2, samples)``."""
    view, clusters = first.view, first.clusters
    samples, m = view.rows.values.shape
    if isinstance(rule, FixedRows):
        return np.broadcast_to([[float(first.rows.shape[1])], [m]], (2, samples))
    threshold = (first.threshold - view.tolerance)[:, None]
    rigorous = isinstance(rule, Rigorous)
    constants = (np.float32(limits.scale) * view.outside + np.float32(limits.constant))[:, None]
    refined = view.rows.upper >= threshold if rigorous else view.rows.within(threshold, constants)
    looked = np.full(samples, m)
    if clusters is not None:
        of_clusters = view.clusters[clusters]
        constant = np.float32(limits.cluster_scale)
        within = of_clusters.upper >= threshold if rigorous else of_clusters.within(threshold, constant)
        opened = first.opened | within
        looked = opened @ (np.diff(clusters.starts) * STRIP)
        refined &= opened[:, clusters.labels]
    np.put_along_axis(refined, first.rows, True, axis=1)
    return np.stack([np.count_nonzero(refined, axis=1), looked]).astype(np.float64)
