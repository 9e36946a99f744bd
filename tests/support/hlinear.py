"""Layers with an H-matrix, and what they are compared with."""

import numpy as np
import torch
from matrices import assembled, permutation, random_leaves

import hmatrix as hm
from hmatrix.nn import HLinear

SHAPE = m, n = 40, 30
TYPES = {torch.float32: np.float32, torch.float64: np.float64}
PARTS = {"leaves", "words", "quantized", "row_permutation", "column_permutation"}


def make(dtype=np.float64, seed=0, permuted=True):
    """A random H-matrix and the same as a tensor."""
    leaves = random_leaves(SHAPE, dtype=dtype, seed=seed, ranks=(None, 0, 1, 3))
    permutations = [permutation(size, seed=seed) for size in SHAPE] if permuted else [None, None]
    H = hm.HMatrix.from_leaves(SHAPE, leaves, *permutations)
    return H, torch.from_numpy(assembled(SHAPE, leaves, *permutations).astype(dtype))


def random_tensor(*shape, dtype=torch.float64, seed=0, grad=False):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_(grad)


def linear_of(weight, bias):
    linear = torch.nn.Linear(n, m, bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
    return linear


def state_of(seed=0, dtype=np.float64, permuted=True, bias=None):
    layer = HLinear.from_matrix(make(dtype, seed, permuted)[0], bias)
    return {name: tensor.clone() for name, tensor in layer.state_dict().items()}
