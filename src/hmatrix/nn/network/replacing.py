"""Layers of a network replaced, in a copy of it or in place."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from hmatrix.errors import ArgumentError
from hmatrix.nn.layers.weight import HWeight
from hmatrix.nn.network.fitting import Fitted
from hmatrix.nn.network.targets import Target

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)

Successors = dict[nn.Module, nn.Module]


def successors(target: Target, fitted: Fitted) -> Successors:
    """Make the layers that take the places of a target's layers, sharing one weight."""
    weight = HWeight(fitted.matrix)
    made: Successors = {}
    for name, module in target.layers.items():
        if module in made:
            continue
        successor = target.kinds[name].successor(module, weight)
        if hasattr(successor, "bias") and fitted.bias_correction.any():
            _correct(successor, torch.from_numpy(fitted.bias_correction))
        own = next(module.parameters(recurse=False))
        half = own.dtype in (torch.float16, torch.bfloat16)
        made[module] = successor.to(device=own.device, dtype=own.dtype if half else None).train(module.training)
        bias = getattr(module, "bias", None)
        for parameter in successor.parameters(recurse=False):
            parameter.requires_grad_(own.requires_grad if bias is None else bias.requires_grad)
        for hooks in _HOOKS:
            getattr(successor, hooks).update(getattr(module, hooks))
    return made


def replaced(model: nn.Module, made: Successors) -> nn.Module:
    """Return a copy of a network with successors in the places of its layers; the network itself may be one."""
    # What is replaced is not copied at all, and wherever the network refers to it the successor stands.
    memory: dict[int, object] = {id(module): successor for module, successor in made.items()}
    return copy.deepcopy(model, memory)


@contextmanager
def replacing(model: nn.Module, made: Successors) -> Iterator[None]:
    """Replace layers in place; if what follows fails, they are put back.

    Raises
    ------
    ArgumentError
        If the network is itself a layer that is replaced.
    """
    if model in made:
        raise ArgumentError("inplace", "was asked for, but the network is itself the layer", "leave inplace out")
    exchange(model, made)
    try:
        yield
    except BaseException:
        exchange(model, {successor: module for module, successor in made.items()})
        raise


def exchange(model: nn.Module, made: Mapping[nn.Module, nn.Module]) -> None:
    """Put modules in the places of others, all of them, inside of a network."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and child in made:
                parent._modules[name] = made[child]


def _correct(layer: nn.Module, correction: torch.Tensor) -> None:
    bias = layer._parameters["bias"]
    if bias is None:
        layer.register_parameter("bias", nn.Parameter(correction))
    else:
        with torch.no_grad():
            bias.add_(correction)
