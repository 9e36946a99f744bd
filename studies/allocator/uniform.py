"""Uniform H-matrices: blocks that share bases; what the allocator is compared with.

An admissible block of the clusters t and s is ``U_t S_ts V_s^T``: all blocks of a row cluster share U_t, all of a
column cluster V_s, and each has a small coupling.

References
----------
W. Hackbusch, *Hierarchical Matrices: Algorithms and Analysis*, Springer 2015, section 8.1,
doi:10.1007/978-3-662-47324-5.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

from hmatrix._support.checks import check_matrix, check_number
from hmatrix._support.typing import FloatArray, Floats64
from hmatrix.errors import ArgumentError
from hmatrix.partitions.blocktree import BlockClusterTree
from hmatrix.partitions.cluster import Cluster


@dataclass(frozen=True, eq=False)
class Uniform:
    """A matrix ``(m, n)`` whose admissible blocks share bases.

    Parameters
    ----------
    tree
        Its partition.
    row_bases, column_bases
        Bases by cluster, ``(size, k)`` with orthonormal columns.
    couplings
        Couplings of the admissible blocks in the order of the tree, ``(k of the rows, k of the columns)``.
    near
        The inadmissible blocks in that order.
    """

    tree: BlockClusterTree
    row_bases: dict[Cluster, FloatArray]
    column_bases: dict[Cluster, FloatArray]
    couplings: tuple[FloatArray, ...]
    near: tuple[FloatArray, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all coefficients in float32, and of the permutations."""
        bases = (*self.row_bases.values(), *self.column_bases.values())
        permutations = self.tree.rows.permutation.nbytes + self.tree.columns.permutation.nbytes
        return 4 * sum(array.size for array in (*bases, *self.couplings, *self.near)) + permutations

    def to_dense(self) -> FloatArray:
        """Return the matrix ``(m, n)``."""
        ordered = np.empty((self.tree.rows.size, self.tree.columns.size), np.float32)
        for block, coupling in zip(self.tree.far_field, self.couplings, strict=True):
            V = self.column_bases[block.columns]
            ordered[block.rows.slice, block.columns.slice] = self.row_bases[block.rows] @ coupling @ V.T
        for block, dense in zip(self.tree.near_field, self.near, strict=True):
            ordered[block.rows.slice, block.columns.slice] = dense
        result = np.empty_like(ordered)
        result[np.ix_(self.tree.rows.permutation, self.tree.columns.permutation)] = ordered
        return result


def fit_uniform(weight: npt.ArrayLike, tree: BlockClusterTree, atol: float) -> Uniform:
    """Approximate a weight by a uniform H-matrix.

    A basis holds the left singular vectors of all blocks of its cluster, side by side, whose singular values exceed
    `atol` times the root of the cluster's size: for its bytes each of them takes away as much error as any other.

    Parameters
    ----------
    weight
        ``(m, n)``, finite.
    tree
        Its partition.
    atol
        Error that is not worth the bytes of one entry of a basis.

    Raises
    ------
    ArgumentError
        If an argument cannot be used.
    """
    A = check_matrix("weight", weight).astype(np.float32, copy=False)
    check_number("atol", atol, at_least=0.0)
    shape = tree.rows.size, tree.columns.size
    if A.shape != shape:
        raise ArgumentError("weight", f"has the shape {A.shape}", f"give {shape}, as the tree has")
    A = A[np.ix_(tree.rows.permutation, tree.columns.permutation)]
    far = tree.far_field
    row_bases = _bases(((block.rows, A[block.rows.slice, block.columns.slice]) for block in far), atol)
    column_bases = _bases(((block.columns, A[block.rows.slice, block.columns.slice].T) for block in far), atol)
    couplings = tuple(
        row_bases[block.rows].T @ A[block.rows.slice, block.columns.slice] @ column_bases[block.columns]
        for block in far
    )
    near = tuple(A[block.rows.slice, block.columns.slice] for block in tree.near_field)
    return Uniform(tree, row_bases, column_bases, couplings, near)


def _bases(blocks: Iterable[tuple[Cluster, FloatArray]], atol: float) -> dict[Cluster, FloatArray]:
    """Return the basis of each cluster, for its blocks ``(size, any)``."""
    grams: dict[Cluster, Floats64] = defaultdict(lambda: np.zeros(()))
    for cluster, block in blocks:
        wide = block.astype(np.float64)
        grams[cluster] = grams[cluster] + wide @ wide.T
    bases = {}
    for cluster, gram in grams.items():
        squares, vectors = scipy.linalg.eigh(gram)
        bases[cluster] = vectors[:, squares > atol**2 * cluster.size].astype(np.float32)
    return bases
