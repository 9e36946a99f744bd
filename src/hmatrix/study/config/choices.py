"""Studies made of a user's choices on the command line."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from hmatrix._support.file_names import file_name
from hmatrix.errors import ArgumentError
from hmatrix.study.config import strategies
from hmatrix.study.config.settings import (
    Data,
    DigitsData,
    FolderData,
    ImagenetteData,
    Method,
    Network,
    Structure,
    Study,
    Timing,
)
from hmatrix.study.config.studyfile import read_study

T = TypeVar("T", Network, Structure, Study, Timing)

DIGITS_RANKS = (1, 2, 3, 5, 10, 20, 30, 40, 50, 60, 80, 100, 120)
"""Ten digits need few ranks, so the embedded study looks closer at those."""

MATRIX_SUFFIXES = {".safetensors", ".pt", ".pth", ".bin"}


@dataclass(frozen=True)
class Choices:
    """Options of the command; ``None`` keeps the study's own."""

    model: str | None = None
    weights: Path | None = None
    data: str | None = None
    layer: str | None = None
    methods: tuple[str, ...] | None = None
    ranks: tuple[int, ...] | None = None
    leaf_size: int | None = None
    eta: float | None = None
    products: int | None = None
    threads: int | None = None
    output: Path | None = None


def choose(choices: Choices, cache: Path) -> Study:
    """Return the study that `choices` ask for; Imagenette is downloaded into `cache`.

    Raises
    ------
    ArgumentError
        If an option is out of range, or does not go with the others.
    StudyError
        If the study file is malformed.
    """
    study = _base(choices.model)
    network_changes = {"weights": choices.weights, "layer": choices.layer}
    if any(value is not None for value in network_changes.values()):
        if len(study.networks) != 1:
            raise ArgumentError(
                "--weights, --layer", f"the study has {len(study.networks)} networks", "name them in its file"
            )
        study = replace(study, networks=(_changed(study.networks[0], network_changes),))
    structure = _changed(study.structure, {"leaf_size": choices.leaf_size, "eta": choices.eta})
    strategies.admissibility(structure)  # raises for an eta out of range
    changes = {
        "data": None if choices.data is None else _data(choices.data, cache),
        "methods": None if choices.methods is None else tuple(_method(name) for name in choices.methods),
        "ranks": choices.ranks,
        "structure": structure,
        "timing": _changed(study.timing, {"products": choices.products, "threads": choices.threads}),
        "output": choices.output,
    }
    study = _changed(study, changes)
    if study.data is not None and any(network.model is None for network in study.networks):
        raise ArgumentError("--data", "was given with a lone matrix, which makes no predictions", "leave it out")
    return study


def _base(model: str | None) -> Study:
    """Return the study that `model` stands for: the embedded one, a file's, or that of one network or matrix."""
    name = "digits" if model is None else model
    if name.endswith(".toml"):
        return read_study(Path(name))
    if Path(name).suffix in MATRIX_SUFFIXES:
        stem = Path(name).stem
        return Study(stem, (Network(None, weights=Path(name)),), data=None, output=Path("results") / file_name(stem))
    output = Path("results") / file_name(name)
    if name == "digits":
        return Study(name, (Network(name),), data=DigitsData(), ranks=DIGITS_RANKS, output=output)
    return Study(name, (Network(name),), data=None, output=output)


def _data(name: str, cache: Path) -> Data:
    match name:
        case "digits":
            return DigitsData()
        case "imagenette":
            return ImagenetteData(cache)
        case _:
            return FolderData(Path(name))


def _method(name: str) -> Method:
    allowed = [method for method in Method if method in strategies.COMPRESSORS]
    if name not in allowed:
        raise ArgumentError("--methods", f"got {name!r}", f"give some of {', '.join(allowed)}")
    return Method(name)


def _changed(value: T, changes: Mapping[str, Any]) -> T:
    """Return `value` with the changes that are not ``None``."""
    return replace(value, **{name: change for name, change in changes.items() if change is not None})
