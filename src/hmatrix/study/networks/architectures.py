"""Architectures of torchvision and timm, built with the libraries' own weights or with those of a file."""

import difflib
import re
from collections.abc import Callable
from typing import Any

import timm
import torch
import torchvision
from timm.data.config import resolve_data_config
from torch import nn

from hmatrix.errors import NetworkError
from hmatrix.study.config.settings import Network
from hmatrix.study.networks.preprocessing import Preprocessing, from_timm, from_torchvision
from hmatrix.study.networks.weights import read_state_dict, shortened

_AUXILIARY = ("aux1", "aux2", "AuxLogits")
_DENSENET_KEY = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def build(model: str, network: Network, *, bare: bool = False) -> tuple[str, nn.Module, Preprocessing]:
    """Build a network and give it its weights.

    Parameters
    ----------
    model
        A torchvision or timm name; ``torchvision:`` or ``timm:`` in front settles which.
    network
        Weights, options and preprocessing.
    bare
        Whether to leave the weights as the constructor makes them.

    Returns
    -------
    architecture : str
        ``torchvision:<name>`` or ``timm:<name>``.
    module : nn.Module
    preprocessing : Preprocessing

    Raises
    ------
    NetworkError
        If the model is unknown, refuses its options, cannot be downloaded, or does not fit the weights.
    FormatError
        If the file of weights cannot be read.
    """
    library, _, name = model.rpartition(":")
    classifiers = torchvision.models.list_models(module=torchvision.models)
    if library in ("", "torchvision") and name in classifiers:
        return f"torchvision:{name}", *_build_torchvision(name, network, bare)
    if library in ("", "timm") and timm.is_model(name):
        return f"timm:{name}", *_build_timm(name, network, bare)
    libraries = {"torchvision": classifiers, "timm": timm.list_models()}
    names = libraries.get(library) or [name for names in libraries.values() for name in names]
    close = difflib.get_close_matches(name, sorted(set(names)))
    raise NetworkError(
        f"model {model}",
        "is no image classifier of " + (library if library in libraries else "torchvision or timm"),
        f"did you mean {' or '.join(close)}?"
        if close
        else "name a torchvision or timm model, or digits; hmatrix.nn.compress takes a network of your own",
    )


def _build_torchvision(name: str, network: Network, bare: bool) -> tuple[nn.Module, Preprocessing]:
    published = torchvision.models.get_model_weights(name).DEFAULT
    state = None if network.weights is None else read_state_dict(network.weights)
    auxiliary = name in ("googlenet", "inception_v3")
    # As torchvision itself does when it loads its published weights.
    options: dict[str, Any] = {}
    if auxiliary:
        options = {"transform_input": True, "init_weights": False}
    elif name.startswith("vit_"):
        options = {"image_size": published.meta["min_size"][0]}
    options |= network.options
    if state is not None and auxiliary:
        options["aux_logits"] = any(key.startswith(_AUXILIARY) for key in state)
    if state is not None and name.startswith("densenet"):
        state = {_DENSENET_KEY.sub(r"\1\2", key): tensor for key, tensor in state.items()}

    def construct(weights: Any) -> nn.Module:
        module: nn.Module = torchvision.models.get_model(name, weights=weights, **options)
        return module

    # Constructed bare in either case, so that refused options are not taken for a failed download.
    module = _construct(network, lambda: construct(None))
    if not bare:
        module = _download(network, lambda: construct(published)) if state is None else _fill(module, state, network)
    if auxiliary:
        # They serve training only, and a file may leave them out.
        for part in _AUXILIARY:
            if hasattr(module, part):
                setattr(module, part, None)
    return module, from_torchvision(published.transforms(), network.preprocessing)


def _build_timm(name: str, network: Network, bare: bool) -> tuple[nn.Module, Preprocessing]:
    options = network.options
    state = None if network.weights is None else read_state_dict(network.weights)

    def construct(pretrained: bool) -> nn.Module:
        return timm.create_model(name, pretrained=pretrained, **options)

    module: Any = _construct(network, lambda: construct(False))
    if state is None and not bare:
        published = module.pretrained_cfg["num_classes"]
        if "num_classes" in options and options["num_classes"] != published:
            # timm would leave the head at random.
            came = f"the published weights have {published} classes, not {options['num_classes']}"
            raise NetworkError(f"network {network.model}", came, "leave num_classes out, or give --weights FILE")
    if not bare:
        module = _download(network, lambda: construct(True)) if state is None else _fill(module, state, network)
    config = resolve_data_config({}, model=module)  # type: ignore[no-untyped-call]
    return module, from_timm(config, network.preprocessing)


def _construct(network: Network, constructor: Callable[[], nn.Module]) -> nn.Module:
    try:
        return constructor()
    except Exception as error:  # anything that the library's code may raise
        given = ", ".join(f"{key}={value!r}" for key, value in network.options.items()) or "none"
        came = f"its constructor refuses the options {given} ({error})"
        raise NetworkError(f"network {network.model}", came, "change the options") from error


def _download(network: Network, constructor: Callable[[], nn.Module]) -> nn.Module:
    try:
        return constructor()
    except Exception as error:  # each library has its own errors of the network, of the disk and of the file
        came = f"its published weights cannot be loaded ({type(error).__name__}: {error})"
        mend = "connect to the internet, or give the weights with --weights FILE"
        raise NetworkError(f"network {network.model}", came, mend) from error


def _fill(module: nn.Module, state: dict[str, torch.Tensor], network: Network) -> nn.Module:
    try:
        module.load_state_dict(state)
        return module
    except Exception as error:  # RuntimeError, or what an architecture's own hook raises
        own = module.state_dict()
        shapes = [
            f"{key} is {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ]
        differences = {
            "missing": [key for key in own if key not in state],
            "unexpected": [key for key in state if key not in own],
            "of another shape": shapes,
        }
        found = [f"{what}: {shortened(keys)}" for what, keys in differences.items() if keys]
        raise NetworkError(
            f"weights {network.weights}",
            f"do not fit network {network.model} ({'; '.join(found) or error})",
            "name the model that they belong to, with the options that it was built with",
        ) from error
