"""What is decided about a matrix, printed for each line of parameters: run by one kernel of OpenBLAS or another."""

import json
import sys

import numpy as np
import scipy.linalg

import hmatrix as hm
from hmatrix.allocation.arrangements import of_both, of_columns, of_rows
from hmatrix.allocation.moments import Moments, moments
from hmatrix.allocation.spectra import leading_directions
from hmatrix.cluster import Cardinality, PrincipalDirection, Supports, TwoMeans, build_cluster_tree

LEAF_SIZE = 8
ULP = np.finfo(np.float32).eps


def equal_rows(rng, m, n):
    return rng.standard_normal((-(-m // 3), n))[rng.integers(-(-m // 3), size=m)]


def permuted_rows(rng, m, n):
    row = rng.standard_normal(n)
    return np.stack([rng.permutation(row) for _ in range(m)])


def nearly_equal_rows(rng, m, n):
    return equal_rows(rng, m, n).astype(np.float32) * (1 + ULP * rng.integers(-1, 2, (m, n)))


KINDS = {
    "equal rows": equal_rows,
    "equal columns": lambda rng, m, n: equal_rows(rng, n, m).T,
    "equal rows and columns": lambda rng, m, n: equal_rows(rng, m, n)[:, rng.integers(-(-n // 3), size=n)],
    "permuted rows": permuted_rows,
    "nearly equal rows": nearly_equal_rows,
    "zero rows and columns": lambda rng, m, n: (
        rng.standard_normal((m, n)) * (rng.random(n) < 0.5) * (rng.random((m, 1)) < 0.6)
    ),
    "symmetric": lambda rng, m, n: np.add(half := rng.standard_normal((m, m)), half.T),  # noqa: ARG005
    "signs": lambda rng, m, n: np.sign(rng.standard_normal((m, n))),
    "equal blocks": lambda rng, m, n: np.kron(np.eye(3), rng.standard_normal((-(-m // 3), -(-n // 3)))),
    "circulant": lambda rng, m, n: scipy.linalg.circulant(rng.standard_normal(m)),  # noqa: ARG005
}


def drawn(kind, seed, m, n):
    """A float32 matrix of a kind with some decay, and of a size that no power of 2 divides."""
    rng = np.random.default_rng(seed)
    return (0.37 * KINDS[kind](rng, m, n)).astype(np.float32)


def tree(arrangement, size):
    """The rows or columns of each leaf: how they lie in it decides nothing."""
    found = build_cluster_tree(arrangement.coordinates(size), arrangement.splitter)
    return [sorted(found.permutation[leaf.slice].tolist()) for leaf in found.leaves()]


def orders(weight, inputs):
    """The orders of rows and of columns that an allocator tries, by name."""
    m, n = weight.shape
    found = {f"rows by {side.name}": tree(side, m) for side in of_rows(weight, inputs, LEAF_SIZE)}
    found |= {f"columns by {side.name}": tree(side, n) for side in of_columns(weight, inputs, LEAF_SIZE)}
    return found | {f"both, {size}": tree(side, size) for side, size in zip(of_both(weight, inputs, LEAF_SIZE), (m, n))}


def allocated(weight, storage):
    found = hm.allocate(weight, hm.Budget(storage=storage), splitter=Cardinality(LEAF_SIZE))
    packed = found.matrix.pack()
    permutations = (packed.row_permutation, packed.column_permutation)
    return {
        "arrangement": found.arrangement,
        "leaves": packed.leaves.tolist(),
        "permutations": [None if side is None else side.tolist() for side in permutations],
    }


def answer(kind, seed, m, n, what):
    weight = drawn(kind, seed, m, n)
    if what == "orders":
        return orders(weight, Moments.of_root(None, weight.shape[1]))
    if what == "allocation":
        return allocated(weight, 0.15)
    raise ValueError(what)


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(*json.loads(line))), flush=True)
