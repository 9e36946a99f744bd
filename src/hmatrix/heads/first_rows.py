"""The rows that a progressive head refines first, and the threshold that they set for all others.

A head has coarse outputs of its rows, and refines the rows with the largest. Where there are clusters of rows, it looks
into those with the largest outputs only. The threshold is the last of the largest refined outputs: another row is
refined if its fine output may reach it. All of this happens here for many samples at once.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self, TypeAlias

import numpy as np

from hmatrix._support.typing import Flags, FloatArray, Positions
from hmatrix.heads.clusters import RowClusters
from hmatrix.heads.coarse_low_rank import Coarse
from hmatrix.heads.coarse_matrix import CoarseMatrix
from hmatrix.heads.levels import Level
from hmatrix.heads.reference import Known, ReferenceHead
from hmatrix.heads.samples import Samples, largest_rows
from hmatrix.packed.kernels import prepare

CoarsePart: TypeAlias = Coarse | CoarseMatrix
"""The coarse part of a head. Only `Coarse` can have clusters."""

_LEAST_REMAINDER = 0.01
"""Least remainder of a row, relative to its norm: about what quantisation leaves of a row in the subspace."""


@dataclass(frozen=True, eq=False)
class Opening:
    """Beginning of a product: clusters that are looked into first, and rows that are refined first.

    Parameters
    ----------
    first
        Number of rows that are refined first.
    clusters
        Clusters of the rows; ``None`` where all rows are looked at.
    probes
        Number of clusters that are looked into first.
    """

    first: int
    clusters: RowClusters | None = None
    probes: int = 0


def calibrated_remainder(level: Level) -> FloatArray:
    """Return the remainders of rows that margins are multiples of: not below what quantisation leaves."""
    remainder: FloatArray = np.maximum(level.remainder, np.float32(_LEAST_REMAINDER) * calibrated_radius(level))
    return remainder


def calibrated_radius(level: Level) -> FloatArray:
    """Return norms of rows, or the largest distances of rows from the centres of their clusters."""
    radius: FloatArray = np.hypot(level.remainder, level.reach)
    return radius


@dataclass(frozen=True, eq=False)
class CoarseOutputs:
    """Coarse outputs of rows or of clusters, and how far the fine outputs may lie above them.

    Parameters
    ----------
    values
        Coarse outputs ``(samples, count)``.
    upper
        Rigorous upper bounds of the fine outputs ``(samples, count)``.
    spread
        Margins with the constant 1 ``(samples, count)``.
    """

    values: FloatArray
    upper: FloatArray
    spread: FloatArray

    def within(self, threshold: FloatArray, constant: FloatArray | np.float32) -> Flags:
        """Return which outputs reach a threshold ``(samples, 1)`` with their margins ``(samples, count)``."""
        return self.values + constant * self.spread >= threshold

    def least_constants(self, threshold: FloatArray, chosen: Positions, reached: Flags) -> FloatArray:
        """Return the least constants of margins with which all chosen outputs reach a threshold.

        Parameters
        ----------
        threshold
            Threshold of each sample ``(samples,)``.
        chosen
            Indices of the chosen outputs ``(samples, some)``.
        reached
            Chosen outputs that need no margin ``(samples, some)``.

        Returns
        -------
        constants
            One constant for each sample ``(samples,)``.
        """
        values, spread = (np.take_along_axis(array, chosen, axis=1) for array in (self.values, self.spread))
        missing = np.maximum(np.where(reached, 0, threshold[:, None] - values), 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            constants: FloatArray = np.where(missing > 0, missing / spread, 0).max(axis=1)
        return constants


@dataclass(frozen=True, eq=False)
class CoarseView:
    """Samples as the coarse part of a head shows them.

    Parameters
    ----------
    samples
        The samples.
    outside
        Norms of their inputs outside the coarse subspace ``(samples,)``.
    tolerance
        Distances below the threshold at which outputs still count as equal to it ``(samples,)``.
    rows
        Coarse outputs of all rows.
    clusters
        Coarse outputs of the clusters, for each partition of the rows.
    """

    samples: Samples
    outside: FloatArray
    tolerance: FloatArray
    rows: CoarseOutputs
    clusters: Mapping[RowClusters, CoarseOutputs]


class CoarseProducts:
    """Products of samples with a coarse part, by rows and by clusters of rows.

    Parameters
    ----------
    coarse
        Coarse part of a head.
    partitions
        Partitions of its rows into clusters.
    rigorous
        Whether the tolerance of the threshold has to hold for rigorous bounds.
    """

    def __init__(self, coarse: CoarsePart, partitions: Iterable[RowClusters], *, rigorous: bool) -> None:
        head = coarse.without_clusters
        self._rows = head.places
        self._count = head.shape[0]
        self._reference = ReferenceHead(head, None if head.matrix is None else prepare(head.matrix))
        self._tolerance = self._reference.slack if rigorous else self._reference.ties
        self._clusters: dict[RowClusters, Level] = {}
        for clusters in partitions:
            assert isinstance(coarse, Coarse)
            self._clusters[clusters] = coarse.level(np.arange(len(clusters)), clusters)

    def view(self, samples: Samples) -> CoarseView:
        """Return what the coarse part shows of samples."""
        known = self._reference.take_in(samples.inputs)
        remainder = calibrated_remainder(self._rows)
        rows = self._outputs(self._rows, known, np.broadcast_to(remainder, (len(samples.inputs), len(remainder))))
        clusters = {
            some: self._outputs(level, known, known.norm[:, None] * calibrated_radius(level), len(some))
            for some, level in self._clusters.items()
        }
        return CoarseView(samples, known.outside, self._tolerance(known), rows, clusters)

    def _outputs(self, level: Level, known: Known, spread: FloatArray, count: int | None = None) -> CoarseOutputs:
        values, upper = self._reference.look(level, known)
        count = self._count if count is None else count
        return CoarseOutputs(values[:, :count], upper[:, :count], spread[:, :count])


@dataclass(frozen=True, eq=False)
class FirstRows:
    """The rows that a head refines first for some samples, and the threshold that they set.

    Parameters
    ----------
    view
        The samples as the coarse part shows them.
    clusters
        Clusters of the rows; ``None`` where all rows are looked at.
    opened
        Clusters that are looked into first, as a mask ``(samples, clusters)``.
    rows
        Rows that are refined first ``(samples, first)``.
    """

    view: CoarseView
    clusters: RowClusters | None
    opened: Flags
    rows: Positions

    @classmethod
    def of(cls, view: CoarseView, opening: Opening) -> Self:
        """Choose the first rows of an opening: those with the largest coarse outputs, in the clusters with these."""
        clusters, outputs = opening.clusters, view.rows.values
        if clusters is None:
            return cls(view, None, np.empty((len(outputs), 0), bool), largest_rows(outputs, opening.first))
        probes = largest_rows(view.clusters[clusters].values, opening.probes)
        opened = np.zeros((len(outputs), len(clusters)), bool)
        np.put_along_axis(opened, probes, True, axis=1)
        rows = clusters.table[probes].reshape(len(probes), -1)
        seen = np.where(rows < 0, -np.inf, np.take_along_axis(outputs, rows, axis=1))
        first = np.take_along_axis(rows, largest_rows(seen, opening.first), axis=1).astype(np.intp)
        return cls(view, clusters, opened, first)

    @cached_property
    def threshold(self) -> FloatArray:
        """The last of the largest outputs among the first rows ``(samples,)``."""
        samples = self.view.samples
        top = samples.wanted.shape[1]
        refined = np.take_along_axis(samples.dense, self.rows, axis=1)
        threshold: FloatArray = np.partition(refined, -top, axis=1)[:, -top]
        return threshold

    @cached_property
    def wanted(self) -> Positions:
        """The rows of the largest outputs, of equal ones those that are refined soonest ``(samples, top)``."""
        return self.view.samples.easiest(self.view.rows.values, self.rows)

    @cached_property
    def done(self) -> Flags:
        """Whether the wanted rows are among the first ones ``(samples, top)``."""
        done: Flags = (self.wanted[:, :, None] == self.rows[:, None, :]).any(axis=2)
        return done
