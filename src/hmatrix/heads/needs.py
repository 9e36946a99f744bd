"""The needs of samples: margins and rows with which a head's largest outputs are those of the dense layer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from hmatrix._support.typing import FloatArray
from hmatrix.heads.clusters import RowClusters
from hmatrix.heads.coarse_low_rank import Coarse
from hmatrix.heads.coarse_matrix import CoarseMatrix
from hmatrix.heads.cost import conservative_quantile
from hmatrix.heads.levels import Level
from hmatrix.heads.reference import ReferenceHead
from hmatrix.heads.rules import FixedRows, Rigorous, Rule
from hmatrix.heads.samples import Samples, largest_rows
from hmatrix.heads.words import STRIP
from hmatrix.packed.kernels import prepare

_LEAST_REMAINDER = 0.01
"""Least remainder, as a part of a row's norm: the error of quantisation where the subspace leaves none."""

_SAMPLES = 64
"""Samples that are looked at together."""

_COUNTED = 256
"""Samples whose refined rows are counted, for the time alone."""


CoarsePart: TypeAlias = Coarse | CoarseMatrix
"""A coarse part; one with clusters is of low rank."""


@dataclass(frozen=True, eq=False)
class Opening:
    """Clusters that are looked into first, and rows that are refined first.

    Parameters
    ----------
    first
        Rows that are refined first.
    clusters
        Clusters of the rows; ``None`` looks at every row.
    probes
        Number of clusters that are looked into first.
    """

    first: int
    clusters: RowClusters | None = None
    probes: int = 0


@dataclass(frozen=True)
class Limits:
    """Constants of the margins.

    Parameters
    ----------
    scale, constant
        Constants of rows, with the norm of x outside the coarse subspace and without; one of them is 0.
    cluster_scale
        Constant of clusters.
    """

    scale: float
    constant: float
    cluster_scale: float


@dataclass(frozen=True, eq=False)
class Needs:
    """Needs of a rule at one rank, and the work of a product that follows.

    Parameters
    ----------
    opening
        Clusters that are looked into first.
    limits
        Constants of its margins.
    refined, looked
        Rows that are refined, and places that are looked at, on average.
    """

    opening: Opening
    limits: Limits
    refined: float
    looked: float


def needs_of(
    groups: Sequence[tuple[CoarsePart, Samples]], openings: Sequence[Opening], rule: Rule, agreement: float
) -> list[Needs]:
    """Return the needs of a rule for each of the openings with which it can agree.

    Parameters
    ----------
    groups
        Coarse parts of one rank, or an H-matrix, and samples that they were not fitted to.
    openings
        Openings to choose from.
    rule
        Rule that says which rows are refined.
    agreement
        Part of the samples in which all wanted rows are to be refined.
    """
    m = groups[0][1].dense.shape[1]
    scores: list[list[FloatArray]] = [[] for _ in openings]
    if not isinstance(rule, Rigorous):
        for look in _looks(groups):
            for view, found in zip(look.views(openings), scores, strict=True):
                found.append(view.places() if isinstance(rule, FixedRows) else view.scores())
    limits = [
        _limits(np.concatenate(found, axis=-1) if found else None, rule, agreement, m, opening)
        for found, opening in zip(scores, openings, strict=True)
    ]
    counts: list[list[list[FloatArray]]] = [[[] for _ in some] for some in limits]
    for look in _looks(groups, _COUNTED):
        for view, some, counted in zip(look.views(openings), limits, counts, strict=True):
            for limit, of_limit in zip(some, counted, strict=True):
                of_limit.append(view.counts(limit, rule))
    needs = []
    for opening, some, counted in zip(openings, limits, counts, strict=True):
        for limit, of_limit in zip(some, counted, strict=True):
            refined, looked = np.concatenate(of_limit, axis=1).mean(axis=1).tolist()
            needs.append(Needs(opening, limit, refined, looked))
    return needs


def calibrated_remainder(level: Level) -> FloatArray:
    """Return the norms of the rows' remainders, no less than quantisation leaves."""
    norms = np.hypot(level.remainder, level.reach)
    return np.maximum(level.remainder, np.float32(_LEAST_REMAINDER) * norms)


