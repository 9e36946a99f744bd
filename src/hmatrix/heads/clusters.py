"""Clusters of the rows of a progressive head: rows whose outputs are alike, looked into together or not at all."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hmatrix._support.ties import signs_of
from hmatrix._support.typing import FloatArray, Floats64, IndexArray, Positions
from hmatrix.heads.words import STRIP, padded
from hmatrix.partitions.cluster import Cluster, ClusterTree, Supports, build_cluster_tree
from hmatrix.partitions.splitters import TwoMeans

COORDINATES = 32
"""Leading singular vectors along whose coordinates rows are clustered."""

_CHUNK = 4096
"""Rows that are projected at once, since a vocabulary is large."""


@dataclass(frozen=True, eq=False)
class RowClusters:
    """A partition of the rows.

    Parameters
    ----------
    order
        int32: clusters one after another, each filled up with -1 to whole strips.
    starts
        int32 ``(clusters + 1,)``: the first strip of each, and the end.
    """

    order: IndexArray
    starts: IndexArray

    @classmethod
    def cut(cls, tree: ClusterTree, leaf_size: int) -> "RowClusters":
        """Return the largest clusters of a tree that have at most so many rows, or are its leaves."""
        chosen: list[Cluster] = []
        stack = [tree.root]
        while stack:
            cluster = stack.pop()
            if cluster.size <= leaf_size or cluster.is_leaf:
                chosen.append(cluster)
            else:
                stack += reversed(cluster.sons)
        starts = np.cumsum([0, *(padded(cluster.size, STRIP) // STRIP for cluster in chosen)]).astype(np.int32)
        order = np.full(starts[-1] * STRIP, -1, np.int32)
        for cluster, start in zip(chosen, starts * STRIP, strict=False):
            order[start : start + cluster.size] = np.sort(tree.permutation[cluster.slice])
        return cls(order, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def sizes(self) -> Positions:
        """Rows of each cluster."""
        return np.bincount(self.labels, minlength=len(self))

    @cached_property
    def labels(self) -> Positions:
        """The cluster of each row ``(m,)``."""
        clusters = np.repeat(np.arange(len(self)), np.diff(self.starts) * STRIP)
        labels = np.empty(np.count_nonzero(self.order >= 0), np.intp)
        labels[self.order[self.order >= 0]] = clusters[self.order >= 0]
        return labels

    @cached_property
    def table(self) -> IndexArray:
        """The rows of each cluster ``(clusters, most)``, filled up with -1."""
        lengths = np.diff(self.starts) * STRIP
        table = np.full((len(self), lengths.max()), -1, np.int32)
        table[np.arange(table.shape[1]) < lengths[:, None]] = self.order
        return table

    def means(self, values: FloatArray) -> FloatArray:
        """Return the mean of each cluster's rows of values ``(m, d)``."""
        sums = np.zeros((len(self), *values.shape[1:]), values.dtype)
        np.add.at(sums, self.labels, values)
        return sums / self.sizes[:, None]

    def largest(self, values: FloatArray) -> FloatArray:
        """Return the largest of each cluster's values ``(m,)``."""
        largest = np.full(len(self), -np.inf, values.dtype)
        np.maximum.at(largest, self.labels, values)
        return largest


def row_tree(weight: FloatArray, gram: Floats64, leaf_size: int) -> ClusterTree:
    """Build the cluster tree of the rows of a weight.

    Parameters
    ----------
    weight
        A ``(m, n)``.
    gram
        ``A^T A``.
    leaf_size
        Clusters of at most this many rows are not split.
    """
    vectors = np.linalg.eigh(gram)[1][:, ::-1][:, :COORDINATES]
    vectors = vectors * signs_of(vectors)
    # In float64, so that rounding is far below what rows that are not equal differ by.
    chunks = [weight[start : start + _CHUNK].astype(np.float64) @ vectors for start in range(0, len(weight), _CHUNK)]
    return build_cluster_tree(Supports(np.concatenate(chunks)), TwoMeans(leaf_size))
