"""What is decided about a matrix: asked of several kernels of OpenBLAS, which give equal sums different last bits."""

import json
import sys

import numpy as np
import scipy.linalg

import hmatrix as hm
from hmatrix.allocation.error.moments import Moments, moments
from hmatrix.allocation.search.arrangements import of_both, of_columns, of_rows
from hmatrix.heads.clusters import row_tree
from hmatrix.partitions.cluster import build_cluster_tree
from hmatrix.partitions.splitters import Cardinality

LEAF_SIZE = 8
COMPRESSORS = (hm.TruncatedSVD(), hm.PivotedQR(), hm.RandomizedSVD())


def equal_rows(rng, m, n):
    return rng.standard_normal((-(-m // 3), n))[rng.integers(-(-m // 3), size=m)]


def permuted_rows(rng, m, n):
    row = rng.standard_normal(n)
    return np.stack([rng.permutation(row) for _ in range(m)])


def nearly_equal_rows(rng, m, n):
    return equal_rows(rng, m, n).astype(np.float32) * (1 + np.finfo(np.float32).eps * rng.integers(-1, 2, (m, n)))


def zero_rows_and_columns(rng, m, n):
    return rng.standard_normal((m, n)) * (rng.random((m, 1)) < 0.6) * (rng.random(n) < 0.5)


def symmetric(rng, m, _):
    half = rng.standard_normal((m, m))
    return half + half.T


KINDS = {
    "equal rows": equal_rows,
    "equal columns": lambda rng, m, n: equal_rows(rng, n, m).T,
    "equal rows and columns": lambda rng, m, n: equal_rows(rng, m, n)[:, rng.integers(-(-n // 3), size=n)],
    "permuted rows": permuted_rows,
    "nearly equal rows": nearly_equal_rows,
    "zero rows and columns": zero_rows_and_columns,
    "symmetric": symmetric,
    "signs": lambda rng, m, n: np.sign(rng.standard_normal((m, n))),
}


def drawn(kind, seed, m, n):
    """A float32 matrix of a kind, of entries that are no multiples of a power of 2."""
    return (0.37 * KINDS[kind](np.random.default_rng(seed), m, n)).astype(np.float32)


def parts(tree):
    """The rows or columns of each leaf: their order in it decides nothing."""
    return [sorted(tree.permutation[leaf.slice].tolist()) for leaf in tree.leaves()]


def orders(weight):
    """The clusters of each arrangement that an allocator tries, and those of the rows of a head."""
    m, n = weight.shape
    inputs = Moments.of_root(None, n)
    sides = {"rows": (m, of_rows(weight, inputs, LEAF_SIZE)), "columns": (n, of_columns(weight, inputs, LEAF_SIZE))}
    sides |= {f"side {k}": (weight.shape[k], [side]) for k, side in enumerate(of_both(weight, inputs, LEAF_SIZE))}
    found = {
        f"{name} by {side.name}": parts(build_cluster_tree(side.coordinates(size), side.splitter))
        for name, (size, arrangements) in sides.items()
        for side in arrangements
    }
    exact = weight.astype(np.float64)
    return found | {"row tree": parts(row_tree(weight, exact.T @ exact, LEAF_SIZE))}


def allocation(weight):
    """The arrangement, the leaves with their ranks and precisions, and the permutations."""
    found = hm.allocate(weight, hm.Budget(storage=0.2), splitter=Cardinality(LEAF_SIZE))
    packed = found.matrix.pack()
    sides = (packed.row_permutation, packed.column_permutation)
    permutations = [None if side is None else side.tolist() for side in sides]
    return {"arrangement": found.arrangement, "leaves": packed.leaves.tolist(), "permutations": permutations}


def ranks(weight):
    """Ranks of an orthogonal matrix by a tolerance that a rank meets exactly."""
    size = min(weight.shape)
    turned = np.linalg.qr(weight[:size, :size].astype(np.float64) + np.eye(size))[0]
    blocks = {"float64": turned, "float32": turned.astype(np.float32)}
    tolerance = hm.Truncation(rtol=float(np.sqrt((size - size // 2) / size)))
    return {
        f"{compressor} {kind}": compressor(block, tolerance).rank
        for compressor in COMPRESSORS
        for kind, block in blocks.items()
    }


def damping(weight):
    """Shares that are equally likely: those of a weight with orthogonal columns, and all of a single column."""
    X = np.random.default_rng(0).standard_normal((40, 16)) * np.arange(1, 17)
    orthogonal = 0.37 * scipy.linalg.hadamard(16).astype(np.float32)
    inputs = X.astype(np.float32) * abs(weight[0, 0])
    cases = ((orthogonal, inputs), (weight[:, :1], inputs[:, :1]))
    return {str(len(given)): str(moments(given, known).damping) for given, known in cases}


def main():
    for line in sys.stdin:
        what, *parameters = json.loads(line)
        print(json.dumps(globals()[what](drawn(*parameters))), flush=True)
