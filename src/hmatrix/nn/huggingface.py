"""Compressed networks of Hugging Face's transformers: saved by `save_pretrained`, loaded by `from_pretrained`.

Import this module where such a network is loaded: that registers the method ``hmatrix`` with transformers. Networks
that `hmatrix.nn.compress` returns are ready to be saved.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

# First, since it tells what is missing.
from hmatrix.nn.saved.huggingface_config import METHOD, HMatrixConfig  # isort: skip
from transformers import PreTrainedModel
from transformers.quantizers import HfQuantizer, register_quantizer

from hmatrix.allocation import Budget
from hmatrix.codes.precision import Activations
from hmatrix.errors import ArgumentError, FormatError, NetworkError
from hmatrix.nn.network.allocating import NetworkAllocator, parts_of
from hmatrix.nn.network.calibration import Inputs
from hmatrix.nn.network.replacing import exchange
from hmatrix.nn.network.targets import LayerSettings, everything, find_targets
from hmatrix.nn.ops.prepared import PackedTensors
from hmatrix.nn.saved.blueprint import blueprints_of, build, weights_of
from hmatrix.nn.saved.huggingface_files import check_files
from hmatrix.nn.saved.tensor_digests import digest_of_tensor

__all__ = ["HMatrixConfig", "HMatrixQuantizer", "carry"]


@register_quantizer(METHOD)
class HMatrixQuantizer(HfQuantizer):  # type: ignore[misc]
    """The quantiser that transformers calls while it loads and saves a network with H-matrices.

    Examples
    --------
    >>> from hmatrix.nn.huggingface import HMatrixConfig, HMatrixQuantizer
    >>> quantizer = HMatrixQuantizer(HMatrixConfig(storage=0.25), pre_quantized=False)
    >>> quantizer.validate_environment()
    >>> quantizer.is_serializable()
    True
    """

    quantization_config: HMatrixConfig

    def validate_environment(self, *_: Any, **__: Any) -> None:
        """Check the configuration before a network is made.

        Raises
        ------
        FormatError
            If a saved one has no layers.
        ArgumentError
            If one for loading has no storage.
        """
        if self.pre_quantized and not self.quantization_config.layers:
            raise FormatError("quantization_config", "names no layers", "save the network again")
        if not self.pre_quantized and self.quantization_config.storage is None:
            raise ArgumentError("quantization_config", "has no storage", "give HMatrixConfig(storage=0.25)")

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True

    @property
    def is_compileable(self) -> bool:
        return True

    def get_state_dict_and_metadata(self, model: PreTrainedModel) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the state dict with shared parts once, after the configuration was given the network's layers."""
        state: dict[str, Tensor] = model.state_dict()
        for name, blueprint in blueprints_of(model).items():
            if name != blueprint.weight:
                for part in PackedTensors._fields:
                    state.pop(f"{name}.weight.{part}", None)
        digests = {name: digest_of_tensor(name, tensor) for name, tensor in state.items()}
        model.config.quantization_config = HMatrixConfig.of(model).with_digests(digests)
        return state, {}

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: Sequence[str] | None = None, **_: Any
    ) -> PreTrainedModel:
        if self.pre_quantized:
            check_files(checkpoint_files or (), self.quantization_config)
            self._sharing = _expect(model, self.quantization_config)
        return model

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **_: Any) -> PreTrainedModel:
        if self.pre_quantized:
            for name, owner in self._sharing.items():
                model.get_submodule(name).weight = model.get_submodule(owner).weight
            _check_all_read(model, self.quantization_config.array_digests or {})
            _check(model)
        else:
            _compress(model, self.quantization_config)
        return model


def carry(network: nn.Module) -> None:
    """Make the transformers models in a compressed network ready for `save_pretrained`.

    Raises
    ------
    NetworkError
        If one of them is quantised by another method, too.

    Examples
    --------
    >>> import transformers
    >>> from hmatrix.nn.huggingface import carry
    >>> sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> model = transformers.BertModel(transformers.BertConfig(vocab_size=40, max_position_embeddings=8, **sizes))
    >>> model.pooler.dense = hnn.HLinear(hm.quantize(np.eye(16), "int8"), torch.zeros(16))
    >>> carry(model)
    >>> list(model.config.quantization_config.layers)
    ['pooler.dense']
    """
    for model in _models(network):
        other = getattr(model, "hf_quantizer", None)
        if other is not None and not isinstance(other, HMatrixQuantizer):
            raise NetworkError("network", f"is quantised by a {type(other).__name__}", "load it without quantization")
        if not blueprints_of(model):
            continue
        model.config.quantization_config = HMatrixConfig.of(model)
        model.hf_quantizer = HMatrixQuantizer(model.config.quantization_config, pre_quantized=True)
        model.quantization_method = METHOD
        model.is_quantized = True


