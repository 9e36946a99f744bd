"""Small networks that are compressed, and their inputs."""

import copy
import itertools

import numpy as np
import torch
from torch import nn

import hmatrix.nn as hnn
from hmatrix.nn.layers.trainable_factor import TrainableFactor


class Tied(nn.Module):
    """Embedding, convolution, normalisation and linear layers; the output layer has the embedding's weight."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(60, 24, padding_idx=0)
        self.conv = nn.Conv2d(1, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.hidden = nn.Linear(12 * 24, 48)
        self.last = nn.Linear(48, 24)
        self.out = nn.Linear(24, 60, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, indices):
        x = self.norm(self.conv(self.embedding(indices)[:, None])).relu()
        return self.out(self.last(self.hidden(x.mean(dim=2).flatten(1)).relu()))


def small(*sizes):
    torch.manual_seed(3)
    layers = [module for m, n in itertools.pairwise(sizes) for module in (nn.Linear(m, n), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).eval()


def vectors(n, batches=3, size=16):
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(size, n, generator=generator) for _ in range(batches)]


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def tied_network():
    torch.manual_seed(1)
    return Tied().eval()


def token_batches():
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(0, 60, (8, 6), generator=generator) for _ in range(4)]


def codes_of(module):
    """All integer codes of a network, one after another."""
    factors = [part for part in hnn.trainable(copy.deepcopy(module)).modules() if isinstance(part, TrainableFactor)]
    return np.concatenate([factor.coefficients().units.numpy().ravel() for factor in factors])
