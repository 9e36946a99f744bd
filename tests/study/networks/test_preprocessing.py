import numpy as np
import pytest
import timm
import torch
from networks import MODEL
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import transforms_imagenet_eval
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from hmatrix.errors import NetworkError
from hmatrix.study.config.settings import Interpolation, Network, PreprocessingOverride
from hmatrix.study.networks.models import Preprocessing, load_network
from hmatrix.study.networks.preprocessing import from_timm


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
