"""Heads to measure progressive heads on, with inputs that calibrate them and inputs that do not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torchvision.transforms import functional as transforms

from hmatrix._support.typing import FloatArray, Integers64, Positions
from hmatrix.errors import DataError
from hmatrix.study.config.studyfile import read_study
from hmatrix.study.data.datasets import LabelledImages, check_data, open_data
from hmatrix.study.data.features import cached_features
from hmatrix.study.networks import digits
from hmatrix.study.networks.models import LoadedNetwork, load_network

NOISE, BLUR = (0.5, 1.0), (2.0, 5.0)
"""Standard deviations: of noise in units of normalised pixels, of blur in pixels."""


@dataclass(frozen=True, eq=False)
class HeadSubject:
    """A head, inputs that calibrate it, and inputs that it is evaluated on, with their labels where there are any."""

    name: str
    weight: FloatArray
    bias: FloatArray
    calibration: FloatArray
    inputs: FloatArray
    labels: Integers64 | None


def saved_subject(path: Path) -> HeadSubject:
    """Return the head and the features in a file."""
    with np.load(path) as file:
        X, labels, weight, bias = (file[name] for name in ("X", "labels", "weight", "bias"))
    even = labels % 2 == 0
    return HeadSubject(path.stem, weight, bias, X[even], X[~even], labels[~even])


def study_subject(study: Path, cache: Path) -> HeadSubject:
    """Return the head of a study's network on its images."""
    network, images = _opened(study)
    X = cached_features(network, images, cache).inputs
    even = images.labels % 2 == 0
    weight, bias = network.layer.weight.numpy(), network.layer.bias.numpy()
    return HeadSubject(network.name, np.ascontiguousarray(weight), bias, X[even], X[~even], images.labels[~even])


def corrupted_subjects(study: Path, cache: Path, count: int) -> Iterator[HeadSubject]:
    """Yield the same head on some images of the odd classes, as they are and corrupted."""
    network, images = _opened(study)
    odd = np.flatnonzero(images.labels % 2 == 1)
    chosen = odd[np.linspace(0, len(odd) - 1, count).astype(int)]
    weight, bias = network.layer.weight.numpy(), network.layer.bias.numpy()
    for name, read in _corruptions(images, chosen):
        digest = f"{images.digest} {name} {count}"
        some = replace(images, digest=digest, labels=images.labels[chosen], read=read)
        X = cached_features(network, some, cache).inputs
        yield HeadSubject(name, np.ascontiguousarray(weight), bias, X, X, some.labels)


def _opened(study: Path) -> tuple[LoadedNetwork, LabelledImages]:
    settings = read_study(study)
    if settings.data is None:
        raise DataError(f"study {study}", "names no data", "name a folder of images")
    check_data(settings.data)
    network = load_network(settings.networks[0])
    return network, open_data(settings.data, network)


def digits_subject() -> HeadSubject:
    """Return the last layer of the digits network."""
    network = digits.train()
    layer = network.get_submodule("fc3")
    body = network[:-1]
    (seen, _), (images, labels) = digits.training(), digits.held_out()
    with torch.inference_mode():
        calibration, inputs = body(seen).numpy(), body(images).numpy()
    weight, bias = (np.ascontiguousarray(layer.get_parameter(name).numpy()) for name in ("weight", "bias"))
    return HeadSubject("digits", weight, bias, calibration, inputs, labels)


def vocabulary(rows: int, columns: int, samples: int = 1500) -> HeadSubject:
    """Draw rows around cluster centres, with a decaying spectrum, and inputs near rows."""
    rng = np.random.default_rng(0)
    spectrum = (np.arange(1, columns + 1) ** -1.0).astype(np.float32)
    centres = rng.standard_normal((max(1, rows // 100), columns), np.float32)
    weight = centres[rng.integers(0, len(centres), rows)] + 0.7 * rng.standard_normal((rows, columns), np.float32)
    weight *= spectrum
    chosen = rng.integers(0, rows, samples)
    X = weight[chosen] / np.linalg.norm(weight[chosen], axis=1, keepdims=True)
    X += 0.5 * spectrum * rng.standard_normal((samples, columns), np.float32) / np.linalg.norm(spectrum)
    half = samples // 2
    return HeadSubject("vocabulary", weight, np.zeros(rows, np.float32), X[:half], np.ascontiguousarray(X[half:]), None)


def _corruptions(images: LabelledImages, chosen: Positions) -> Iterator[tuple[str, Callable[[int], torch.Tensor]]]:
    """Yield chosen images as they are, with noise, and blurred."""

    def clean(index: int) -> torch.Tensor:
        return images.read(int(chosen[index]))

    def noisy(size: float, index: int) -> torch.Tensor:
        image = clean(index)
        return image + size * torch.randn(image.shape, generator=torch.Generator().manual_seed(index))

    def blurred(size: float, index: int) -> torch.Tensor:
        side = 4 * int(size) + 1
        image: torch.Tensor = transforms.gaussian_blur(clean(index), [side, side], [size, size])
        return image

    yield "images as they are", clean
    for size in NOISE:
        yield f"noise of {size}", partial(noisy, size)
    for size in BLUR:
        yield f"blur of {size:.0f} pixels", partial(blurred, size)
