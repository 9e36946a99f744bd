"""Compressed networks in files, with how to build them."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

import hmatrix.nn as hnn
from hmatrix._support.plain_values import PlainValues
from hmatrix.errors import FormatError
from hmatrix.study.config.choices import Choices, choose
from hmatrix.study.config.settings import Interpolation, Network, PreprocessingOverride
from hmatrix.study.networks.models import DIGITS, ImageNetwork, load_network
from hmatrix.study.whole.judged import Judge, Whole
from hmatrix.study.whole.whole_images import bare_classifier, judge_of, open_classifier, override_of
from hmatrix.study.whole.whole_text import bare_encoder, open_encoder

Built = TypeVar("Built")


def load_whole(path: Path) -> ImageNetwork:
    """Load a network that ``hmatrix compress`` wrote.

    Raises
    ------
    FormatError
        If the file cannot be read, or does not tell how to build its network.
    NetworkError
        If the network cannot be built.
    """
    architecture = architecture_of(path)
    if "transformers" in architecture:
        encoder = _without_weights(lambda: bare_encoder(architecture), lambda module: module)
        return ImageNetwork(architecture["transformers"], hnn.load(path, encoder), None)
    network = _without_weights(lambda: bare_classifier(architecture), lambda network: network.module)
    return ImageNetwork(network.name, hnn.load(path, network.module), network.preprocessing)


def reopen(path: Path, data: str | None, weights: Path | None, cache: Path) -> Whole:
    """Load the original of a network that ``hmatrix compress`` wrote, with its data.

    Raises
    ------
    HMatrixError
        If the file, the original or the data cannot be used.
    """
    architecture = architecture_of(path)
    if "transformers" in architecture:
        return open_encoder(Path(architecture["transformers"]), None if data is None else Path(data))
    study = choose(Choices(architecture["model"], data=data), cache)
    return open_classifier(_network_of(architecture, weights), study.data)


def architecture_of(path: Path) -> dict[str, Any]:
    """Return how to build the network of a file, as ``hmatrix compress`` wrote it.

    Raises
    ------
    FormatError
        If the file cannot be read, or does not tell, or what it tells is damaged.
    """
    architecture = hnn.read_header(path).architecture
    if not {"model", "transformers"} & architecture.keys():
        came, mend = "does not tell how to build its network", "load it by hmatrix.nn.load, or write it by the command"
        raise FormatError(f"file {path}", came, mend)
    values = PlainValues(f"file {path}", architecture, "write it again by hmatrix compress", "architecture")
    if "transformers" in architecture:
        values.text("transformers")
        return architecture
    values.text("model")
    values.part("options")
    if values.get("preprocessing") is not None:
        _check_preprocessing(values.part("preprocessing"))
    return architecture


def _check_preprocessing(values: PlainValues) -> None:
    values.allow([field.name for field in fields(PreprocessingOverride)])
    for key in ("resize", "crop"):
        if type(values.get(key)) is not int or values.get(key) < 1:
            values.refuse(key, "a number of pixels")
    for key in ("mean", "std"):
        numbers = values.get(key)
        if not isinstance(numbers, list) or len(numbers) != 3 or not all(type(n) in (int, float) for n in numbers):
            values.refuse(key, "three numbers")
    if values.get("interpolation") not in list(Interpolation):
        values.refuse("interpolation", f"one of {', '.join(Interpolation)}")


def _network_of(architecture: Mapping[str, Any], weights: Path | None) -> Network:
    name, options = architecture["model"], architecture["options"]
    return Network(name, weights=weights, options=options, preprocessing=override_of(architecture))


def _without_weights(build: Callable[[], Built], module_of: Callable[[Built], nn.Module]) -> Built:
    """Build a network without memory for its weights, where that is possible."""
    with torch.device("meta"):
        built = build()
    module = module_of(built)
    kept = module.state_dict().keys()
    # Buffers that no file holds are what the constructor computes.
    return built if all(name in kept for name, _ in module.named_buffers()) else build()


def original_of(
    path: Path, network: ImageNetwork, data: str | None, weights: Path | None, cache: Path
) -> tuple[Judge, nn.Module | None] | None:
    """Return the judge of a loaded network, and the original where it can be had; ``None`` without data.

    Raises
    ------
    HMatrixError
        If the data or the original cannot be used.
    """
    architecture = architecture_of(path)
    if "transformers" in architecture:
        whole = open_encoder(Path(architecture["transformers"]), None if data is None else Path(data))
        return None if whole.judge is None else (whole.judge, whole.module)
    name = architecture["model"]
    study = choose(Choices(name, data=data), cache)
    if study.data is None:
        return None
    original = None
    if weights is not None or name == DIGITS:
        original = load_network(_network_of(architecture, weights))
    return judge_of(network, study.data), None if original is None else original.module
