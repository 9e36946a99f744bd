"""The subject of a study: one weight matrix, and where there are data, the predictions that it leads to."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hmatrix._support.typing import Flags, FloatArray
from hmatrix.matrix import HMatrix
from hmatrix.study.config.settings import Data, Network
from hmatrix.study.data.datasets import check_data, open_data
from hmatrix.study.data.features import Features, cached_features
from hmatrix.study.measure.records import AccuracyEvidence
from hmatrix.study.networks.models import load_network
from hmatrix.study.networks.weights import load_matrix


@dataclass(frozen=True, eq=False)
class Subject:
    """The layer under study.

    Parameters
    ----------
    network, layer
        Names.
    digest
        Digest of the network's weights and of the data.
    weight
        ``(out, in)``.
    bias
        ``(out,)``.
    features
        Inputs of the layer for all images; ``None`` for a lone matrix.
    """

    network: str
    layer: str
    digest: str
    weight: FloatArray
    bias: FloatArray
    features: Features | None

    def accuracy(self, matrix: HMatrix) -> AccuracyEvidence | None:
        """Return the accuracy of the network with `matrix` ``(out, in)`` in the place of its weight."""
        if self.features is None or self._dense is None:
            return None
        return paired(_right(self.features, matrix.apply(self.features.inputs), self.bias), self._dense)

    def accuracy_of(self, outputs: FloatArray) -> AccuracyEvidence | None:
        """Return the accuracy of the network with outputs ``(samples, out)`` of its layer, bias included."""
        if self.features is None or self._dense is None:
            return None
        return paired(np.equal(self.features.classifier.predictions(outputs), self.features.labels), self._dense)

    def baseline(self) -> AccuracyEvidence | None:
        """Return the accuracy of the network as it is."""
        return None if self._dense is None else paired(self._dense, self._dense)

    @cached_property
    def _dense(self) -> Flags | None:
        """Whether the network classifies each image rightly as it is."""
        if self.features is None:
            return None
        return _right(self.features, self.features.inputs @ self.weight.T, self.bias)


def load_subject(network: Network, data: Data | None, cache: Path) -> Subject:
    """Load a network or a lone matrix, and the inputs of its layer for all images.

    Raises
    ------
    NetworkError, FormatError
        If the network, its weights or its layer cannot be used.
    DataError
        If the data cannot be used.
    OutputError
        If the cache cannot be written.
    """
    if network.model is None:
        weight, layer, digest = load_matrix(network)
        name = layer if network.weights is None else network.weights.stem
        return Subject(name, layer, digest, weight, np.zeros(len(weight), weight.dtype), None)
    check_data(data)
    loaded = load_network(network)
    linear = loaded.layer
    weight = np.ascontiguousarray(linear.weight.numpy())
    bias = np.zeros(len(weight), weight.dtype) if linear.bias is None else linear.bias.numpy()
    if data is None:
        return Subject(loaded.name, loaded.layer_name, loaded.digest, weight, bias, None)
    images = open_data(data, loaded)
    digest = f"{loaded.digest} {images.digest}"
    return Subject(loaded.name, loaded.layer_name, digest, weight, bias, cached_features(loaded, images, cache))


def _right(features: Features, products: FloatArray, bias: FloatArray) -> Flags:
    """Return whether each image is classified rightly, from the layer's outputs before the bias is added."""
    products += bias
    predictions = features.classifier.predictions(products)
    return np.equal(predictions, features.labels)


def paired(right: Flags, baseline: Flags) -> AccuracyEvidence:
    """Return the counts of images that are classified rightly, ``(samples,)``, and of those that were."""
    return AccuracyEvidence(
        samples=right.size,
        correct=int(right.sum()),
        baseline_correct=int(baseline.sum()),
        lost=int((baseline & ~right).sum()),
        gained=int((right & ~baseline).sum()),
    )
