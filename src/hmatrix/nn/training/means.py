"""Biases with which each layer's output has the mean that it has in the original network.

The error of one layer is noise to those that follow, and a rectifier makes a mean of noise. A layer's own error has no
mean on the calibration data; the error of its input has one, and it grows from layer to layer.

References
----------
M. Nagel et al., *Data-free quantization through weight equalization and bias correction*, ICCV 2019, arXiv:1906.04721
(the empirical correction).
"""

from collections import deque
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from hmatrix.errors import NetworkError
from hmatrix.nn.layers.conv import HConv2d
from hmatrix.nn.network.present import Present
from hmatrix.nn.network.running import Forward, evaluating
from hmatrix.nn.training.distillation import Trained
from hmatrix.nn.training.matching import Pair, watching


def match_means(pair: Pair, batches: Iterable[Any], forward: Forward, trained: Trained) -> None:
    """Correct the biases of the student's layers by the mean errors of their outputs.

    In a single pass: each layer is corrected by all batches so far, and the next layers get its corrected output.

    Parameters
    ----------
    pair
        The student, which is changed, and its teacher.
    batches
        Batches of inputs.
    forward
        Function that runs a network on a batch.
    trained
        Parameters that may change: it says which biases do.

    Raises
    ------
    NetworkError
        If the student calls a layer more often than the teacher.
    """
    layers = {name: module for name, module in pair.student_layers.items() if _may_change(module, trained)}
    if not layers:
        return
    teacher_layers = {name: pair.teacher_layers[name] for name in layers}
    drifts = {name: _Drift(name, -3 if isinstance(module, HConv2d) else -1) for name, module in layers.items()}
    present = Present()
    for batch in batches:
        present.begin(batch)
        for drift in drifts.values():
            drift.wanted.clear()
        with evaluating(pair.teacher), watching(teacher_layers, lambda name, y: drifts[name].want(y, present)):
            forward(pair.teacher, batch)
        with evaluating(pair.student), watching(layers, lambda name, y: drifts[name].correct(y, present)):
            forward(pair.student, batch)
    with torch.no_grad():
        for name, module in layers.items():
            module.get_parameter("bias").add_(drifts[name].mean)


class _Drift:
    """The mean error of a layer's output in each channel ``(m,)``, over the calls so far."""

    def __init__(self, name: str, channels: int) -> None:
        self.mean = torch.zeros(())
        self.wanted: deque[Tensor] = deque()
        self._calls = 0
        self._name = name
        self._channels = channels

    def want(self, output: Tensor, present: Present) -> None:
        """Note the output of the teacher's layer."""
        self.wanted.append(self._mean_of(output, present))

    def correct(self, output: Tensor, present: Present) -> Tensor:
        """Compare with the output of the student's layer, and return that output corrected."""
        if not self.wanted:
            came = f"calls layer {self._name} less often than the model"
            raise NetworkError("teacher", came, "give the network that was compressed, as it was before")
        self._calls += 1
        self.mean = self.mean + (self.wanted.popleft() - self._mean_of(output, present) - self.mean) / self._calls
        shape = [1] * output.dim()
        shape[self._channels] = -1
        return output + self.mean.to(output).reshape(shape)

    def _mean_of(self, output: Tensor, present: Present) -> Tensor:
        given = present.among(output)
        channels = self._channels % given.dim()
        return given.float().mean(dim=[axis for axis in range(given.dim()) if axis != channels])


def _may_change(module: nn.Module, trained: Trained) -> bool:
    bias = getattr(module, "bias", None)
    return isinstance(bias, nn.Parameter) and trained.includes(bias)