def _models(network: nn.Module) -> Iterator[PreTrainedModel]:
    """Return the outermost transformers models."""
    if isinstance(network, PreTrainedModel):
        yield network
        return
    for child in network.children():
        yield from _models(child)


def _expect(model: PreTrainedModel, config: HMatrixConfig) -> dict[str, str]:
    """Put layers in their places whose weights are to be loaded.

    Returns
    -------
    dict of str to str
        Owner of the weight of each layer that shares one. They have none yet: transformers makes up tensors that are
        not in the file.

    Raises
    ------
    FormatError
        If the configuration is damaged.
    NetworkError
        If it is of another network.
    """
    blueprints = config.blueprints()
    local = _local_names(blueprints, model)
    stored = {local[name]: blueprint for name, blueprint in blueprints.items() if name in local}
    mend = "load a model of the architecture that was compressed"
    lost = {blueprint.weight for blueprint in stored.values()} - local.keys()
    if lost or not stored:
        came = f"has no {', '.join(sorted(lost))}" if lost else "has none of the compressed layers"
        raise NetworkError("network", came, mend)
    layers = dict(stored)
    ties: dict[str, str] = model.all_tied_weights_keys
    for first, second in [pair for tie in ties.items() for pair in (tie, tie[::-1])]:
        # A model with a head that the saved one did not have: its weight is the embedding's.
        (name, _, part), owner = first.rpartition("."), second.rpartition(".")[0]
        if part == "weight" and owner in stored and name not in stored:
            bias = getattr(model.get_submodule(name), "bias", None)
            layers[name] = replace(stored[owner], has_bias=bias is not None, zero_padding=False)
    for first, second in list(ties.items()):
        # The tensors that transformers would tie are no parameters any more, or their layers' own.
        names = {tied.rpartition(".")[0] for tied in (first, second)}
        if names & stored.keys() or (first.endswith(".weight") and names & layers.keys()):
            del ties[first]
    build(model, layers, lambda _, layer: config.placeholder(layer.weight), mend=mend)
    sharing = {}
    for name, blueprint in layers.items():
        owner = local[blueprint.weight]
        if model.get_submodule(name) is not model.get_submodule(owner):
            del model.get_submodule(name).weight
            sharing[name] = owner
    return sharing


def _local_names(names: Iterable[str], model: PreTrainedModel) -> dict[str, str]:
    """Return the layers that a model has, which may be a part of the saved one, or have it as a part."""
    known = {name for name, _ in model.named_modules(remove_duplicate=False)}
    prefix = f"{model.base_model_prefix}."
    found = {}
    for name in names:
        candidates = (name, prefix + name, name.removeprefix(prefix))
        if (local := next((candidate for candidate in candidates if candidate in known), None)) is not None:
            found[name] = local
    return found


def _check_all_read(model: nn.Module, names: Iterable[str]) -> None:
    """Check that parameters which the folder had when it was written were read: transformers makes up what is missing.

    Raises
    ------
    FormatError
        If some were not.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    own = [name for name in names if name in parameters]
    if lost := [name for name in own if not hasattr(parameters[name], "_is_hf_initialized")]:
        raise FormatError("network", f"lacks {', '.join(sorted(lost))}", "save the network again")


def _check(model: nn.Module) -> None:
    """Check the layers that were loaded, and prepare them.

    Raises
    ------
    FormatError
        If parts of a matrix are missing or damaged.
    """
    for name, weight in weights_of(model):
        parts = weight.tensors._asdict().items()
        # transformers marks what it read, and makes up the rest.
        lost = [part for part, tensor in parts if tensor is not None and not hasattr(tensor, "_is_hf_initialized")]
        if lost:
            raise FormatError(f"layer {name}", f"lacks {', '.join(lost)}", "save the network again")
        try:
            weight.prepared()
        except ArgumentError as error:
            raise FormatError(f"layer {name}", f"is damaged ({error})", "save the network again") from error


def _compress(model: PreTrainedModel, config: HMatrixConfig) -> None:
    """Compress a network in place, by its weights alone."""
    settings = LayerSettings(activations=Activations.of(config.activations))
    targets = find_targets(model, everything, dict.fromkeys(config.skip), settings)
    parts = parts_of(targets, Inputs.unknown(len(targets)), None)
    allocator = NetworkAllocator(parts, measured=False, progress=True)
    exchange(model, allocator.successors(allocator.fit(Budget(storage=config.storage))))
    carry(model)
