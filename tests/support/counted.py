"""A small network, and images in memory that are counted, for the tests of features."""

import numpy as np
import torch
from torch import nn

from hmatrix.errors import DataError
from hmatrix.study.data.datasets import LabelledImages
from hmatrix.study.networks.models import LoadedNetwork


def by_hand(module, layer, digest="network"):
    name = next(name for name, candidate in module.named_modules() if candidate is layer)
    return LoadedNetwork("small", module.eval().requires_grad_(False), None, name, layer, digest)


class Counted:
    """Images in memory that remember which of them were read, and fail where they are told to."""

    def __init__(self, samples=10, width=6, digest="images"):
        self.values = torch.randn((samples, width), generator=torch.Generator().manual_seed(0))
        self.labels = np.arange(samples) % 4
        self.broken = None
        self.asked = []
        self.images = LabelledImages("counted", digest, self.labels, self.read)

    def read(self, index):
        if index == self.broken:
            raise DataError(f"image {index}", "cannot be read", "copy it again")
        self.asked.append(index)
        return self.values[index]


def shards(cache):
    return sorted(cache.glob("*/*.safetensors"))


def small_network():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 4))
    return by_hand(module, module[2])
