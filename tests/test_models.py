import os
import urllib.error
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import transforms_imagenet_eval
from torch import nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from hmatrix.errors import FormatError, NetworkError
from hmatrix.study.models import LoadedNetwork, Preprocessing, load_network
from hmatrix.study.preprocessing import from_timm
from hmatrix.study.settings import Interpolation, Network, PreprocessingOverride
from hmatrix.study.weights import load_matrix, read_state_dict

MODEL = "shufflenet_v2_x0_5"


def randomised(module, seed=0):
    """Give statistics and weights values that no constructor would."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(0.8 + 0.8 * torch.rand(tensor.shape, generator=generator)).add_(0.001)
    return module.eval()


def image_batch(side, seed=1):
    return torch.randn((2, 3, side, side), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def reference():
    return randomised(torchvision.models.get_model(MODEL, weights=None))


@pytest.fixture(scope="module")
def weights(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(reference.state_dict(), path)
    return path


def altered(weights, path, **changes):
    """Write the state dict with some tensors replaced, or removed where the value is None."""
    state = {**read_state_dict(weights), **{key.replace("__", "."): value for key, value in changes.items()}}
    save_file({key: value for key, value in state.items() if value is not None}, path)
    return path


# Files of weights


def write_safetensors_elsewhere(state, path):
    save_file(state, path.with_suffix(".bin"))
    return path.with_suffix(".bin")


def write_torch(state, path):
    torch.save(state, path)
    return path


def write_legacy(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


def write_wrapped(key):
    return lambda state, path: write_torch({key: state, "epoch": 3}, path)


def write_parallel(state, path):
    return write_wrapped("state_dict")({f"module.{key}": value for key, value in state.items()}, path)


@pytest.mark.parametrize(
    "write",
    [
        write_safetensors_elsewhere,
        write_torch,
        write_legacy,
        write_wrapped("state_dict"),
        write_wrapped("model"),
        write_parallel,
    ],
)
def test_every_kind_of_file_gives_the_same_network(write, reference, weights, tmp_path):
    expected = load_network(Network(MODEL, weights))
    loaded = load_network(Network(MODEL, write(reference.state_dict(), tmp_path / "weights.pt")))
    assert loaded.digest == expected.digest
    with torch.inference_mode():
        assert torch.equal(loaded.module(image_batch(64)), reference(image_batch(64)))


def truncated(content):
    return content[: len(content) // 2]


def write_bytes(path, content):
    path.write_bytes(content)
    return path


def torch_bytes(path, content, **options):
    torch.save(content, path, **options)
    return path.read_bytes()


def script_bytes(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(3, 3)), path)
    return path.read_bytes()


STATE = {"fc.weight": torch.ones(200, 300)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.pt", lambda _: b"", "truncated or no file of weights"),
        ("text.pt", lambda _: b"hello, this is text", "no file of weights"),
        ("binary.pt", lambda _: bytes(range(255, 0, -1)), "no file of weights"),
        ("array.pt", lambda _: b"\x93NUMPY" + bytes(100), "no file of weights"),
        ("cut.pt", lambda p: truncated(torch_bytes(p, STATE)), "truncated"),
        ("old.pt", lambda p: truncated(torch_bytes(p, STATE, _use_new_zipfile_serialization=False)), "truncated"),
        ("script.pt", script_bytes, "no file of weights"),
        ("module.pt", lambda p: torch_bytes(p, nn.Linear(3, 3)), "holds Python objects"),
        ("tensor.pt", lambda p: torch_bytes(p, torch.ones(3)), "holds a Tensor, not a state dict"),
        ("mixed.pt", lambda p: torch_bytes(p, {**STATE, "epoch": 3}), r"not tensors \(epoch\)"),
        ("none.pt", lambda p: torch_bytes(p, {}), "holds no tensors"),
        ("empty.safetensors", lambda _: b"", "not a whole safetensors file"),
        ("text.safetensors", lambda _: b"hello, this is text", "not a whole safetensors file"),
        ("cut.bin", lambda _: (100).to_bytes(8, "little") + b'{"a":', "not a whole safetensors file"),
    ],
)
def test_foreign_and_damaged_files(name, content, message, tmp_path):
    path = write_bytes(tmp_path / name, content(tmp_path / "source"))
    with pytest.raises(FormatError, match=message):
        read_state_dict(path)


def test_truncated_safetensors(weights, tmp_path):
    path = write_bytes(tmp_path / "cut.safetensors", truncated(weights.read_bytes()))
    with pytest.raises(FormatError, match="not a whole safetensors file"):
        read_state_dict(path)


def test_pickles_are_not_executed(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    torch.save({"fc.weight": Attack()}, tmp_path / "attack.pt")
    with pytest.raises(FormatError, match="holds Python objects"):
        read_state_dict(tmp_path / "attack.pt")
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("name", ["missing.safetensors", "missing.pt", "."])
def test_missing_files(name, tmp_path):
    with pytest.raises(FormatError, match="cannot be read"):
        read_state_dict(tmp_path / name)


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
    return LoadedNetwork("odd", module, "0", nn.Linear(1, 1), preprocessing, "digest")


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


# Preprocessing


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8))


@pytest.mark.parametrize("interpolation", list(Interpolation))
@pytest.mark.parametrize(("resize", "crop"), [(40, 32), (90, 64), (20, 24)])
def test_preprocessing_is_torchvisions_to_the_bit(interpolation, resize, crop, picture):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    mode = InterpolationMode(interpolation.value)
    preset = ImageClassification(crop_size=crop, resize_size=resize, mean=mean, std=std, interpolation=mode)
    found = Preprocessing(resize, crop, interpolation, mean, std).apply(picture)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert torch.equal(found, preset(picture))


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK"])
def test_other_colour_modes_are_converted(mode, picture):
    preprocessing = Preprocessing(40, 32, Interpolation.BILINEAR, (0.5,) * 3, (0.5,) * 3)
    converted = picture.convert(mode)
    assert torch.equal(preprocessing.apply(converted), preprocessing.apply(converted.convert("RGB")))


def test_preprocessing_of_torchvision(weights):
    loaded = load_network(Network(MODEL, weights))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert loaded.preprocessing == Preprocessing(256, 224, Interpolation.BILINEAR, mean, std)


def test_preprocessing_of_timm(picture):
    model = timm.create_model("mobilenetv3_small_050")
    config = resolve_data_config({}, model=model)
    own = transforms_imagenet_eval(
        224, config["crop_pct"], config["crop_mode"], None, config["interpolation"], config["mean"], config["std"]
    )
    preprocessing = from_timm(config, PreprocessingOverride())
    assert (preprocessing.resize, preprocessing.crop) == (256, 224)
    assert torch.equal(preprocessing.apply(picture), own(picture))


def test_resize_is_rounded_down():
    config = timm_config(input_size=(3, 299, 299), crop_pct=0.875)
    assert from_timm(config, PreprocessingOverride()).resize == 341


@pytest.mark.parametrize(
    "override",
    [
        {"resize": 300},
        {"crop": 100},
        {"interpolation": Interpolation.BICUBIC},
        {"mean": (0.1, 0.2, 0.3)},
        {"std": (0.1, 0.2, 0.3)},
    ],
)
def test_parts_of_the_preprocessing_are_replaced(override, weights):
    own = load_network(Network(MODEL, weights)).preprocessing
    found = load_network(Network(MODEL, weights, preprocessing=PreprocessingOverride(**override))).preprocessing
    assert found == Preprocessing(**{**vars(own), **override})
    assert found != own


def timm_config(**changes):
    config = {
        "input_size": (3, 32, 32),
        "crop_pct": 0.9,
        "crop_mode": "center",
        "interpolation": "bicubic",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    }
    return {**config, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": (1, 32, 32)}, "reads 1 channels"),
        ({"input_size": (3, 32, 48)}, "32 x 48 pixels by crop mode center"),
        ({"crop_mode": "squash"}, "32 x 32 pixels by crop mode squash"),
        ({"interpolation": "lanczos"}, "resizes by lanczos"),
    ],
)
def test_preprocessing_that_is_not_supported(changes, message):
    with pytest.raises(NetworkError, match=message):
        from_timm(timm_config(**changes), PreprocessingOverride())


def test_unsupported_preprocessing_is_replaced():
    config = timm_config(crop_mode="squash", interpolation="lanczos")
    override = PreprocessingOverride(resize=40, crop=32, interpolation=Interpolation.NEAREST)
    found = from_timm(config, override)
    assert (found.resize, found.crop, found.interpolation) == (40, 32, Interpolation.NEAREST)


@pytest.mark.parametrize(
    "wrong",
    [
        {"resize": 0},
        {"crop": -1},
        {"std": (0.5, 0.0, 0.5)},
        {"mean": (0.5, float("nan"), 0.5)},
        {"mean": (0.5,)},
        {"std": (0.5, 0.5)},
    ],
)
def test_wrong_preprocessing(wrong):
    right = {"resize": 8, "crop": 8, "interpolation": Interpolation.BILINEAR, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    with pytest.raises(NetworkError, match="preprocessing"):
        Preprocessing(**{**right, **wrong})


# Lone matrices


@pytest.fixture
def matrices(tmp_path):
    def write(**tensors):
        path = tmp_path / "matrix.safetensors"
        save_file({key.replace("__", "."): value for key, value in tensors.items()}, path)
        return path

    return write


def test_only_matrix(matrices):
    weight = torch.randn(5, 7)
    path = matrices(fc__weight=weight, fc__bias=torch.ones(5))
    matrix, name, digest = load_matrix(Network(None, path))
    assert name == "fc"
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, weight.numpy())
    assert load_matrix(Network(None, path, layer=name))[2] == digest
    assert load_matrix(Network(None, matrices(fc__weight=weight + 1e-6)))[2] != digest
    assert load_matrix(Network(None, matrices(fc__weight=weight.reshape(7, 5))))[2] != digest


@pytest.mark.parametrize("layer", ["head", "head.weight"])
def test_named_matrix(layer, matrices):
    path = matrices(fc__weight=torch.zeros(2, 3), head__weight=torch.ones(4, 3), other=torch.zeros(2, 2))
    matrix, name, _ = load_matrix(Network(None, path, layer=layer))
    assert (matrix.shape, name) == ((4, 3), "head")
    assert load_matrix(Network(None, path, layer="other"))[0].shape == (2, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(dtype, matrices):
    weight = torch.randn(5, 7).to(dtype)
    matrix, *_ = load_matrix(Network(None, matrices(w=weight)))
    np.testing.assert_array_equal(matrix, weight.float().numpy())


@pytest.mark.parametrize(
    ("tensors", "layer", "message"),
    [
        ({"a": torch.ones(2, 2), "b__weight": torch.ones(3, 3)}, None, r"holds 2 matrices \(a, b.weight\)"),
        ({"a": torch.ones(2)}, None, "holds 0 matrices; name a file with a matrix"),
        ({"a": torch.ones(2, 2)}, "b", r"no tensor b\.weight or b; its matrices are: a"),
        ({"a": torch.ones(2)}, "b", "its matrices are: none"),
        ({"a": torch.ones(2, 2, 2)}, "a", r"has shape \(2 x 2 x 2\)"),
        ({"a": torch.ones(0, 2)}, "a", r"has shape \(0 x 2\)"),
        ({"a": torch.ones(2, 2, dtype=torch.int8)}, "a", r"holds torch\.int8"),
        ({"a": torch.tensor([[1.0, torch.nan], [torch.inf, 2.0]])}, None, "tensor a: 2 of 4 values are NaN"),
        ({"a": torch.full((2, 2), 1e300, dtype=torch.float64)}, None, "4 of 4 values are NaN or infinity"),
    ],
)
def test_files_without_a_usable_matrix(tensors, layer, message, matrices):
    with pytest.raises(NetworkError, match=message):
        load_matrix(Network(None, matrices(**tensors), layer=layer))


def test_neither_model_nor_weights():
    with pytest.raises(NetworkError, match="neither a model nor weights"):
        load_matrix(Network(None))


@pytest.mark.data
@pytest.mark.skipif("HMATRIX_DATA" not in os.environ, reason="HMATRIX_DATA names no folder")
def test_studied_matrix():
    path = Path(os.environ["HMATRIX_DATA"]) / "models" / "resnet_fc_1000x512.safetensors"
    matrix, name, _ = load_matrix(Network(None, path))
    assert (matrix.shape, name) == ((1000, 512), "fc")
