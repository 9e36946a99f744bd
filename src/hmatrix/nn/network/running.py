"""Running a network to measure it, without leaving a trace."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hmatrix.errors import DataError, HMatrixError, NetworkError

Forward = Callable[[nn.Module, Any], Any]
"""Function of a network and a batch, as the calibration data give it: the network's output."""


def run_batch(model: nn.Module, batch: Any) -> Any:
    """Run a network on a batch: a tensor, keyword arguments, or a pair of inputs and labels.

    Only the first part of a tuple or a list is used, as data loaders give (inputs, labels).
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    if isinstance(batch, Mapping):
        return model(**{key: _moved(value, device) for key, value in batch.items()})
    if isinstance(batch, tuple | list):
        if not batch:
            raise DataError("calibration", "has an empty batch", "give batches of inputs")
        batch = batch[0]
    return model(_moved(batch, device))


def check_batches(subject: str, batches: Any) -> None:
    """Refuse batches that cannot be iterated, and a tensor, whose rows would be taken for batches.

    Raises
    ------
    DataError
        If it is either.
    """
    came = f"is a {type(batches).__name__}"
    if isinstance(batches, Tensor):
        came = f"is one tensor of shape {tuple(batches.shape)}"
    elif hasattr(batches, "__iter__") or hasattr(batches, "__getitem__"):
        return
    raise DataError(subject, came, "give batches: a DataLoader, or list(tensor.split(32))")


def checked(forward: Forward, subject: str) -> Forward:
    """Return the same function, whose errors for a batch that does not go through the network name `subject`."""

    def run(model: nn.Module, batch: Any) -> Any:
        try:
            return forward(model, batch)
        except HMatrixError:
            raise
        except Exception as error:  # anything that the network's code may raise
            kind = f"a {type(batch).__name__}"
            if isinstance(batch, Tensor):
                kind = f"a tensor of shape {tuple(batch.shape)}"
            came = f"a batch, {kind}, does not go through the network ({error})"
            raise DataError(subject, came, "give batches as the network takes them, or `forward`") from error

    return run


def first_tensor(output: Any) -> Tensor:
    """Return a network's output: the first tensor of a tuple or of a mapping.

    Raises
    ------
    NetworkError
        If there is none.
    """
    while not isinstance(output, Tensor):
        if isinstance(output, Mapping):
            output = tuple(output.values())
        if not isinstance(output, tuple | list) or not output:
            came = f"its output is a {type(output).__name__}"
            raise NetworkError("network", came, "give `forward`, a function (model, batch) that returns a tensor")
        output = output[0]
    return output


def outputs(model: nn.Module, batches: list[Any], forward: Forward) -> list[Tensor]:
    """Return the network's outputs for some batches, float32 on the CPU."""
    with evaluating(model):
        return [first_tensor(forward(model, batch)).to("cpu", torch.float32) for batch in batches]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode without gradients, and restore each module's mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value
