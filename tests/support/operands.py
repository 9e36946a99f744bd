"""H-matrices and their vectors, for the tests of products in torch."""

import torch
from matrices import permutation, random_leaves

import hmatrix as hm

m, n = 40, 30


def matrix(precision="float32", activations="exact", seed=0, shape=(m, n), permuted=True):
    leaves = random_leaves(shape, seed=seed, ranks=(None, 0, 1, 3))
    permutations = [permutation(size, seed=seed) if permuted else None for size in shape]
    return hm.HMatrix.from_leaves(shape, leaves, *permutations).astype(precision, activations=activations)


def batch(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def dense(layer):
    return torch.from_numpy(layer.matrix.to_dense())
