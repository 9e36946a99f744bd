"""H-matrices made of a matrix, coordinates, a partition rule and a compressor."""

import warnings
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hmatrix._support.checks import check_matrix, check_shape
from hmatrix._support.memory import check_memory
from hmatrix._support.norms import frobenius
from hmatrix._support.ranges import largest_of
from hmatrix._support.typing import FloatArray
from hmatrix.codes.precision import Activations, Precision
from hmatrix.errors import AccuracyWarning, ArgumentError
from hmatrix.lowrank.compressors import Compressor, TruncatedSVD
from hmatrix.lowrank.entries import Block, Entries, EntryBlock
from hmatrix.lowrank.factors import LowRank, Truncation
from hmatrix.matrix import HMatrix
from hmatrix.packed.outliers import with_outliers_apart
from hmatrix.packed.packing import PackedLeaf
from hmatrix.partitions.admissibility import Admissibility, Everywhere, Strong
from hmatrix.partitions.blocktree import BlockCluster, BlockClusterTree, build_block_tree
from hmatrix.partitions.cluster import build_cluster_tree, check_tree
from hmatrix.partitions.coordinates import Coordinates, Index
from hmatrix.partitions.splitters import Cardinality, Splitter

Sides: TypeAlias = Coordinates | tuple[Coordinates, Coordinates]


def partition(
    shape: tuple[int, int],
    *,
    coordinates: Sides = Index(),
    splitter: Splitter = Cardinality(),
    admissibility: Admissibility = Strong(),
) -> BlockClusterTree:
    """Build the block cluster tree of a matrix.

    Parameters
    ----------
    shape
        Shape of the matrix, ``(m, n)``.
    coordinates
        Coordinates of rows and columns: one for both, or (rows, columns).
    splitter
        Splitter of the clusters, with its leaf size.
    admissibility
        Condition of the blocks that may have low rank.

    Raises
    ------
    ArgumentError
        If an argument cannot be used, or the machine's memory does not hold the trees.

    Examples
    --------
    >>> blocks = hm.partition((1000, 1024), admissibility=hm.Strong(eta=2))
    >>> len(blocks.far_field), len(blocks.near_field)
    (157, 93)
    """
    for size in check_shape("shape", shape):
        check_tree(size, splitter.leaf_size)
    sides = coordinates if isinstance(coordinates, tuple) else (coordinates, coordinates)
    if len(sides) != 2:
        raise ArgumentError("coordinates", f"has {len(sides)} parts", "give one for both sides, or (rows, columns)")
    supports = [side(size) for side, size in zip(sides, shape, strict=True)]
    dimensions = [of_side.points.shape[1] for of_side in supports]
    if dimensions[0] != dimensions[1]:
        came = f"have {dimensions[0]} dimensions for rows and {dimensions[1]} for columns"
        raise ArgumentError("coordinates", came, "give both sides the same, since distances between them count")
    rows, columns = (build_cluster_tree(of_side, splitter) for of_side in supports)
    return build_block_tree(rows, columns, admissibility)


def build(
    weight: npt.ArrayLike | Entries,
    *,
    coordinates: Sides = Index(),
    splitter: Splitter = Cardinality(),
    admissibility: Admissibility = Strong(),
    compressor: Compressor = TruncatedSVD(),
    truncation: Truncation,
) -> HMatrix:
    """Approximate a matrix by an H-matrix.

    Admissible blocks are approximated by `compressor`; one in which low rank does not pay, where
    ``k (m + n) >= m n``, is stored dense, without error; where a rank is all that is asked for, k is that rank.
    A zero block has rank 0. So with a tolerance `rtol` and no `max_rank`
    the whole matrix has the error ``||A - H||_F <= rtol ||A||_F``, up to rounding, for compressors that
    know their error (all but `PartialACA`).

    Parameters
    ----------
    weight
        ``(m, n)``, finite; float32 and float64 are kept, other types converted. Or its entry function.
    coordinates
        Coordinates of rows and columns: one for both, or (rows, columns).
    splitter
        Splitter of the clusters, with its leaf size.
    admissibility
        Condition of the blocks that may have low rank.
    compressor
        Compressor of the admissible blocks.
    truncation
        Their rank, their accuracy, or both.

    Returns
    -------
    HMatrix
        An H-matrix with coefficients in the type of `weight`.

    Raises
    ------
    ArgumentError
        If an argument cannot be used, or the machine's memory does not hold the trees, or the dense blocks.

    Warns
    -----
    AccuracyWarning
        If `max_rank` kept a tolerance from being reached; the message says how far it was missed.

    Examples
    --------
    >>> weight = np.random.default_rng(0).standard_normal((300, 200))
    >>> H = hm.build(weight, truncation=hm.Truncation(rtol=0.1))
    >>> hm.relative_error(weight, H) <= 0.1
    True
    """
    source = weight if isinstance(weight, Entries) else check_matrix("weight", weight)
    tree = partition(source.shape, coordinates=coordinates, splitter=splitter, admissibility=admissibility)
    # Low rank takes less, but how much is known only afterwards.
    dense = sum(leaf.rows.size * leaf.columns.size for leaf in tree.near_field) * np.dtype(source.dtype).itemsize
    came = f"has dense blocks: {len(tree.near_field)}"
    check_memory("weight", came, dense, "give a smaller leaf_size, or an admissibility with fewer dense blocks")
    leaves: list[PackedLeaf] = []
    missed: list[float] = []
    for leaf in tree.leaves():
        block = _block(source, tree, leaf)
        stored = _compress(block, compressor, truncation, missed) if leaf.admissible else np.asarray(block)
        leaves.append(PackedLeaf(leaf.rows.slice, leaf.columns.slice, stored))
    if missed:
        warnings.warn(
            f"truncation: max_rank={truncation.max_rank} kept {len(missed)} of {len(tree.far_field)} admissible blocks "
            f"from their tolerance, by up to {max(missed):.3g} times; raise max_rank, or leave the tolerance out",
            AccuracyWarning,
            stacklevel=2,
        )
    return HMatrix.from_leaves(source.shape, leaves, tree.rows.permutation, tree.columns.permutation)


