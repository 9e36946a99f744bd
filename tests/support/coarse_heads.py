"""Progressive heads whose coarse part is an H-matrix, for their tests."""

from functools import cache

import numpy as np
from heads import layer
from matrices import permutation, random_leaves, stored

import hmatrix as hm

M, N = 200, 90
INTEGERS = ["uniform", "allocated", "mixed"]
EXACT = ["exact", "floats", "overlapping"]


def noisy(weight, rows, columns):
    """A leaf table's worth of blocks of a permuted weight: low rank beside dense, in a partition of four."""
    tree = weight[np.ix_(rows, columns)]
    leaves = []
    for top, bottom in ((0, 70), (70, len(tree))):
        for left, right, rank in ((0, 50, 6), (50, tree.shape[1], None)):
            U, s, Vt = np.linalg.svd(tree[top:bottom, left:right], full_matrices=False)
            block = tree[top:bottom, left:right] if rank is None else hm.LowRank(U[:, :rank] * s[:rank], Vt[:rank].T)
            leaves.append(hm.packed.packing.PackedLeaf(slice(top, bottom), slice(left, right), block))
    return leaves


@cache
def coarse_of(name):
    """H-matrices of the weight of `layer`, of all kinds."""
    weight = layer()[0]
    rows, columns = permutation(M, 1), permutation(N, 2)
    mixed = [hm.Precision.INT4, hm.Precision.INT2, hm.Precision.INT8, hm.Precision.INT1, hm.Precision.TRELLIS4]
    match name:
        case "uniform":
            H = hm.build(weight, splitter=hm.Cardinality(30), truncation=hm.Truncation(max_rank=4))
            return H.astype("int8", activations="int8")
        case "allocated":
            return hm.allocate(weight, hm.Budget(storage=0.15), activations="int8").matrix
        case "mixed":
            leaves = stored(noisy(weight, rows, columns), mixed, (0, 13))
            return hm.HMatrix.from_leaves((M, N), leaves, rows, columns, activations="int8")
        case "exact":
            return hm.allocate(weight, hm.Budget(storage=0.15)).matrix
        case "floats":
            kinds = [hm.Precision.BFLOAT16, hm.Precision.FLOAT32, hm.Precision.INT8]
            return hm.HMatrix.from_leaves((M, N), stored(noisy(weight, rows, columns), kinds), rows, columns)
        case "overlapping":
            leaves = stored(random_leaves((M, N), dtype=np.float32, most=5), [hm.Precision.FLOAT32])
            again = stored(noisy(weight, rows, columns), [hm.Precision.INT8])
            return hm.HMatrix.from_leaves((M, N), leaves + again, rows, None)


@cache
def head_of(name, agreement=0.9, **options):
    weight, bias, X, _ = layer()
    return hm.progressive(weight, bias, calibration=X, agreement=agreement, coarse=coarse_of(name), **options)