def calibrated_radius(level: Level) -> FloatArray:
    """Return the largest distance of each cluster's rows from its centre."""
    return np.hypot(level.remainder, level.reach)


def _limits(scores: FloatArray | None, rule: Rule, agreement: float, m: int, opening: Opening) -> list[Limits]:
    """Return the constants, for each way to choose them; none where the rule cannot agree."""
    if scores is None:
        return [Limits(1.0, 0.0, 1.0)]
    if isinstance(rule, FixedRows):
        enough = conservative_quantile(np.log2(scores), agreement) <= np.log2(min(rule.count, m))
        return [Limits(0.0, 0.0, 0.0)] if enough or rule.count >= m else []
    # Rows and clusters share what may disagree. Each score is the same whatever the other constant is, so that each
    # quantile holds by itself, and both together by the union bound.
    level = 1 - (1 - agreement) / (1 if opening.clusters is None else 2)
    scale, constant, cluster_scale = (conservative_quantile(values, level) for values in scores)
    found = [Limits(scale, 0.0, cluster_scale), Limits(0.0, constant, cluster_scale)]
    return [limit for limit in found if np.isfinite([limit.scale, limit.constant, limit.cluster_scale]).all()]


def _looks(groups: Sequence[tuple[CoarsePart, Samples]], most: int | None = None) -> Iterator["_Look"]:
    for coarse, samples in groups:
        count = len(samples.inputs) if most is None else min(len(samples.inputs), -(-most // len(groups)))
        levels: dict[RowClusters, Level] = {}
        matrix = coarse.without_clusters.matrix
        reference = ReferenceHead(coarse.without_clusters, None if matrix is None else prepare(matrix))
        for start in range(0, count, _SAMPLES):
            yield _Look(coarse, reference, levels, samples[np.arange(start, min(start + _SAMPLES, count))])


class _Look:
    """Some samples as a head sees them: the coarse outputs of all rows, and upper bounds of the fine ones."""

    def __init__(
        self, coarse: CoarsePart, reference: ReferenceHead, levels: dict[RowClusters, Level], samples: Samples
    ) -> None:
        self._coarse, self._reference, self._levels, self.samples = coarse, reference, levels, samples
        head = coarse.without_clusters
        self.known = self._reference.take_in(samples.inputs)
        m = head.shape[0]
        outputs, upper = self._reference.look(head.places, self.known)
        self.outputs, self.upper = outputs[:, :m], upper[:, :m]
        self.remainder = calibrated_remainder(head.places)[:m]
        self.slack, self.ties = self._reference.slack(self.known), self._reference.ties(self.known)

    def views(self, openings: Sequence[Opening]) -> Iterator["_View"]:
        """Yield the view of each opening."""
        for opening in openings:
            clusters = opening.clusters
            if clusters is not None and clusters not in self._levels:
                assert isinstance(self._coarse, Coarse)
                self._levels[clusters] = self._coarse.level(np.arange(len(clusters)), clusters)
            yield _View(self, opening, None if clusters is None else self._levels[clusters])

    def clusters(self, level: Level, count: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return outputs of clusters, upper bounds of their rows', and their margins for a constant of 1."""
        outputs, upper = self._reference.look(level, self.known)
        spread = self.known.norm[:, None] * calibrated_radius(level)
        return outputs[:, :count], upper[:, :count], spread[:, :count]


class _View:
    """The view after an opening: the threshold when its first rows are refined."""

    def __init__(self, look: _Look, opening: Opening, level: Level | None) -> None:
        self._look, self._clusters = look, opening.clusters
        samples = look.samples
        if self._clusters is None or level is None:
            first = largest_rows(look.outputs, opening.first)
        else:
            count = len(self._clusters)
            self._outputs, self._upper, self._spread = look.clusters(level, count)
            self._opened = np.zeros(self._outputs.shape, bool)
            opened = largest_rows(self._outputs, opening.probes)
            np.put_along_axis(self._opened, opened, True, axis=1)
            rows = self._clusters.table[opened].reshape(len(opened), -1)
            outputs = np.where(rows < 0, -np.inf, np.take_along_axis(look.outputs, rows, axis=1))
            first = np.take_along_axis(rows, largest_rows(outputs, opening.first), axis=1).astype(np.intp)
        self._first = first
        self._wanted = samples.easiest(look.outputs, first)
        top = samples.wanted.shape[1]
        self._threshold = np.partition(np.take_along_axis(samples.dense, first, axis=1), -top, axis=1)[:, -top]
        self._done = (self._wanted[:, :, None] == first[:, None, :]).any(axis=2)

    def scores(self) -> FloatArray:
        """Return the constants that each sample needs: with its norm, without, and of clusters, ``(3, samples)``."""
        constants = self._constants()
        return np.stack([constants / self._look.known.outside, constants, self._cluster_scales()])

    def places(self) -> FloatArray:
        """Return the number of rows that are refined, by coarse outputs, until all of the largest outputs are.

        Of all rows: where clusters are skipped, these are fewer.
        """
        outputs = self._look.outputs
        wanted = np.where(self._done, np.inf, self._of_wanted(outputs)).min(axis=1)
        # The first ones are refined whatever their outputs are.
        behind = np.take_along_axis(outputs, self._first, axis=1) < wanted[:, None]
        places: FloatArray = np.count_nonzero(outputs >= wanted[:, None], axis=1) + np.count_nonzero(behind, axis=1)
        return np.maximum(places, self._first.shape[1]).astype(np.float64)

    def _constants(self) -> FloatArray:
        """Return the least constant with which each sample's largest outputs are all refined."""
        look = self._look
        missing = np.where(self._done, 0, self._threshold[:, None] - self._of_wanted(look.outputs))
        return _least(missing, look.remainder[self._wanted])

    def _cluster_scales(self) -> FloatArray:
        """Return the least constant with which the clusters of each sample's largest outputs are all looked into."""
        if self._clusters is None:
            return np.zeros(len(self._threshold))
        labels = self._clusters.labels[self._wanted]
        opened, outputs, spread = (
            np.take_along_axis(array, labels, axis=1) for array in (self._opened, self._outputs, self._spread)
        )
        return _least(np.where(opened, 0, self._threshold[:, None] - outputs), spread)

    def counts(self, limits: Limits, rule: Rule) -> FloatArray:
        """Return the numbers of rows that are refined, and of places that are looked at, ``(2, samples)``."""
        look = self._look
        threshold = (self._threshold - (look.slack if isinstance(rule, Rigorous) else look.ties))[:, None]
        if isinstance(rule, FixedRows):
            return np.broadcast_to([[float(self._first.shape[1])], [look.outputs.shape[1]]], (2, len(threshold)))
        rigorous = isinstance(rule, Rigorous)
        margin = (np.float32(limits.scale) * look.known.outside + np.float32(limits.constant))[:, None]
        within = (look.upper if rigorous else look.outputs + margin * look.remainder) >= threshold
        looked = np.full(len(threshold), look.outputs.shape[1])
        if self._clusters is not None:
            of_clusters = self._upper if rigorous else self._outputs + np.float32(limits.cluster_scale) * self._spread
            opened = self._opened | (of_clusters >= threshold)
            looked = opened @ (np.diff(self._clusters.starts) * STRIP)
            within &= opened[:, self._clusters.labels]
        np.put_along_axis(within, self._first, True, axis=1)
        return np.stack([np.count_nonzero(within, axis=1), looked]).astype(np.float64)

    def _of_wanted(self, array: FloatArray) -> FloatArray:
        return np.take_along_axis(array, self._wanted, axis=1)


def _least(missing: FloatArray, spread: FloatArray) -> FloatArray:
    """Return the least constant that makes the spread as large as the gap, for all of a sample."""
    missing = np.maximum(missing, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        scales: FloatArray = np.where(missing > 0, missing / spread, 0).max(axis=1)
    return scales
