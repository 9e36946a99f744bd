"""Blueprints: how to build the layers of a compressed network before the parts of their H-matrices are read."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import nn

from hmatrix._support.plain_values import PlainValues
from hmatrix.errors import NetworkError
from hmatrix.nn.layers.conv import HConv2d
from hmatrix.nn.layers.embedding import HEmbedding
from hmatrix.nn.layers.linear import HLinear
from hmatrix.nn.layers.progressive import ProgressiveLinear
from hmatrix.nn.layers.weight import HWeight
from hmatrix.nn.network.kinds import Kind, kind_of, shape_of
from hmatrix.nn.network.replacing import exchange

_LAYERS = (HLinear, HConv2d, HEmbedding)


@dataclass(frozen=True)
class Blueprint:
    """The facts about one layer that its state dict does not hold.

    Parameters
    ----------
    weight
        The layer that owns its weight; layers of one owner share the weight.
    shape
        Shape of the weight, ``(m, n)``.
    has_bias
        Whether it has a bias; the correction of a mean error may have added one.
    zero_padding
        Whether it is an embedding whose row of padding is zero.
    """

    weight: str
    shape: tuple[int, int]
    has_bias: bool
    zero_padding: bool

    @classmethod
    def of_plain(cls, entry: PlainValues) -> Self:
        """Make one of the plain values that `dataclasses.asdict` gives.

        Raises
        ------
        FormatError
            If they are others.
        """
        return cls(entry.text("weight"), entry.shape("shape"), entry.flag("has_bias"), entry.flag("zero_padding"))


def read_blueprints(layers: PlainValues, *, others: Collection[str] = ()) -> dict[str, Blueprint]:
    """Return blueprints by the names of layers.

    Parameters
    ----------
    layers
        Their plain values by name.
    others
        Keys that these have beside those of blueprints.

    Raises
    ------
    FormatError
        If they are damaged, or a layer shares the weight of one that is not there or has another shape.
    """
    found = {}
    known = {*(field.name for field in fields(Blueprint)), *others}
    for name, entry in layers.parts().items():
        entry.allow(known)
        found[name] = Blueprint.of_plain(entry)
    for name, blueprint in found.items():
        owner = found.get(blueprint.weight)
        if owner is None or owner.weight != blueprint.weight or owner.shape != blueprint.shape:
            layers.part(name).refuse("weight", f"the name of a layer of {blueprint.shape} with a weight of its own")
    return found


def blueprints_of(model: nn.Module) -> dict[str, Blueprint]:
    """Return the blueprints of all layers with H-matrices, by name."""
    owners: dict[int, str] = {}
    found = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, _LAYERS):
            owner = owners.setdefault(id(module.weight), name)
            has_bias = getattr(module, "bias", None) is not None
            found[name] = Blueprint(owner, module.weight.shape, has_bias, getattr(module, "zero_padding", False))
    return found


def build(
    model: nn.Module,
    blueprints: Mapping[str, Blueprint],
    make_weight: Callable[[str, Blueprint], HWeight],
    *,
    heads: Mapping[str, tuple[int, int]] | None = None,
    mend: str,
) -> nn.Module:
    """Put layers of H-matrices in the places that blueprints name.

    Parameters
    ----------
    model
        The network that was compressed, as it was before, on any device. It is changed.
    blueprints
        Blueprints of the layers, by name.
    make_weight
        Function of the name of the first layer with a weight, and its blueprint, that returns that weight.
    heads
        The shapes of the layers that are progressive heads, by name.
    mend
        Remedy that a message names if the network is another one.

    Returns
    -------
    nn.Module
        The network; `model` itself unless that is a single layer.

    Raises
    ------
    NetworkError
        If a layer is not there, or has another shape.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    weights: dict[str, HWeight] = {}
    made: dict[nn.Module, nn.Module] = {}
    for name, shape in (heads or {}).items():
        made[_found(modules, name, shape, mend)[0]] = ProgressiveLinear.skeleton(shape)
    for name, blueprint in blueprints.items():
        module, kind = _found(modules, name, blueprint.shape, mend)
        if blueprint.weight not in weights:
            weights[blueprint.weight] = make_weight(name, blueprint)
        weight, own = weights[blueprint.weight], module.get_parameter("weight")
        successor = kind.successor(module, weight)
        if hasattr(successor, "bias"):
            bias = torch.empty(blueprint.shape[0], dtype=weight.dtype, device=own.device)
            successor.register_parameter("bias", nn.Parameter(bias) if blueprint.has_bias else None)
        if isinstance(successor, HEmbedding):
            successor.zero_padding = blueprint.zero_padding
        half = own.dtype in (torch.float16, torch.bfloat16)
        made[module] = successor.to(own.dtype) if half else successor
    root = made.get(model, model)
    exchange(model, made)
    return root


def _found(modules: Mapping[str, nn.Module], name: str, shape: tuple[int, int], mend: str) -> tuple[nn.Module, Kind]:
    """Return the layer of the original network that another one replaces."""
    module = modules.get(name)
    kind = None if module is None else kind_of(module)
    found = None if module is None or kind is None else shape_of(module)
    if module is None or kind is None or found != shape:
        came = "there is none" if module is None else f"is a {type(module).__name__}, of {found}"
        raise NetworkError(f"layer {name or '(network)'} of {shape}", came, mend)
    return module, kind


def heads_of(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return the shapes of all progressive heads, by name."""
    modules = model.named_modules(remove_duplicate=False)
    return {name: module.shape for name, module in modules if isinstance(module, ProgressiveLinear)}


def weights_of(model: nn.Module) -> Iterable[tuple[str, HWeight]]:
    """Return all packed weights of a network with the names of the first layers that have them."""
    for name, module in model.named_modules():
        if isinstance(module, HWeight):
            yield name.rpartition(".")[0], module