def global_svd(weight: npt.ArrayLike, truncation: Truncation) -> HMatrix:
    """Approximate a matrix ``(m, n)`` by one truncated SVD: an H-matrix of a single leaf.

    Raises
    ------
    ArgumentError
        If an argument cannot be used.

    Examples
    --------
    >>> weight = np.random.default_rng(0).standard_normal((300, 200))
    >>> G = hm.global_svd(weight, hm.Truncation(max_rank=20))
    >>> [leaf.rank for leaf in G.leaves()]
    [20]
    """
    splitter = Cardinality(leaf_size=max((1, *np.shape(weight))))
    return build(weight, splitter=splitter, admissibility=Everywhere(), truncation=truncation)


def quantize(
    weight: npt.ArrayLike,
    precision: Precision | npt.DTypeLike,
    *,
    activations: Activations | str = Activations.EXACT,
    group: int = 0,
) -> HMatrix:
    """Store a matrix ``(m, n)`` as one dense leaf.

    Entries that are so far out in their row that the others would be rounded worse than in int4 are leaves of their own
    in lloyd4, trellis4 and trellis4p.

    Parameters
    ----------
    weight
        ``(m, n)``, finite.
    precision
        ``"float64"``, ``"float32"``, ``"bfloat16"``, ``"int8"``, ``"int4"``, ``"lloyd4"``, ``"trellis4"``,
        ``"trellis4p"``, ``"trellis3"``, ``"int2"``, ``"trellis2"``, ``"int1"`` or ``"trellis1"``.
    activations
        Treatment of a product's input where it meets integer codes: ``"exact"`` or ``"int8"``.
    group
        Columns that share a scale; 0 is all. For integer precisions.

    Raises
    ------
    ArgumentError
        If an argument cannot be used.

    Examples
    --------
    >>> weight = np.random.default_rng(0).standard_normal((300, 200))
    >>> Q = hm.quantize(weight, "int4", activations="int8")
    >>> hm.relative_error(weight, Q) < 0.15, Q.storage().ratio < 0.15
    (True, True)
    """
    matrix = check_matrix("weight", weight)
    m, n = matrix.shape
    wanted = Precision.of(precision)
    if wanted is not Precision.of(matrix.dtype):
        wanted.check_holds("weight", largest_of(matrix))
    leaf = PackedLeaf(slice(0, m), slice(0, n), matrix, wanted, wanted.group(group))
    return HMatrix.from_leaves((m, n), list(with_outliers_apart(leaf)), activations=Activations.of(activations))


def _block(source: FloatArray | Entries, tree: BlockClusterTree, leaf: BlockCluster) -> Block:
    rows = tree.rows.permutation[leaf.rows.slice].astype(np.intp)
    columns = tree.columns.permutation[leaf.columns.slice].astype(np.intp)
    if isinstance(source, Entries):
        return EntryBlock(source, rows, columns)
    block: FloatArray = source[np.ix_(rows, columns)]
    return block


def _compress(
    block: Block, compressor: Compressor, truncation: Truncation, missed: list[float]
) -> FloatArray | LowRank:
    """Return the low-rank factors, or the dense block where they do not pay.

    Where a tolerance was missed, and that can be known, its excess is added to `missed`.
    """
    m, n = block.shape
    if not truncation.has_tolerance and truncation.cap(block.shape) * (m + n) >= m * n:
        dense = np.asarray(block)
        return dense if dense.any() else LowRank(np.zeros((m, 0), dense.dtype), np.zeros((n, 0), dense.dtype))
    approximation = compressor(block, truncation)
    if approximation.rank * (m + n) >= m * n:
        return np.asarray(block)
    if truncation.has_tolerance and approximation.rank == truncation.max_rank and isinstance(block, np.ndarray):
        tolerance = truncation.tolerance(frobenius(block))
        error = frobenius(block - approximation.to_dense())
        if error > tolerance * (1 + 1e-5):
            missed.append(error / tolerance if tolerance else np.inf)
    return approximation
