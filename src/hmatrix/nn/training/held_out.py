"""The best of several networks on batches that none of them is trained on."""

import copy
import math
import time
from typing import Any

from torch import Tensor, nn

from hmatrix.errors import DataError, NetworkError
from hmatrix.nn.network.running import Forward, outputs
from hmatrix.nn.training.distillation import Loss, Measurement


class HeldOut:
    """The loss of a network's outputs on held-out batches."""

    def __init__(self, teacher: nn.Module, batches: list[Any], forward: Forward, loss: Loss) -> None:
        if not batches:
            raise DataError("held_out", "has no batches", "give batches of inputs, more than one in `data`")
        self._batches = batches
        self._forward = forward
        self._loss = loss
        self._wanted = outputs(teacher, batches, forward)

    def __call__(self, model: nn.Module) -> float:
        given = outputs(model, self._batches, self._forward)
        losses = [float(self._loss(*compared(*pair))) for pair in zip(given, self._wanted, strict=True)]
        return sum(losses) / len(losses)


class Best:
    """The network of the least loss so far, and all that were measured."""

    def __init__(self, model: nn.Module, held_out: HeldOut, start: float) -> None:
        self._given = model
        self.model = model
        self._held_out = held_out
        self._start = start
        self.given = self.loss = held_out(model)
        if not math.isfinite(self.loss):
            raise NetworkError("model", f"its loss on held-out data is {self.loss}", "use an intact network and inputs")
        self.measurements: list[Measurement] = []

    def offer(self, model: nn.Module, steps: int) -> None:
        """Measure a network, and keep it if it is better."""
        loss = self._held_out(model)
        self.measurements.append(Measurement(steps, time.perf_counter() - self._start, loss))
        if loss < self.loss:
            self.model, self.loss = model, loss

    def copied(self) -> nn.Module:
        """Return a copy of the best network, in the modes of the one that was given."""
        model = copy.deepcopy(self.model)
        for name, module in self._given.named_modules():
            model.get_submodule(name).training = module.training
        for name, parameter in self._given.named_parameters():
            model.get_parameter(name).requires_grad_(parameter.requires_grad)
        return model


def compared(given: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs of a network and of its teacher, of one type.

    Raises
    ------
    NetworkError
        If they have different shapes.
    """
    if given.shape != wanted.shape:
        came = f"its output has the shape {tuple(wanted.shape)}, that of the model {tuple(given.shape)}"
        raise NetworkError("teacher", came, "give the network that was compressed, as it was before")
    return given, wanted.to(given)
