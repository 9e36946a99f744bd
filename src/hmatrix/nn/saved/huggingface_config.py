"""The configuration of a compressed network in Hugging Face's transformers, as ``config.json`` holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from inspect import signature
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

from hmatrix._support.checks import LARGEST_SIZE, check_number
from hmatrix._support.digests import ARRAYS, DIGESTS, HEADER, check_header, sealed
from hmatrix._support.plain_values import PlainValues
from hmatrix.codes.precision import Activations
from hmatrix.errors import ArgumentError, FormatError, NetworkError
from hmatrix.nn.layers.trainable import TrainableWeight
from hmatrix.nn.layers.weight import HWeight
from hmatrix.nn.ops.prepared import PackedTensors
from hmatrix.nn.saved.blueprint import Blueprint, blueprints_of, read_blueprints, weights_of
from hmatrix.packed.packed_blocks import OPTIONAL

METHOD = "hmatrix"
VERSION = 2
"""The version that has digests."""

_BARE = 1
"""The version that has none: of older releases, and of a configuration before its network is saved."""

_OLDEST = 5
_SUBJECT = "quantization_config"
_MEND = "config.json is damaged: save the network again"

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
    verify
        Whether a saved network is checked against its digests. To skip that, load the configuration alone, set
        ``config.quantization_config["verify"] = False``, and give it to `from_pretrained`.
    version, layers, array_digests, header_digest, quant_method
        Version, blueprints, digests of all tensors, and of the configuration itself, written by `save_pretrained`.

    Raises
    ------
    ArgumentError
        If an argument for loading cannot be used.
    FormatError
        If the version is of a later release, or what `save_pretrained` wrote is damaged.

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
        verify: bool = True,
        version: int = _BARE,
        layers: Mapping[str, Any] | None = None,
        array_digests: Mapping[str, str] | None = None,
        header_digest: str | None = None,
        quant_method: str = METHOD,
    ) -> None:
        if type(version) is not int or version not in (_BARE, VERSION):
            mend = f"this release reads versions {_BARE} and {VERSION}: install a newer one"
            raise FormatError(_SUBJECT, f"has version {version!r}", mend)
        if quant_method != METHOD:
            raise FormatError(_SUBJECT, f"has quant_method of {quant_method!r}, not {METHOD!r}", _MEND)
        if not isinstance(verify, bool):
            raise ArgumentError("verify", f"got {verify!r}", "give True or False")
        if not isinstance(skip, (list, tuple)) or not all(isinstance(name, str) for name in skip):
            raise ArgumentError("skip", f"got {skip!r}", "give a list of names of layers")
        self.quant_method = quant_method
        self.version = version
        self.storage = None if storage is None else check_number("storage", storage, above=0.0)
        self.activations = Activations.of(activations).value
        self.skip = list(skip)
        self.layers = None if layers is None else dict(PlainValues(_SUBJECT, layers, _MEND, "layers").values)
        self.array_digests, self.header_digest = array_digests, header_digest
        self.verify = verify
        # A configuration of version 1 that has digests was changed, as one of version 2 that has none.
        if verify and (version == VERSION or array_digests is not None or header_digest is not None):
            check_header(_SUBJECT, {ARRAYS: None, HEADER: None} | self.to_dict())

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """Return the configuration that ``config.json`` holds, as transformers asks for it.

        Raises
        ------
        FormatError
            If it is damaged.
        """
        values = PlainValues(_SUBJECT, config_dict, _MEND)
        values.allow(signature(cls).parameters.keys())
        try:
            return super().from_dict(dict(values.values), return_unused_kwargs, **kwargs)
        except ArgumentError as error:
            raise FormatError(_SUBJECT, str(error), _MEND) from error

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values that ``config.json`` holds."""
        values: dict[str, Any] = super().to_dict()
        del values["verify"]
        return {key: value for key, value in values.items() if value is not None or key not in DIGESTS}

    def with_digests(self, digests: Mapping[str, str]) -> "HMatrixConfig":
        """Return the configuration with digests of all tensors of the network, and one of itself."""
        return HMatrixConfig(**sealed({**self.to_dict(), "version": VERSION}, digests))

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
        return read_blueprints(PlainValues(_SUBJECT, self.layers or {}, _MEND, "layers"), others=["parts"])

    def placeholder(self, name: str) -> HWeight:
        """Return the weight that a layer owns, on the meta device.

        Raises
        ------
        FormatError
            If it is damaged.
        """
        entry = PlainValues(_SUBJECT, self.layers or {}, _MEND, "layers").part(name)
        described = entry.part("parts")
        described.allow(PackedTensors._fields)
        parts: list[Any] = [_placeholder(described, part) for part in PackedTensors._fields]
        return HWeight.expecting(entry.shape("shape"), PackedTensors(*parts))


_TYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.int32, torch.float64, torch.bool)}


def _described(tensor: Tensor | None) -> list[Any] | None:
    return None if tensor is None else [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]


def _placeholder(parts: PlainValues, part: str) -> Tensor | None:
    entry = parts.get(part)
    if entry is None and part in OPTIONAL:
        return None
    match entry:
        case [str(kind), [*shape]] if kind in _TYPES and len(shape) == _DIMENSIONS[part]:
            if all(type(size) is int and 0 <= size <= LARGEST_SIZE for size in shape):
                return torch.empty(shape, dtype=_TYPES[kind], device="meta")
    return parts.refuse(part, f"a type ({', '.join(_TYPES)}) and the shape of a tensor")


_DIMENSIONS = {"words": 1, "leaves": 2, "quantized": 0, **dict.fromkeys(OPTIONAL, 1)}
