"""A whole network with its calibration data and its judge."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from hmatrix._support.typing import Scores

HELD_OUT = 8
"""Number of samples of the calibration data of which one is held out from distillation."""


@dataclass(frozen=True)
class Judge:
    """A judge of networks, by the scores of samples.

    Parameters
    ----------
    name
        Name of the score.
    scores
        Function of a network that returns one score a sample, ``(samples,)``, in points of 100.
    """

    name: str
    scores: Callable[[nn.Module], Scores]


@dataclass(frozen=True)
class Whole:
    """A network, ready to be compressed.

    Parameters
    ----------
    module
        The network in evaluation mode.
    architecture
        Description of how to build it, plain values.
    calibration
        Batches of inputs, none of which the judge uses, as often as they are asked for; ``None`` without data.
    training, held_out
        Two parts of the calibration data, for distillation: batches in a new order each time, of images that are
        cropped and mirrored at random; and batches that measure the network. ``None`` without data.
    judge
        Judge of the network; ``None`` without data.
    forward
        Function of the network and a batch that returns the output that matters.
    """

    module: nn.Module
    architecture: Mapping[str, Any]
    calibration: Iterable[Any] | None
    training: Iterable[Any] | None
    held_out: Iterable[Any] | None
    judge: Judge | None
    forward: Callable[[nn.Module, Any], Any]
