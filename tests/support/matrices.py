"""Matrices, partitions and points that the tests of the core share."""

import copy
import subprocess
import sys
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from hmatrix.codes.precision import Precision
from hmatrix.lowrank.factors import LowRank
from hmatrix.packed.packing import PackedLeaf


def random_matrix(m, n, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal((m, n)).astype(dtype)


def slopes(A, H, X):
    """Of the outputs of H over those of A, row by row."""
    wanted, given = (X.astype(np.float64) @ matrix.T for matrix in (A, H))
    wanted, given = wanted - wanted.mean(axis=0), given - given.mean(axis=0)
    return (wanted * given).sum(axis=0) / (wanted**2).sum(axis=0)


def deficient(m, n, rank, seed=0):
    """A matrix of exactly this rank."""
    return random_matrix(m, rank, seed=seed) @ random_matrix(rank, n, seed=seed + 1)


def hilbert(m, n):
    return 1.0 / (1.0 + np.arange(m)[:, None] + np.arange(n))


def inverse_distance(m, n):
    """1 / |x - y| of points that lie apart: singular values decay exponentially."""
    return 1.0 / np.abs(np.linspace(0, 1, m)[:, None] - np.linspace(2, 3, n))


def kernel(x, y):
    """A smooth kernel of points on a line, with no gap between rows and columns."""
    return 1.0 / (0.01 + np.abs(x[:, None] - y))


BLOCKS = {
    "random": random_matrix(40, 30),
    "Hilbert": hilbert(50, 60),
    "1/|x-y|": inverse_distance(60, 50),
    "rank 5": deficient(45, 55, 5),
}


def block_diagonal():
    """Two blocks of rank 2: crosses through the first never show the second."""
    A = np.zeros((60, 50))
    A[:30, :25] = deficient(30, 25, 2)
    A[30:, 25:] = deficient(30, 25, 2, seed=7)
    return A


def cut(shape, draw, most=12):
    """Cut a matrix into at most about `most` rectangles; ``draw(low, high)`` returns an integer."""
    done, open_ = [], [(0, shape[0], 0, shape[1])]
    while open_:
        top, bottom, left, right = open_.pop(0)
        way = draw(0, 2) if len(done) + len(open_) < most else 0
        if way == 1 and bottom - top > 1:
            middle = draw(top + 1, bottom - 1)
            open_ += [(top, middle, left, right), (middle, bottom, left, right)]
        elif way == 2 and right - left > 1:
            middle = draw(left + 1, right - 1)
            open_ += [(top, bottom, left, middle), (top, bottom, middle, right)]
        else:
            done.append((top, bottom, left, right))
    return done


def leaf(rows, columns, rank, rng, dtype=np.float64):
    """A leaf of random coefficients; dense where `rank` is ``None``."""
    (top, bottom), (left, right) = rows, columns
    m, n = bottom - top, right - left

    def draw(size):
        return rng.standard_normal(size).astype(dtype)

    block = draw((m, n)) if rank is None else LowRank(draw((m, rank)), draw((n, rank)))
    return PackedLeaf(slice(top, bottom), slice(left, right), block)


@st.composite
def partitions(draw, largest=200):
    """A shape and random leaves that partition it; in some of them, further leaves overlap with these."""
    shape = draw(st.integers(1, largest)), draw(st.integers(1, largest))

    def integer(low, high):
        return draw(st.integers(low, high))

    blocks = cut(shape, integer)
    for _ in range(integer(0, 2)):
        top, left = integer(0, shape[0] - 1), integer(0, shape[1] - 1)
        blocks.append((top, integer(top + 1, shape[0]), left, integer(left + 1, shape[1])))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    ranks = st.sampled_from([None, 0, 1, 2, 5, 63, 64, 65, 130])
    return shape, [leaf(block[:2], block[2:], draw(ranks), rng, dtype) for block in blocks]


def random_leaves(shape, *, ranks=(None, 0, 1, 5, 70), dtype=np.float64, seed=0, most=12):
    """Random leaves that partition a matrix, their ranks from `ranks`."""
    rng = np.random.default_rng(seed)
    blocks = cut(shape, lambda low, high: int(rng.integers(low, high + 1)), most)
    return [leaf(block[:2], block[2:], ranks[rng.integers(len(ranks))], rng, dtype) for block in blocks]


def assembled(shape, leaves, row_permutation=None, column_permutation=None, of=lambda array: array):
    """The sum of the leaves, in float64; `of` is applied to the coefficients."""
    tree_order = np.zeros(shape)
    for part in leaves:
        block = part.block
        dense = of(block.U.astype(float)) @ of(block.V.astype(float)).T if isinstance(block, LowRank) else of(block)
        tree_order[part.rows, part.columns] += dense
    matrix = np.empty(shape)
    rows = np.arange(shape[0]) if row_permutation is None else row_permutation
    columns = np.arange(shape[1]) if column_permutation is None else column_permutation
    matrix[np.ix_(rows, columns)] = tree_order
    return matrix


def permutation(size, seed=0):
    return np.random.default_rng(seed).permutation(size).astype(np.int32)


def equal_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def relative(A, B):
    """The relative Frobenius error of B."""
    A = np.asarray(A, dtype=np.float64)
    return np.linalg.norm(A - B) / np.linalg.norm(A)


LIMITS = """
import resource
from pathlib import Path
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, resource.RLIM_INFINITY))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
"""


def run_limited(imports, script, *arguments):
    """What a script prints in an interpreter of its own, with 1 GiB and 20 seconds after its imports. Linux only."""
    command = [sys.executable, "-c", imports + LIMITS + script, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def stored(leaves, precisions, groups=(0,)):
    """The leaves with precisions and groups that take turns."""
    return [
        replace(part, precision=precisions[number % len(precisions)], group=groups[number % len(groups)])
        for number, part in enumerate(leaves)
    ]


@st.composite
def stored_partitions(draw, largest=200):
    """As `partitions`; half of them with a precision and a group for each leaf."""
    shape, leaves = draw(partitions(largest))
    if draw(st.booleans()):
        return shape, leaves
    precisions, groups = st.sampled_from(list(Precision)[1:]), st.sampled_from([0, 1, 13, 64])
    return shape, [replace(part, precision=draw(precisions), group=draw(groups)) for part in leaves]


def with_entry(index, value):
    """Return a function that gives an array, or a tensor, with one entry changed."""

    def change(array):
        changed = copy.deepcopy(array)
        changed[index] = value
        return changed

    return change
