"""Settings of a study: networks, data, structure, methods, ranks, timing.

Plain values only, so that a study can be written down, compared and repeated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any


class Interpolation(StrEnum):
    """Names of the ways to resize an image."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


@dataclass(frozen=True)
class PreprocessingOverride:
    """Replacements of parts of the model's own preprocessing; ``None`` keeps the model's.

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
    """

    resize: int | None = None
    crop: int | None = None
    interpolation: Interpolation | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Network:
    """A network, or a lone matrix, whose layer is studied.

    Parameters
    ----------
    model
        A torchvision or timm name (``torchvision:`` or ``timm:`` in front settles which), ``digits``
        for the embedded network, or ``None`` when `weights` holds a lone matrix.
    weights
        A safetensors file or a torch state dict; ``None`` downloads the library's own.
    layer
        Dotted name of an ``nn.Linear``; ``None`` is the last one. For a lone matrix, the tensor
        ``<layer>.weight`` or ``<layer>``; ``None`` is the only two-dimensional one.
    options
        Keyword arguments of the model's constructor.
    preprocessing
        Replacement of the model's own preprocessing.
    """

    model: str | None
    weights: Path | None = None
    layer: str | None = None
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    preprocessing: PreprocessingOverride = PreprocessingOverride()


@dataclass(frozen=True)
class FolderData:
    """An ImageNet validation folder: ``<path>/<WordNet id>/<image>``."""

    path: Path


@dataclass(frozen=True)
class ImagenetteData:
    """torchvision's Imagenette, downloaded into `root` where it is not there yet."""

    root: Path


@dataclass(frozen=True)
class DigitsData:
    """The half of scikit-learn's digits that the embedded network is not trained on."""


Data = FolderData | ImagenetteData | DigitsData


class Method(StrEnum):
    """Methods that approximate blocks, and the lines that they are compared with."""

    SVD = "svd"
    QR = "qr"
    ACA = "aca"
    PARTIAL_ACA = "partial-aca"
    RANDOMIZED_SVD = "randomized-svd"
    DENSE = "dense"
    GLOBAL_SVD = "global-svd"
    PROGRESSIVE = "progressive"


class CoordinatesName(StrEnum):
    """Names of the coordinates of rows and columns."""

    INDEX = "index"
    SCALED_INDEX = "scaled-index"


class SplitterName(StrEnum):
    """Names of the ways to split clusters."""

    CARDINALITY = "cardinality"
    GEOMETRIC = "geometric"
    PRINCIPAL_DIRECTION = "principal-direction"
    AUTOMATIC = "automatic"


class AdmissibilityName(StrEnum):
    """Names of the conditions of admissible blocks."""

    STRONG = "strong"
    STRONG_MIN = "strong-min"
    WEAK = "weak"


@dataclass(frozen=True)
class Structure:
    """Partition of the matrix; the defaults are those of the published study."""

    coordinates: CoordinatesName = CoordinatesName.INDEX
    splitter: SplitterName = SplitterName.CARDINALITY
    leaf_size: int = 60
    admissibility: AdmissibilityName = AdmissibilityName.STRONG
    eta: float = 2.0


@dataclass(frozen=True)
class Timing:
    """Timing of products.

    Parameters
    ----------
    products
        Products of each contender; ``None`` is as many as a stable median needs.
    threads
        Threads of every contender.
    """

    products: int | None = None
    threads: int = 1


@dataclass(frozen=True)
class Study:
    """All settings of a study."""

    title: str
    networks: tuple[Network, ...]
    data: Data | None
    methods: tuple[Method, ...] = (Method.SVD, Method.QR, Method.ACA)
    ranks: tuple[int, ...] = (1, *range(10, 121, 10))
    structure: Structure = Structure()
    timing: Timing = Timing()
    output: Path = Path("results")
