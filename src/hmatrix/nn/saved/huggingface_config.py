"""The configuration of a compressed network in Hugging Face's transformers, as ``config.json`` holds it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

try:
    import transformers
    from transformers.quantizers import register_quantization_config
    from transformers.utils.quantization_config import QuantizationConfigMixin
except ModuleNotFoundError as error:
    message = f"{error.name} is not installed; install it with: pip install 'hmatrix[huggingface]'"
    raise ModuleNotFoundError(message, name=error.name) from error

from hmatrix.codes.precision import Activations
from hmatrix.errors import ArgumentError, FormatError, NetworkError
from hmatrix.nn.layers.trainable import TrainableWeight
from hmatrix.nn.layers.weight import HWeight
from hmatrix.nn.ops.prepared import PackedTensors
from hmatrix.nn.saved.blueprint import Blueprint, blueprints_of, weights_of

METHOD = "hmatrix"
VERSION = 1
_OLDEST = 5

if int(transformers.__version__.partition(".")[0]) < _OLDEST:
    raise NetworkError("transformers", f"has version {transformers.__version__}", f"install {_OLDEST}.0 or newer")


@register_quantization_config(METHOD)
class HMatrixConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """Settings of the compression of a network while it is loaded, or the layers of a saved one.

    Parameters
    ----------
    storage
        Fraction of the float32 bytes of its layers, for a network that is compressed while it is loaded. Without
        calibration data all columns of a weight and all layers count the same; `hmatrix.nn.compress` does better.
    activations
        Treatment of a product's input where it meets integer codes.
    skip
        Layers to leave as they are: exact names, or regular expressions after ``re:``.
    version, layers
        Version and blueprints, written by `save_pretrained`.

    Raises
    ------
    FormatError
        If the version is of a later release.

    Examples
    --------
    >>> from hmatrix.nn.huggingface import HMatrixConfig
    >>> config = HMatrixConfig(storage=0.25, skip=["re:.*query"])
    >>> config.storage, config.activations
    (0.25, 'int8')
    """

    def __init__(
        self,
        storage: float | None = None,
        *,
        activations: str = "int8",
        skip: Sequence[str] = (),
        version: int = VERSION,
        layers: Mapping[str, Any] | None = None,
        quant_method: str = METHOD,
    ) -> None:
        if type(version) is not int or version != VERSION:
            mend = f"this release reads version {VERSION}: install a newer one"
            raise FormatError("quantization_config", f"has version {version!r}", mend)
        self.quant_method = quant_method
        self.version = version
        self.storage = storage
        self.activations = Activations.of(activations).value
        self.skip = list(skip)
        self.layers = None if layers is None else dict(layers)

    @classmethod
    def of(cls, model: nn.Module) -> "HMatrixConfig":
        """Describe a compressed network.

        Raises
        ------
        ArgumentError
            If it has no H-matrix, or some that are being trained.
        """
        if any(isinstance(module, TrainableWeight) for module in model.modules()):
            raise ArgumentError("model", "has H-matrices that are being trained", "pack them: hmatrix.nn.freeze(model)")
        layers: dict[str, Any] = {name: asdict(blueprint) for name, blueprint in blueprints_of(model).items()}
        if not layers:
            raise ArgumentError("model", "has no H-matrix", "compress it first")
        for name, weight in weights_of(model):
            layers[name]["parts"] = {part: _described(tensor) for part, tensor in weight.tensors._asdict().items()}
        return cls(layers=layers)

    def blueprints(self) -> dict[str, Blueprint]:
        """Return the blueprints of the layers, by name.

        Raises
        ------
        FormatError
            If they are damaged.
        """
        with _reading("layers"):
            return {str(name): Blueprint.of_plain(entry) for name, entry in (self.layers or {}).items()}

    def placeholder(self, name: str) -> HWeight:
        """Return the weight that a layer owns, on the meta device.

        Raises
        ------
        FormatError
            If it is damaged.
        """
        with _reading(f"layer {name}"):
            entry = (self.layers or {})[name]
            parts: list[Any] = [_placeholder(entry["parts"][part]) for part in PackedTensors._fields]
            return HWeight.expecting(Blueprint.of_plain(entry).shape, PackedTensors(*parts))


_TYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.int32, torch.float64, torch.bool)}


def _described(tensor: Tensor | None) -> list[Any] | None:
    return None if tensor is None else [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]


def _placeholder(entry: Any) -> Tensor | None:
    return None if entry is None else torch.empty(entry[1], dtype=_TYPES[entry[0]], device="meta")


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        came = f"{what}: is damaged ({type(error).__name__}: {error})"
        raise FormatError("quantization_config", came, "save the network again") from error
