"""The block cluster tree: the partition of a matrix into admissible and inadmissible blocks."""

from collections.abc import Iterator
from dataclasses import dataclass

from hmatrix._support.memory import machine_memory
from hmatrix.errors import ArgumentError
from hmatrix.partitions.admissibility import Admissibility
from hmatrix.partitions.cluster import Cluster, ClusterTree

_BLOCK_BYTES = 250
"""Bytes of a block, at least."""


@dataclass(frozen=True, eq=False)
class BlockCluster:
    """A pair of clusters.

    Parameters
    ----------
    rows, columns
        The two clusters.
    admissible
        Whether it is a leaf that may have low rank.
    sons
        Blocks that it is split into; none for a leaf.

    Examples
    --------
    >>> root = hm.partition((200, 200)).root
    >>> root.admissible, len(root.sons)
    (False, 4)
    """

    rows: Cluster
    columns: Cluster
    admissible: bool
    sons: tuple["BlockCluster", ...] = ()


@dataclass(frozen=True, eq=False)
class BlockClusterTree:
    """The partition of the matrix over two cluster trees.

    Examples
    --------
    >>> blocks = hm.partition((1000, 1024))
    >>> len(blocks.far_field), len(blocks.near_field)
    (157, 93)
    """

    rows: ClusterTree
    columns: ClusterTree
    root: BlockCluster

    def leaves(self) -> Iterator[BlockCluster]:
        """Iterate over the leaves, depth first."""
        stack = [self.root]
        while stack:
            block = stack.pop()
            if not block.sons:
                yield block
            stack.extend(reversed(block.sons))

    @property
    def far_field(self) -> tuple[BlockCluster, ...]:
        """The admissible leaves."""
        return tuple(leaf for leaf in self.leaves() if leaf.admissible)

    @property
    def near_field(self) -> tuple[BlockCluster, ...]:
        """The inadmissible leaves."""
        return tuple(leaf for leaf in self.leaves() if not leaf.admissible)


def build_block_tree(rows: ClusterTree, columns: ClusterTree, admissibility: Admissibility) -> BlockClusterTree:
    """Build the block cluster tree of two cluster trees.

    Admissibility is asked first, so that a pair of leaf clusters may be admissible too. An inadmissible
    block is split along each side whose cluster has sons, so along one side alone where the other
    cluster is a leaf; where both are leaves it is a dense leaf.

    Parameters
    ----------
    rows, columns
        The two trees.
    admissibility
        Condition of the blocks that may have low rank.

    Raises
    ------
    ArgumentError
        If there are more blocks than the machine's memory holds.

    Examples
    --------
    >>> rows = hm.build_cluster_tree(hm.Index()(1000), hm.Cardinality(60))
    >>> columns = hm.build_cluster_tree(hm.Index()(1280), hm.Cardinality(60))
    >>> blocks = hm.build_block_tree(rows, columns, hm.Strong(eta=2))
    >>> len(blocks.far_field), len(blocks.near_field)
    (151, 87)
    """
    most = machine_memory() // _BLOCK_BYTES
    pairs = [(rows.root, columns.root)]
    sons: list[range] = []
    admissible: list[bool] = []
    for row, column in pairs:
        admissible.append(admissibility(row, column))
        first = len(pairs)
        if not admissible[-1] and not (row.is_leaf and column.is_leaf):
            pairs += [(r, c) for r in row.sons or (row,) for c in column.sons or (column,)]
        if len(pairs) > most:
            came = f"leaves more than {most:,} blocks, which this machine's memory does not hold"
            raise ArgumentError("splitter", came, "give a larger leaf_size, or an admissibility with larger blocks")
        sons.append(range(first, len(pairs)))
    blocks: dict[int, BlockCluster] = {}
    for number in reversed(range(len(pairs))):
        blocks[number] = BlockCluster(
            *pairs[number], admissible[number], tuple(blocks.pop(son) for son in sons[number])
        )
    return BlockClusterTree(rows, columns, blocks[0])
