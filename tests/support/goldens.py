"""What release 0.1.0 wrote, and how it is compared: shared by `golden/write.py` and the test that opens the files."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

import hmatrix as hm
import hmatrix.nn as hnn

FOLDER = Path(__file__).parents[1] / "golden" / "v0.1.0"
M, N = 40, 36
PRECISIONS = [member.name.lower() for member in hm.Precision]
MATRICES = [*PRECISIONS, "mixture", "int8-activations", "permuted"]
HEADS = ["low-rank", "clusters", "coarse-matrix", "rigorous"]
BUDGET = hm.Budget(storage=0.3)
IDS = torch.arange(20).reshape(2, 10)


def inputs():
    """Inputs of products: multiples of 1/8, which every precision holds exactly."""
    return np.random.default_rng(5).integers(-20, 20, (6, N)).astype(np.float32) / 8


def network():
    """The network whose compressed form is a golden file."""
    torch.manual_seed(6)
    layers = [nn.Embedding(30, 24), nn.Unflatten(1, (1, 6)), nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(352, 30)]
    return nn.Sequential(*layers).eval()


def tokens():
    """Inputs of the network."""
    return torch.arange(48).reshape(8, 6) * 7 % 30


def calibration():
    """Batches that tell which errors of its weights count."""
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(0, 30, (8, 6), generator=generator) for _ in range(3)]


def compressed(cache):
    """Compress the network; what is computed for each layer is kept in a folder."""
    return hnn.compress(network(), BUDGET, calibration=calibration(), cache=cache, progress=False)


def strategies():
    """Objects that are equal where their parts are."""
    return {
        "budget": BUDGET,
        "truncation": hm.Truncation(max_rank=3),
        "splitter": hm.Cardinality(10),
        "admissibility": hm.Strong(1.5),
        "compressor": hm.TruncatedSVD(),
        "aca": hm.PartialACA(),
        "coordinates": hm.ScaledIndex(),
        "rule": hm.Margin(),
        "cost": hm.Cost(),
        "precision": hm.Precision.TRELLIS3,
        "activations": hm.Activations.INT8,
        "settings": hnn.LayerSettings(budget=BUDGET, activations=hm.Activations.EXACT),
    }
