import urllib.error
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from networks import MODEL, image_batch, randomised, write_torch
from safetensors.torch import save_file
from torch import nn

from hmatrix.errors import NetworkError
from hmatrix.study.config.settings import Interpolation, Network, PreprocessingOverride
from hmatrix.study.networks.models import LoadedNetwork, Preprocessing, load_network
from hmatrix.study.networks.weights import read_state_dict


def altered(weights, path, **changes):
    """Write the state dict with some tensors replaced, or removed where the value is None."""
    state = {**read_state_dict(weights), **{key.replace("__", "."): value for key, value in changes.items()}}
    save_file({key: value for key, value in state.items() if value is not None}, path)
    return path


# Names and options


def test_torchvision_comes_first_and_a_prefix_settles_it(tmp_path):
    options = {"num_classes": 2}
    for name, library in (("resnet18", torchvision), ("torchvision:resnet18", torchvision), ("timm:resnet18", timm)):
        create = library.create_model if library is timm else library.models.get_model
        path = write_torch(create("resnet18", **options).state_dict(), tmp_path / "weights.pt")
        loaded = load_network(Network(name, path, options=options))
        assert type(loaded.module).__module__.startswith(library.__name__)
        assert loaded.name == name
        assert (loaded.layer_name, loaded.layer.out_features) == ("fc", 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mobilnet_v2", "is no image classifier of torchvision or timm; did you mean .*mobilenet_v2"),
        ("torchvision:mobilenetv2_100", "is no image classifier of torchvision; did you mean .*mobilenet_v2"),
        ("timm:mobilenet_v2", "is no image classifier of timm; did you mean .*mobilenetv2_"),
        ("keras:resnet18", "is no image classifier of torchvision or timm; did you mean .*resnet18"),
        ("fasterrcnn_resnet50_fpn", "is no image classifier"),
        ("", "name a torchvision or timm model, or digits"),
    ],
)
def test_unknown_models(name, message):
    with pytest.raises(NetworkError, match=message):
        load_network(Network(name))


def test_no_model():
    with pytest.raises(NetworkError, match="no model is named"):
        load_network(Network(None))


@pytest.mark.parametrize("name", [MODEL, "timm:mobilenetv3_small_050"])
@pytest.mark.parametrize("from_file", [False, True])
def test_refused_options(name, from_file, weights):
    with pytest.raises(NetworkError, match=r"constructor refuses the options wings=2 .*wings"):
        load_network(Network(name, weights if from_file else None, options={"wings": 2}))


def test_options_reach_the_constructor(tmp_path):
    options = {"pad_type": "same"}
    module = randomised(timm.create_model("mobilenetv2_035", **options))
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    network = Network("mobilenetv2_035", tmp_path / "weights.safetensors", options=options)
    loaded = load_network(network)
    plain = load_network(Network(network.model, network.weights))
    with torch.inference_mode():
        assert torch.equal(loaded.module(image_batch(64)), module(image_batch(64)))
        assert not torch.equal(plain.module(image_batch(64)), module(image_batch(64)))
    # The cache of features must not take one for the other.
    assert loaded.digest != plain.digest


def test_vision_transformers_are_built_for_the_published_size(monkeypatch, weights):
    built = []

    def get_model(name, **options):
        built.append((name, options))
        raise ValueError("enough")

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    with pytest.raises(NetworkError, match="enough"):
        load_network(Network("vit_h_14", weights))
    assert built == [("vit_h_14", {"weights": None, "image_size": 518})]


# Weights that fit, and that do not


def test_loaded_network_is_ready(reference, weights):
    loaded = load_network(Network(MODEL, weights))
    assert loaded.name == MODEL
    assert not loaded.module.training
    assert not any(parameter.requires_grad for parameter in loaded.module.parameters())
    assert {parameter.dtype for parameter in loaded.module.parameters()} == {torch.float32}
    assert loaded.layer is loaded.module.fc
    assert torch.equal(loaded.layer.weight, reference.fc.weight)
    assert loaded.count_classes() == 1000


def test_half_precision_weights_are_widened(reference, tmp_path):
    state = {key: value.half() if value.is_floating_point() else value for key, value in reference.state_dict().items()}
    save_file(state, tmp_path / "half.safetensors")
    layer = load_network(Network(MODEL, tmp_path / "half.safetensors")).layer
    assert torch.equal(layer.weight, reference.fc.weight.half().float())


