"""The inputs of a layer for all images: what they are, and what cannot be studied."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from counted import Counted, by_hand, shards, small_network
from PIL import Image
from torch import nn

from hmatrix.errors import ArgumentError, DataError, NetworkError
from hmatrix.study.config.settings import DigitsData, FolderData, Network, PreprocessingOverride
from hmatrix.study.data import features as features_module
from hmatrix.study.data.classifiers import HiddenLayer, LastLayer
from hmatrix.study.data.datasets import open_data
from hmatrix.study.data.features import cached_features
from hmatrix.study.networks.models import load_network

WNIDS = ("n01440764", "n03028079", "n03888257")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    for number in range(9):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        file = path / WNIDS[number % 3] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(file)
    return path


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    torch.manual_seed(0)
    module = torchvision.models.mobilenet_v2(width_mult=0.25)
    path = tmp_path_factory.mktemp("weights") / "weights.pt"
    torch.save(module.state_dict(), path)
    override = PreprocessingOverride(resize=64, crop=64)
    return load_network(Network("mobilenet_v2", path, options={"width_mult": 0.25}, preprocessing=override))


@pytest.fixture
def small():
    return small_network()


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(features_module, "_SHARD", 4)


def outputs_of(network, inputs):
    return inputs @ network.layer.weight.numpy().T + network.layer.bias.numpy()


# What the features are


def test_inputs_and_classes_are_the_networks_own(mobilenet, folder, tmp_path):
    images = open_data(FolderData(folder), mobilenet)
    found = cached_features(mobilenet, images, tmp_path, batch_size=4)
    assert found.inputs.dtype == np.float32
    assert found.inputs.shape == (9, 1280)
    assert found.labels.tolist() == [0, 0, 0, 497, 497, 497, 701, 701, 701]
    with torch.inference_mode():
        expected = mobilenet.module(torch.stack([tensor for tensor, _ in (images[i] for i in range(9))])).numpy()
    assert np.ptp(expected, axis=0).max() > 0, "all images look alike to the network"
    np.testing.assert_allclose(outputs_of(mobilenet, found.inputs), expected, rtol=1e-5, atol=1e-5)
    assert isinstance(found.classifier, LastLayer)
    assert found.classifier.predictions(expected).tolist() == expected.argmax(axis=1).tolist()


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (3, 2), (64, 5)])
@pytest.mark.usefixtures("small_shards")
def test_order_is_that_of_the_images(batch_size, workers, small, tmp_path):
    data = Counted()
    found = cached_features(small, data.images, tmp_path, batch_size=batch_size, workers=workers)
    with torch.inference_mode():
        expected = small.module[1](small.module[0](data.values)).numpy()
    np.testing.assert_allclose(found.inputs, expected, rtol=1e-6, atol=1e-6)
    assert found.labels is data.labels


def test_a_layer_that_writes_into_its_input_is_no_matter(tmp_path):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(6, 6)

        def forward(self, x):
            x += self.inner(x)
            return x

    torch.manual_seed(0)
    module = nn.Sequential(Residual(), nn.Linear(6, 4))
    data = Counted()
    values = data.values.clone()
    found = cached_features(by_hand(module, module[0].inner), data.images, tmp_path)
    np.testing.assert_array_equal(found.inputs, values.numpy())


# The classifier


def test_activation_in_place_makes_the_layer_a_hidden_one(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 4), nn.ReLU(inplace=True))
    data = Counted()
    found = cached_features(by_hand(module, module[0]), data.images, tmp_path)
    assert isinstance(found.classifier, HiddenLayer)
    negated = -outputs_of(by_hand(module, module[0]), found.inputs)
    assert found.classifier.predictions(negated).tolist() == np.maximum(negated, 0).argmax(axis=1).tolist()


def test_hidden_layer_of_digits(tmp_path):
    network = load_network(Network("digits"))
    images = open_data(DigitsData(), network)
    found = cached_features(network, images, tmp_path)
    assert isinstance(found.classifier, HiddenLayer)
    outputs = outputs_of(network, found.inputs)
    assert (found.classifier.predictions(outputs) == found.labels).mean() >= 0.96
    assert len(set(found.classifier.predictions(np.zeros_like(outputs)))) == 1
    # The first image's row for all of them.
    same = found.classifier.predictions(np.repeat(outputs[:1], len(outputs), axis=0))
    assert set(same) == {found.classifier.predictions(outputs)[0]}


def test_hidden_layer_leaves_no_hooks(small, tmp_path):
    hidden = replace(small, layer_name="0", layer=small.module[0])
    data = Counted()
    found = cached_features(hidden, data.images, tmp_path, batch_size=3)
    outputs = outputs_of(hidden, found.inputs)
    with torch.inference_mode():
        expected = small.module(data.values).numpy().argmax(axis=1)
        assert found.classifier.predictions(outputs).tolist() == expected.tolist()
        assert found.classifier.predictions(outputs[::-1]).tolist() == expected[::-1].tolist()
        assert small.module(data.values).numpy().argmax(axis=1).tolist() == expected.tolist()


@pytest.mark.parametrize("layer", ["0", "2"])
def test_cached_run_knows_the_classifier_without_the_network(layer, small, tmp_path):
    network = replace(small, layer_name=layer, layer=small.module.get_submodule(layer))
    first = cached_features(network, Counted().images, tmp_path)
    data = Counted()
    again = cached_features(network, data.images, tmp_path)
    assert data.asked == []
    assert type(again.classifier) is type(first.classifier)
    assert type(again.classifier) is (LastLayer if layer == "2" else HiddenLayer)


@pytest.mark.parametrize("layer", ["0", "2"])
def test_wrong_outputs(layer, small, tmp_path):
    network = replace(small, layer_name=layer, layer=small.module.get_submodule(layer))
    classifier = cached_features(network, Counted().images, tmp_path).classifier
    out = network.layer.out_features
    for shape in ((9, out), (10, out + 1), (10,)):
        with pytest.raises(ArgumentError, match="give one row for each image"):
            classifier.predictions(np.zeros(shape, dtype=np.float32))
    for value in (np.nan, np.inf):
        outputs = np.zeros((10, out), dtype=np.float32)
        outputs[9, 1] = value
        with pytest.raises(ArgumentError, match="NaN or infinity"):
            classifier.predictions(outputs)


def test_the_first_of_equal_outputs_counts():
    assert LastLayer(2, 3).predictions(np.array([[0, 1, 1], [2, 2, 2]], dtype=np.float32)).tolist() == [1, 0]


# What cannot be studied


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 4)

    def forward(self, x):
        return self.inner(x.reshape(-1, 2, 3)).sum(axis=1)


class Single(Tokens):
    def forward(self, x):
        return self.inner(x[:, None, :3])[:, 0]


class Twice(Tokens):
    def forward(self, x):
        return self.inner(x[:, :3]) + self.inner(x[:, 3:])


class Never(Tokens):
    def forward(self, x):
        return nn.functional.linear(x[:, :3], self.inner.weight)


class Merged(Tokens):
    def forward(self, x):
        return self.inner(x.reshape(-1, 3)).reshape(len(x), -1)


@pytest.mark.parametrize("kind", [Tokens, Single, Twice, Never, Merged])
def test_layers_that_are_not_called_once_with_a_row_for_each_image(kind, tmp_path):
    module = kind()
    with pytest.raises(NetworkError, match=r"layer inner: is called with inputs of the shapes \[.*for 8 images"):
        cached_features(by_hand(module, module.inner), Counted().images, tmp_path)
    assert shards(tmp_path) == []
    assert not module.inner._forward_hooks
    assert not module.inner._forward_pre_hooks


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.usefixtures("small_shards")
def test_inputs_that_are_not_finite(value, tmp_path):
    module = nn.Sequential(nn.Linear(6, 4))
    data = Counted()
    data.values[6, 2] = value
    with pytest.raises(NetworkError, match="layer 0: its input for image 6 holds NaN or infinity"):
        cached_features(by_hand(module, module[0]), data.images, tmp_path)
    assert len(shards(tmp_path)) == 1


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"workers": 0}])
def test_wrong_arguments(wrong, small, tmp_path):
    with pytest.raises(ArgumentError, match="give at least one"):
        cached_features(small, Counted().images, tmp_path, **wrong)


def test_image_that_cannot_be_read(mobilenet, folder, tmp_path):
    images = open_data(FolderData(folder), mobilenet)
    broken = tmp_path / "set" / WNIDS[0] / "broken.png"
    broken.parent.mkdir(parents=True)
    broken.write_bytes((folder / WNIDS[0] / "0.png").read_bytes()[:100])
    images = open_data(FolderData(tmp_path / "set"), mobilenet)
    with pytest.raises(DataError, match=r"broken\.png: cannot be read"):
        cached_features(mobilenet, images, tmp_path / "cache")
