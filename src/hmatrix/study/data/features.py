"""The inputs of the studied layer for all images: computed once, and kept in a cache."""

import hashlib
import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from hmatrix._support.machine import code_digest
from hmatrix._support.store import Shelf, Store
from hmatrix._support.typing import AnyArray, Floats32, Integers64
from hmatrix.errors import ArgumentError, NetworkError
from hmatrix.study.data.classifiers import Classifier, HiddenLayer, LastLayer
from hmatrix.study.data.datasets import LabelledImages, read_ahead
from hmatrix.study.networks.models import LoadedNetwork

_SHARD = 1024
"""Images of one file of the cache."""


@dataclass(frozen=True)
class Features:
    """All images as the studied layer sees them.

    Parameters
    ----------
    inputs
        The layer's inputs; float32 of shape (samples, in).
    labels
        Class index of each image; int64 of shape (samples,).
    classifier
        Maps outputs of the layer, or of its replacement, to predicted classes.
    """

    inputs: Floats32
    labels: Integers64
    classifier: Classifier


def cached_features(
    network: LoadedNetwork, images: LabelledImages, cache: Path, *, batch_size: int = 8, workers: int | None = None
) -> Features:
    """Compute the studied layer's inputs for all images, or take them from the cache.

    They are kept in shards of 1,024 images, each whole or absent, so an interrupted run goes on at the next. Memory
    holds no more than the inputs, one shard, and the batches that are read ahead.

    Parameters
    ----------
    network, images
        The network whose inputs are computed, and the images that it gets.
    cache
        Folder for the inputs of all networks and data sets.
    batch_size
        Images that go through the network at once; more of them cost more memory, and hardly less time.
    workers
        Threads that read images; ``None`` is one for each CPU.

    Raises
    ------
    ArgumentError
        If `batch_size` or `workers` is less than one.
    DataError
        If an image cannot be read.
    NetworkError
        If the layer is not called exactly once, with one row for each image, or its input is not finite.
    OutputError
        If the cache cannot be written.

    Warns
    -----
    CacheWarning
        If a shard is damaged: it is computed again.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value < 1:
            raise ArgumentError(name, f"is {value}", "give at least one")
    inputs = np.empty((len(images), network.layer.in_features), dtype=np.float32)
    shards = _Shards(Store(cache, Shelf.FEATURES), _key(network, images), inputs)
    missing: list[range] = []
    is_last = True
    for first in range(0, len(images), _SHARD):
        rows = range(first, min(first + _SHARD, len(images)))
        known = shards.read(rows)
        if known is None:
            missing.append(rows)
        else:
            is_last &= known
    if missing:
        shards.store.check()
        is_last &= _compute(network, images, missing, shards, batch_size, workers)
    classifier: Classifier = (
        LastLayer(len(images), network.layer.out_features)
        if is_last
        else HiddenLayer(network, images, batch_size, workers)
    )
    return Features(inputs, images.labels, classifier)


@dataclass(frozen=True)
class _Shards:
    """The inputs ``(samples, in)`` in memory, and in the store."""

    store: Store
    key: str
    inputs: Floats32

    def read(self, rows: range) -> bool | None:
        """Fill the rows, and return whether the layer is the last one; ``None`` if they have to be computed."""

        def read(arrays: dict[str, AnyArray], facts: dict[str, Any]) -> bool:
            self.inputs[rows.start : rows.stop] = arrays["inputs"]
            return bool(facts["last"])

        return self.store.recall(self._name(rows), read)

    def write(self, rows: range, *, is_last: bool) -> None:
        self.store.keep(self._name(rows), {"inputs": self.inputs[rows.start : rows.stop]}, {"last": is_last})

    def _name(self, rows: range) -> str:
        return f"{self.key}-{rows.start:08}-{rows.stop:08}"


def _key(network: LoadedNetwork, images: LabelledImages) -> str:
    """Return a digest of all that the inputs depend on."""
    depends = (code_digest("nn", "cli"), network.digest, network.layer_name, images.digest)
    return hashlib.sha256(repr(depends).encode()).hexdigest()[:24]


def _compute(
    network: LoadedNetwork,
    images: LabelledImages,
    missing: list[range],
    shards: "_Shards",
    batch_size: int,
    workers: int,
) -> bool:
    """Fill the missing shards, and return whether the layer's outputs are the network's outputs."""
    order = [row for rows in missing for row in rows]
    all_last = True
    with (
        tqdm(total=len(images), initial=len(images) - len(order), desc="features", unit="image", delay=2) as bar,
        read_ahead(images, order, workers) as decoded,
    ):
        for rows in missing:
            shard_last = True
            for first in range(rows.start, rows.stop, batch_size):
                end = min(first + batch_size, rows.stop)
                batch = torch.stack(list(islice(decoded, end - first)))
                shards.inputs[first:end], batch_last = _run(network, batch, first)
                shard_last &= batch_last
                bar.update(end - first)
            shards.write(rows, is_last=shard_last)
            all_last &= shard_last
    return all_last


def _run(network: LoadedNetwork, batch: torch.Tensor, first: int) -> tuple[Floats32, bool]:
    """Return the layer's inputs (batch, in), and whether its outputs are the network's outputs."""
    received: list[torch.Tensor] = []
    returned: list[torch.Tensor] = []

    # Copies, because what comes after may work in place.
    def before(_: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        received.extend(argument.clone() for argument in arguments)

    def after(_: Any, __: Any, output: torch.Tensor) -> None:
        returned.append(output.clone())

    hooks = (network.layer.register_forward_pre_hook(before), network.layer.register_forward_hook(after))
    try:
        with torch.inference_mode():
            output = network.module(batch)
    finally:
        for hook in hooks:
            hook.remove()
    subject = f"network {network.name}, layer {network.layer_name}"
    shapes = [tuple(tensor.shape) for tensor in received]
    if shapes != [(len(batch), network.layer.in_features)]:
        came = f"is called with inputs of the shapes {shapes} for {len(batch)} images, which is not supported"
        raise NetworkError(subject, came, "name a layer that is called once, with one row for each image")
    inputs = received[0].numpy()
    bad = np.flatnonzero(~np.isfinite(inputs).all(axis=1))
    if len(bad):
        came = f"its input for image {first + int(bad[0])} holds NaN or infinity"
        raise NetworkError(subject, came, "use intact weights, and the preprocessing that belongs to them")
    return inputs, torch.equal(returned[0], output)
