"""Classifiers of images as whole networks: half of the data calibrates, the other half judges."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hmatrix._support.typing import Scores
from hmatrix.errors import DataError
from hmatrix.study.config.settings import Data, DigitsData, Interpolation, Network, PreprocessingOverride
from hmatrix.study.data.augmentation import ShuffledImages
from hmatrix.study.data.datasets import LabelledImages, check_data, open_data, read_ahead
from hmatrix.study.networks import architectures, digits
from hmatrix.study.networks.models import DIGITS, ImageNetwork, load_network
from hmatrix.study.whole.judged import HELD_OUT, Judge, Whole

_BATCH = 32
_TRAINED_BATCH = 16
_KEPT = 1024
"""Images that stay in memory while a network is trained."""

_WORKERS = 2


def open_classifier(network: Network, data: Data | None) -> Whole:
    """Load a classifier, and split its data into two halves.

    Images of even-numbered classes calibrate, those of odd-numbered ones judge; of the digits, those that the network
    was trained on calibrate.

    Raises
    ------
    NetworkError, FormatError
        If the network or its weights cannot be used.
    DataError
        If the data cannot be used, or one of the halves is empty.
    """
    check_data(data)
    loaded = load_network(network)
    own = None if loaded.preprocessing is None else asdict(loaded.preprocessing)
    architecture = {"model": network.model, "options": dict(network.options), "preprocessing": own}
    if data is None:
        return Whole(loaded.module, architecture, None, None, None, None, _scores)
    calibration, judge = _halves(loaded, data)
    rows = calibration.rows
    trained = tuple(row for number, row in enumerate(rows) if number % HELD_OUT != HELD_OUT // 2)
    return Whole(
        loaded.module,
        architecture,
        calibration,
        ShuffledImages(_kept(calibration.images), trained, _TRAINED_BATCH),
        _Batches(calibration.images, rows[HELD_OUT // 2 :: HELD_OUT]),
        judge,
        _scores,
    )


def judge_of(network: ImageNetwork, data: Data) -> Judge:
    """Return the judge of `open_classifier`."""
    return _halves(network, data)[1]


def bare_classifier(architecture: Mapping[str, Any]) -> ImageNetwork:
    """Build a network as `Whole.architecture` tells, its weights as the constructor makes them."""
    name = architecture["model"]
    if name == DIGITS:
        return ImageNetwork(name, digits.untrained(), None)
    network = Network(name, options=architecture["options"], preprocessing=override_of(architecture))
    _, module, preprocessing = architectures.build(name, network, bare=True)
    return ImageNetwork(name, module, preprocessing)


def override_of(architecture: Mapping[str, Any]) -> PreprocessingOverride:
    """Return the preprocessing that `Whole.architecture` tells."""
    given = architecture["preprocessing"]
    if given is None:
        return PreprocessingOverride()
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return PreprocessingOverride(**values | {"interpolation": Interpolation(values["interpolation"])})


@dataclass(frozen=True)
class _Batches:
    """Some images of a data set, read anew each time."""

    images: LabelledImages
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return -(-len(self.rows) // _BATCH)

    def __iter__(self) -> Iterator[Tensor]:
        with read_ahead(self.images, self.rows, _WORKERS) as inputs:
            while batch := list(islice(inputs, _BATCH)):
                yield torch.stack(batch)


def _kept(images: LabelledImages) -> LabelledImages:
    """Return images that are read once, where they are few."""
    return replace(images, read=lru_cache(_KEPT)(images.read))


def _halves(network: ImageNetwork, data: Data) -> tuple[_Batches, Judge]:
    images = open_data(data, network)
    rows = np.arange(len(images))
    if isinstance(data, DigitsData):
        inputs, labels = digits.training()
        trained = LabelledImages("digits, training", "", labels, inputs.__getitem__)
        return _Batches(trained, tuple(range(len(labels)))), _judge(images, rows)
    even, odd = (rows[images.labels % 2 == parity] for parity in (0, 1))
    if not len(even) or not len(odd):
        came = (
            "has images of odd-numbered classes only" if not len(even) else "has images of even-numbered classes only"
        )
        raise DataError(f"data {images.name}", came, "add others: the former judge, the latter calibrate")
    return _Batches(images, tuple(even.tolist())), _judge(images, odd)


def _judge(images: LabelledImages, rows: Any) -> Judge:
    batches, labels = _Batches(images, tuple(rows.tolist())), images.labels[rows]

    def scores(model: nn.Module) -> Scores:
        with torch.inference_mode():
            predicted = np.concatenate([model(batch).argmax(dim=1).numpy() for batch in batches])
        right: Scores = np.where(predicted == labels, 100.0, 0.0)
        return right

    return Judge(f"top-1 on {len(labels)} images", scores)


def _scores(model: nn.Module, batch: Tensor) -> Tensor:
    scores: Tensor = model(batch)
    return scores
