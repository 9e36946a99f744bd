"""Predictions of a network whose studied layer is replaced: from the layer's outputs to classes."""

from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch

from hmatrix._support.typing import Floats32, Integers64
from hmatrix.errors import ArgumentError
from hmatrix.study.data.datasets import LabelledImages, read_ahead
from hmatrix.study.networks.models import LoadedNetwork

_ROWS = 1024


class Classifier(Protocol):
    """Predicts classes of a network from outputs of the studied layer."""

    def predictions(self, outputs: Floats32) -> Integers64:
        """Return the predicted classes.

        Parameters
        ----------
        outputs
            Outputs of the layer, or of its replacement, bias included; (samples, out), one row for each image of the
            data set, in its order.

        Returns
        -------
        (samples,) array of int64

        Raises
        ------
        ArgumentError
            If `outputs` has another shape, or holds NaN or infinity.
        """
        ...


@dataclass(frozen=True)
class LastLayer:
    """The studied layer's outputs are the network's: the class is that of the largest, the first of equal ones.

    Parameters
    ----------
    samples, out
        Shape of the outputs.
    """

    samples: int
    out: int

    def predictions(self, outputs: Floats32) -> Integers64:
        """Return the predicted classes, as `Classifier.predictions` says."""
        _check_outputs(outputs, (self.samples, self.out))
        return np.asarray(outputs.argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True)
class HiddenLayer:
    """The network goes on after the studied layer: it is run again, with other outputs in the layer's place.

    Right for any network, and as slow as the network.

    Parameters
    ----------
    network, images
        The network, and its images.
    batch_size
        Images that go through the network at once.
    workers
        Threads that read images.
    """

    network: LoadedNetwork
    images: LabelledImages
    batch_size: int
    workers: int

    def predictions(self, outputs: Floats32) -> Integers64:
        """Return the predicted classes, as `Classifier.predictions` says."""
        _check_outputs(outputs, (len(self.images), self.network.layer.out_features))
        classes = np.empty(len(outputs), dtype=np.int64)
        with read_ahead(self.images, range(len(outputs)), self.workers) as inputs:
            for first in range(0, len(outputs), self.batch_size):
                rows = torch.from_numpy(np.array(outputs[first : first + self.batch_size], dtype=np.float32))
                batch = torch.stack(list(islice(inputs, len(rows))))
                classes[first : first + len(rows)] = self._classify(batch, rows)
        return classes

    def _classify(self, batch: torch.Tensor, rows: torch.Tensor) -> Integers64:
        def replace(*_: Any) -> torch.Tensor:
            return rows

        hook = self.network.layer.register_forward_hook(replace)
        try:
            with torch.inference_mode():
                scores = self.network.module(batch)
        finally:
            hook.remove()
        return np.asarray(scores.numpy().argmax(axis=1), dtype=np.int64)


def _check_outputs(outputs: Floats32, shape: tuple[int, int]) -> None:
    if outputs.shape != shape:
        raise ArgumentError("outputs", f"has shape {outputs.shape}", f"give one row for each image: {shape}")
    # In pieces, so that no mask as large as the outputs is made.
    if not all(np.isfinite(outputs[first : first + _ROWS]).all() for first in range(0, len(outputs), _ROWS)):
        raise ArgumentError("outputs", "holds NaN or infinity", "check what stands in the layer's place")
