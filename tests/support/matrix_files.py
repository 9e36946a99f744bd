"""H-matrices in files, by hand, for the tests of reading and writing."""

import json

import numpy as np
from matrices import equal_bits, permutation, random_leaves
from safetensors.numpy import save_file

import hmatrix as hm
from hmatrix.packed.packing import PackedLeaf

SHAPE = 90, 70
ARRAYS = ("leaves", "data", "row_permutation", "column_permutation")


def same(a, b):
    """Whether two H-matrices have the same packed form."""
    a, b = a.pack(), b.pack()
    for name in ARRAYS:
        ours, theirs = getattr(a, name), getattr(b, name)
        if (ours is None) != (theirs is None) or (ours is not None and not equal_bits(ours, theirs)):
            return False
    return (a.shape, a.quantized) == (b.shape, b.quantized)


def arrays_of(H):
    packed = H.pack()
    return {name: getattr(packed, name) for name in ARRAYS}


def write(path, arrays, header=None, **metadata):
    """Write a file by hand."""
    header = json.dumps({"version": 1, "shape": SHAPE, "quantized": False}) if header is None else header
    save_file(arrays, path, metadata={"hmatrix": header, **metadata})


def mixed(activations):
    """Leaves of every precision but float64."""
    kinds = list(hm.Precision)[1:]
    leaves = [
        PackedLeaf(leaf.rows, leaf.columns, leaf.block, kinds[number % len(kinds)], 16 * (number % 2))
        for number, leaf in enumerate(random_leaves(SHAPE, seed=6, dtype=np.float32))
    ]
    assert len(leaves) >= len(kinds)
    return hm.HMatrix.from_leaves(SHAPE, leaves, permutation(90), permutation(70), activations=activations)


def stored_matrix():
    return hm.HMatrix.from_leaves(SHAPE, random_leaves(SHAPE, seed=5), permutation(90), permutation(70))
