"""Preprocessing of images to a network's inputs, as torchvision and timm prescribe it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from hmatrix.errors import NetworkError
from hmatrix.study.config.settings import Interpolation, PreprocessingOverride


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop the centre, normalise.

    Parameters
    ----------
    resize
        Length of the image's shorter side after resizing, in pixels.
    crop
        Side of the square centre crop, in pixels.
    interpolation
        Way to resize the image.
    mean, std
        Per channel, for pixel values in [0, 1].

    Raises
    ------
    NetworkError
        If a value cannot be used.
    """

    resize: int
    crop: int
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if min(self.resize, self.crop) < 1:
            came = f"resize is {self.resize} and crop is {self.crop}"
            raise NetworkError("preprocessing", came, "give lengths of at least one pixel")
        values = (*self.mean, *self.std)
        if len(self.mean) != 3 or len(self.std) != 3 or not np.isfinite(values).all() or min(self.std) <= 0:
            came = f"mean is {self.mean} and std is {self.std}"
            raise NetworkError("preprocessing", came, "give three finite numbers each, those of std positive")

    def apply(self, image: Image.Image) -> torch.Tensor:
        """Return `image` as float32 of shape (3, crop, crop), with the bits of torchvision's transforms."""
        image = transforms.resize(image.convert("RGB"), [self.resize], InterpolationMode(self.interpolation.value))
        image = transforms.center_crop(image, [self.crop])
        # In NumPy, because images are read in threads, each of which would start torch's own threads.
        pixels = np.array(image, dtype=np.float32)
        pixels /= np.float32(255)
        pixels -= np.array(self.mean, dtype=np.float32)
        pixels /= np.array(self.std, dtype=np.float32)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def from_torchvision(preset: Any, override: PreprocessingOverride) -> Preprocessing:
    """Return the preprocessing of torchvision's ``transforms()``, an ``ImageClassification``, with `override`."""
    return Preprocessing(
        **{
            "resize": preset.resize_size[0],
            "crop": preset.crop_size[0],
            "interpolation": Interpolation(preset.interpolation.value),
            "mean": tuple(preset.mean),
            "std": tuple(preset.std),
            **_given(override),
        }
    )


def from_timm(config: Mapping[str, Any], override: PreprocessingOverride) -> Preprocessing:
    """Return the preprocessing of a timm data configuration, of ``resolve_data_config``, with `override`.

    Raises
    ------
    NetworkError
        If the configuration is not a resize of the shorter side and a square centre crop of three
        channels, and `override` does not say what to do instead.
    """
    given = _given(override)
    channels, height, width = config["input_size"]
    if channels != 3:
        raise NetworkError("preprocessing", f"the network reads {channels} channels", "use a network that reads three")
    if not {"resize", "crop"} <= given.keys() and (height != width or config["crop_mode"] != "center"):
        came = f"timm prepares {height} x {width} pixels by crop mode {config['crop_mode']}, which is not supported"
        raise NetworkError("preprocessing", came, "give resize and crop")
    if "interpolation" not in given and config["interpolation"] not in list(Interpolation):
        came = f"timm resizes by {config['interpolation']}, which is not supported"
        raise NetworkError("preprocessing", came, f"give interpolation, one of {', '.join(Interpolation)}")
    own = {
        "resize": math.floor(height / config["crop_pct"]),
        "crop": height,
        "interpolation": config["interpolation"],
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
    }
    merged = own | given
    return Preprocessing(**merged | {"interpolation": Interpolation(merged["interpolation"])})


def _given(override: PreprocessingOverride) -> dict[str, Any]:
    return {name: value for name, value in asdict(override).items() if value is not None}