def test_digest_depends_on_every_tensor(weights, tmp_path):
    bias = read_state_dict(weights)["conv1.1.bias"].clone()
    bias[3] += 1e-6
    path = altered(weights, tmp_path / "other.safetensors", conv1__1__bias=bias)
    assert load_network(Network(MODEL, path)).digest != load_network(Network(MODEL, weights)).digest


def test_weights_that_do_not_fit(weights, tmp_path):
    path = altered(
        weights, tmp_path / "other.safetensors", fc__bias=None, extra=torch.ones(2), conv1__1__bias=torch.ones(7)
    )
    with pytest.raises(NetworkError) as caught:
        load_network(Network(MODEL, path))
    message = str(caught.value)
    assert "missing: fc.bias" in message
    assert "unexpected: extra" in message
    assert "of another shape: conv1.1.bias is (7,) instead of (24,)" in message
    assert MODEL in message


def test_weights_of_another_network_are_named_in_short(weights):
    with pytest.raises(NetworkError, match=r"missing: .* and \d+ more; unexpected: .* and \d+ more"):
        load_network(Network("mobilenet_v2", weights))


def test_weights_that_the_architecture_refuses(tmp_path):
    # MNASNet asks for a version, which safetensors does not keep.
    save_file(torchvision.models.mnasnet0_5().state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(NetworkError, match=r"do not fit network mnasnet0_5 .*version"):
        load_network(Network("mnasnet0_5", tmp_path / "weights.safetensors"))


@pytest.mark.parametrize(("key", "value"), [("fc.weight", np.nan), ("fc.bias", np.inf)])
def test_layer_that_is_not_finite(key, value, weights, tmp_path):
    tensor = read_state_dict(weights)[key].clone()
    tensor.view(-1)[[1, 5, 9]] = value
    path = altered(weights, tmp_path / "bad.safetensors", **{key.replace(".", "__"): tensor})
    with pytest.raises(NetworkError, match=f"layer fc: 3 of {tensor.numel()} values are NaN or infinity"):
        load_network(Network(MODEL, path))


def test_published_densenet_keys_are_renamed(tmp_path):
    module = randomised(torchvision.models.densenet121(num_classes=10))
    old = {}
    for key, tensor in module.state_dict().items():
        for part in ("norm", "conv"):
            for digit in ("1.", "2."):
                if "denselayer" in key:
                    key = key.replace(f".{part}{digit}", f".{part}.{digit}")
        old[key] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    save_file(old, tmp_path / "old.safetensors")
    loaded = load_network(Network("densenet121", tmp_path / "old.safetensors", options={"num_classes": 10}))
    with torch.inference_mode():
        assert torch.equal(loaded.module(image_batch(32)), module(image_batch(32)))


# Published weights


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Torch's store of downloads, empty, without a network."""

    def refuse(url, *_, **__):
        raise urllib.error.URLError(f"no route to {url}")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    (tmp_path / "hub" / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "hub" / "checkpoints"


@pytest.mark.parametrize(
    ("name", "side", "auxiliary"), [("googlenet", 64, True), ("googlenet", 64, False), ("inception_v3", 96, False)]
)
def test_local_weights_give_the_network_that_a_download_gives(name, side, auxiliary, hub, tmp_path):
    published = torchvision.models.get_model_weights(name).DEFAULT
    module = randomised(torchvision.models.get_model(name, weights=None, init_weights=False, aux_logits=True))
    torch.save(module.state_dict(), hub / Path(published.url).name)
    expected = torchvision.models.get_model(name, weights=published).eval()
    state = {key: value for key, value in module.state_dict().items() if auxiliary or "aux" not in key.lower()}
    save_file(state, tmp_path / "local.safetensors")

    local = load_network(Network(name, tmp_path / "local.safetensors"))
    images = image_batch(side)
    with torch.inference_mode():
        assert torch.equal(local.module(images), expected(images))
        assert not torch.equal(local.module(images), module(images)), "transform_input has no effect"
    if auxiliary:
        downloaded = load_network(Network(name))
        assert downloaded.digest == local.digest
        assert downloaded.preprocessing == local.preprocessing
        with torch.inference_mode():
            assert torch.equal(downloaded.module(images), expected(images))
    assert local.layer_name == "fc"


def test_torchvision_download_fails(hub):
    assert not list(hub.iterdir())
    with pytest.raises(NetworkError, match=r"cannot be loaded \(URLError.*no route to.*--weights FILE"):
        load_network(Network(MODEL))


def test_timm_download(monkeypatch):
    module = randomised(timm.create_model("mobilenetv3_small_050"))

    def download(*_, **__):
        return module.state_dict()

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", download)
    loaded = load_network(Network("mobilenetv3_small_050"))
    with torch.inference_mode():
        assert torch.equal(loaded.module(image_batch(64)), module(image_batch(64)))


def test_timm_download_fails(monkeypatch):
    def download(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", download)
    with pytest.raises(NetworkError, match=r"cannot be loaded \(ConnectionError: no route\).*--weights FILE"):
        load_network(Network("mobilenetv3_small_050"))


def test_timm_must_not_leave_the_head_at_random(monkeypatch):
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: pytest.fail("downloaded"))
    with pytest.raises(NetworkError, match="published weights have 1000 classes, not 10"):
        load_network(Network("mobilenetv3_small_050", options={"num_classes": 10}))


# Layers


@pytest.fixture(scope="module")
def deep_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("deep") / "weights.pt"
    return write_torch(torchvision.models.mobilenet_v3_small().state_dict(), path)


def test_layers_are_named(deep_weights):
    loaded = load_network(Network("mobilenet_v3_small", deep_weights))
    assert (loaded.layer_name, loaded.layer) == ("classifier.3", loaded.module.classifier[3])
    hidden = load_network(Network("mobilenet_v3_small", deep_weights, layer="classifier.0"))
    assert (hidden.layer_name, hidden.layer) == ("classifier.0", hidden.module.classifier[0])


@pytest.mark.parametrize(
    ("layer", "came"), [("classifier", "is a Sequential"), ("features.0.0", "is a Conv2d"), ("head", "does not exist")]
)
def test_wrong_layer(layer, came, deep_weights):
    there = r"classifier\.0 \(1024 x 576\), classifier\.3 \(1000 x 1024\)"
    with pytest.raises(NetworkError, match=f"layer {layer}: {came}; name an nn.Linear: {there}"):
        load_network(Network("mobilenet_v3_small", deep_weights, layer=layer))


def test_no_dense_layer(tmp_path):
    path = write_torch(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(NetworkError, match=r"has no nn\.Linear layer"):
        load_network(Network("squeezenet1_1", path))


def loaded_by_hand(module):
    preprocessing = Preprocessing(8, 8, Interpolation.BILINEAR, (0.5,) * 3, (0.5,) * 3)
    return LoadedNetwork("odd", module, preprocessing, "0", nn.Linear(1, 1), "digest")


def test_input_that_the_network_cannot_process():
    with pytest.raises(NetworkError, match=r"cannot process an input of shape \(1, 3, 8, 8\)"):
        loaded_by_hand(nn.Linear(7, 7)).count_classes()


class Pair(nn.Module):
    def forward(self, images):
        return images.flatten(1), images.flatten(1)


@pytest.mark.parametrize("module", [nn.Linear(8, 8), Pair()])
def test_output_that_is_no_row_of_scores(module):
    with pytest.raises(NetworkError, match="not one row of class scores"):
        loaded_by_hand(module).count_classes()


# Digits


@pytest.mark.slow
def test_digits():
    loaded = load_network(Network("digits"))
    assert (loaded.layer_name, loaded.preprocessing) == ("fc2", None)
    assert loaded.layer.weight.shape == (1024, 1024)
    assert loaded.count_classes() == 10
    other = load_network(Network("digits", layer="fc3"))
    assert (other.layer_name, other.digest) == ("fc3", loaded.digest)


@pytest.mark.parametrize(
    "given",
    [
        {"weights": Path("file")},
        {"options": {"depth": 3}},
        {"preprocessing": PreprocessingOverride(crop=8)},
    ],
)
def test_digits_take_no_settings(given):
    with pytest.raises(NetworkError, match="leave them out"):
        load_network(Network("digits", **given))
