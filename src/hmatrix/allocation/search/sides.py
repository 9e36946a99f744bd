"""The levels of a cluster tree, as arrays."""

from functools import cached_property

import numpy as np

from hmatrix._support.typing import Floats64, Positions
from hmatrix.partitions.cluster import Cluster, ClusterTree


class Side:
    """The clusters of a tree level by level; leaves above the last level stand on all further ones too."""

    def __init__(self, tree: ClusterTree) -> None:
        self.permutation = tree.permutation
        self.levels: list[list[Cluster]] = [[tree.root]]
        self.sons: list[Positions] = []
        """For each level but the last, ``(clusters, 2)``: the sons on the next; twice the number of all for none."""
        while any(cluster.sons for cluster in self.levels[-1]):
            below: list[Cluster] = []
            numbers = []
            for cluster in self.levels[-1]:
                sons = cluster.sons or (cluster,)
                numbers.append([len(below), len(below) + 1 if len(sons) > 1 else -1])
                below.extend(sons)
            table = np.array(numbers)
            table[table < 0] = len(below)
            self.levels.append(below)
            self.sons.append(table)

    @cached_property
    def sizes(self) -> list[Floats64]:
        """Sizes of the clusters of each level."""
        return [np.array([cluster.size for cluster in level], float) for level in self.levels]

    @property
    def depth(self) -> int:
        """Number of the last level."""
        return len(self.levels) - 1
