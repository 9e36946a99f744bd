"""The embedded network: a perceptron that reads scikit-learn's bundled digits, trained on the spot.

A study of it needs no download: 1,797 images of 8 x 8 pixels come with scikit-learn, half of them train
the network ``64 -> 1024 -> 1024 -> 10`` in seconds, the other half is held out. Under a truncated SVD of
the hidden layer the accuracy falls from about 98 % to chance between rank 10 and rank 0.
"""

from collections import OrderedDict
from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from tqdm import tqdm

from hmatrix._support.machine import threads
from hmatrix._support.typing import Floats32, Integers64, Positions

PIXELS = 64
"""Values of one image, row by row, in [0, 1]."""

LAYER = "fc2"
"""The hidden 1024 x 1024 layer, the largest one."""

_SEED = 0
_HIDDEN = 1024
_CLASSES = 10
_EPOCHS = 20
_BATCH = 64
_LEARNING_RATE = 1e-3
_WEIGHT_DECAY = 0.1
_NOISE = 0.2
# A hidden layer that starts near zero consists of what it has learned rather than of its random
# start, whose flat spectrum would hide what a low rank costs.
_HIDDEN_GAIN = 0.5


@cache
def _halves() -> tuple[Floats32, Integers64, Positions, Positions]:
    """Return images (1797, 64), labels (1797,), and the rows of the training and of the held-out half."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(_SEED).permutation(len(pixels))
    half = len(pixels) // 2
    images = (pixels / 16).astype(np.float32)
    return images, labels.astype(np.int64), np.sort(order[:half]), np.sort(order[half:])


def _half(which: int) -> tuple[torch.Tensor, Integers64]:
    images, labels, *rows = _halves()
    return torch.from_numpy(images[rows[which]]), labels[rows[which]]


def training() -> tuple[torch.Tensor, Integers64]:
    """Return the images (898, 64), float32 in [0, 1], and labels (898,) that the network is trained on."""
    return _half(0)


def held_out() -> tuple[torch.Tensor, Integers64]:
    """Return the images (899, 64), float32 in [0, 1], and labels (899,) that the network never sees."""
    return _half(1)


def train() -> nn.Sequential:
    """Train the network on half of the digits.

    The same machine gives the same weights each time; the global random state stays as it is.

    Returns
    -------
    nn.Sequential
        ``fc1``, ``relu1``, ``fc2``, ``relu2``, ``fc3``, in evaluation mode; ``(batch, 64)`` to ``(batch, 10)``.
    """
    # The order of additions depends on the number of threads.
    with threads(1), torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(_SEED)
        return _fit(*training())


def untrained() -> nn.Sequential:
    """Return the network as it is before it is trained."""
    return nn.Sequential(
        OrderedDict(
            fc1=nn.Linear(PIXELS, _HIDDEN),
            relu1=nn.ReLU(),
            fc2=nn.Linear(_HIDDEN, _HIDDEN),
            relu2=nn.ReLU(),
            fc3=nn.Linear(_HIDDEN, _CLASSES),
        )
    )


def _fit(images: torch.Tensor, labels: Integers64) -> nn.Sequential:
    network = untrained()
    with torch.no_grad():
        network.get_submodule(LAYER).get_parameter("weight").mul_(_HIDDEN_GAIN)
    targets = torch.from_numpy(labels)
    steps = _EPOCHS * -(-len(images) // _BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in tqdm(range(_EPOCHS), desc="training on digits", unit="epoch", delay=2):
        for rows in torch.split(torch.randperm(len(images)), _BATCH):
            noisy = images[rows] + _NOISE * torch.randn(len(rows), PIXELS)
            loss = nn.functional.cross_entropy(network(noisy), targets[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network.requires_grad_(False).eval()
