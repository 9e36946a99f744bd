"""Compressed networks in safetensors files: their state dict, and a header that tells which layers are H-matrices.

Nothing in a file is executed. Tensors are mapped into memory, not read; shared ones are stored once.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import hmatrix
from hmatrix._support.array_files import read_header as read_json
from hmatrix._support.digests import DIGESTS, check_digests, check_header, sealed
from hmatrix._support.files import written
from hmatrix._support.plain_values import PlainValues
from hmatrix.errors import ArgumentError, FormatError, NetworkError
from hmatrix.io import KEY
from hmatrix.matrix import HMatrix
from hmatrix.nn.layers.weight import HWeight
from hmatrix.nn.ops.prepared import PackedTensors
from hmatrix.nn.saved.blueprint import Blueprint, blueprints_of, build, heads_of, read_blueprints
from hmatrix.nn.saved.pretrained import make_ready
from hmatrix.nn.saved.tensor_digests import digest_of_tensor

NETWORK_VERSION = 1
_MEND = "give a whole file written by hmatrix.nn.save"


@dataclass(frozen=True)
class Header:
    """The header of a network's file.

    Parameters
    ----------
    version
        Version of the format.
    hmatrix
        Version of the package that wrote it.
    architecture
        The user's description of how to build the network, plain values.
    layers
        The layers that are H-matrices, by name.
    shared
        Names of tensors that are stored under another name.
    heads
        The shapes of the layers that are progressive heads, by name.

    Examples
    --------
    >>> layer = hnn.HLinear(hm.quantize(np.eye(8), "int8"))
    >>> hnn.save(torch.nn.Sequential(layer), "small.safetensors", {"model": "mine"})
    >>> header = hnn.read_header("small.safetensors")
    >>> header.architecture, list(header.layers)
    ({'model': 'mine'}, ['0'])
    """

    version: int
    hmatrix: str
    architecture: dict[str, Any]
    layers: dict[str, Blueprint]
    shared: dict[str, str]
    heads: dict[str, tuple[int, int]] = field(default_factory=dict)


def save(model: nn.Module, path: str | os.PathLike[str], architecture: Mapping[str, Any] | None = None) -> None:
    """Write a network with H-matrices or progressive heads to a safetensors file, all of it or nothing.

    Parameters
    ----------
    model
        The network that `compress` or `progressive_head` returned.
    path
        The file.
    architecture
        Plain values that tell how to build the network that `load` needs.

    Raises
    ------
    ArgumentError
        If the network has neither, or `architecture` is not of plain values.
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> small = torch.nn.Sequential(hnn.HLinear(hm.quantize(np.eye(8), "int8")))
    >>> hnn.save(small, "small.safetensors")
    >>> model = hnn.load("small.safetensors", torch.nn.Sequential(torch.nn.Linear(8, 8, bias=False)))
    >>> torch.equal(model(torch.ones(8)), small(torch.ones(8)))
    True
    """
    path = Path(path)
    tensors, shared = _deduplicated(model.state_dict())
    layers, heads = blueprints_of(model), heads_of(model)
    header = Header(NETWORK_VERSION, hmatrix.__version__, dict(architecture or {}), layers, shared, heads)
    if not layers and not heads:
        raise ArgumentError("model", "has no H-matrix", "compress it first")
    digests = {name: digest_of_tensor(name, tensor) for name, tensor in tensors.items()}
    try:
        text = json.dumps(sealed({"kind": "network", **asdict(header)}, digests))
    except (TypeError, ValueError) as error:
        raise ArgumentError("architecture", f"cannot be written ({error})", "give strings and numbers") from error
    with written(path, sum(tensor.nbytes for tensor in tensors.values())) as temporary:
        save_file(tensors, temporary, metadata={KEY: text})


def read_header(path: str | os.PathLike[str], *, verify: bool = True) -> Header:
    """Read the header of a file that `save` wrote.

    Parameters
    ----------
    path
        The file.
    verify
        Whether the header is checked against its digest.

    Raises
    ------
    FormatError
        If the file is missing, truncated, damaged, or of another kind or version.

    Examples
    --------
    >>> hnn.save(torch.nn.Sequential(hnn.HLinear(hm.quantize(np.eye(8), "int8"))), "small.safetensors")
    >>> list(hnn.read_header("small.safetensors").layers)
    ['0']
    """
    return _read(path, verify=verify)[0]


def _read(path: str | os.PathLike[str], *, verify: bool) -> tuple[Header, dict[str, str]]:
    """Return the header, and the digests of the tensors, which older files do not have."""
    subject = f"file {path}"
    content = read_json(Path(path), KEY, "hmatrix.nn.save")
    if not isinstance(content, dict) or content.get("kind") != "network" or "version" not in content:
        raise FormatError(subject, "has no header of a compressed network", _MEND)
    if type(content["version"]) is not int or content["version"] != NETWORK_VERSION:
        mend = f"this release reads version {NETWORK_VERSION}: install a newer one"
        raise FormatError(subject, f"has version {content['version']!r}", mend)
    digests = check_header(subject, content) if verify else {}
    values = PlainValues(subject, content, "the header is damaged: write it again")
    values.allow({"kind", *DIGESTS, *(field.name for field in fields(Header))})
    layers = read_blueprints(values.part("layers"))
    shared, architecture = values.part("shared"), dict(values.part("architecture").values)
    of_heads = values.part("heads") if "heads" in content else PlainValues(subject, {}, _MEND)
    owners = {name: shared.text(name) for name in shared.values}
    heads = {name: of_heads.shape(name) for name in of_heads.values}
    return Header(NETWORK_VERSION, values.text("hmatrix"), architecture, layers, owners, heads), digests


def load(path: str | os.PathLike[str], model: nn.Module, *, verify: bool = True) -> nn.Module:
    """Read a network that `save` wrote.

    Parameters
    ----------
    path
        The file. Its tensors are mapped into memory: it must stay as it is while the network is used.
    model
        The network that was compressed, as it was before, with any weights, on any device, the meta device too. It is
        changed, and should not be used any more if this fails.
    verify
        Whether the file is checked against the digests that `save` wrote into it.

    Returns
    -------
    nn.Module
        The network in evaluation mode, on the CPU; `model` itself unless that is a single layer.

    Raises
    ------
    FormatError
        If the file is missing, truncated, damaged, or of another kind or version.
    NetworkError
        If it is not of this network.

    Examples
    --------
    >>> hnn.save(torch.nn.Sequential(hnn.HLinear(hm.quantize(np.eye(8), "int8"))), "small.safetensors")
    >>> model = hnn.load("small.safetensors", torch.nn.Sequential(torch.nn.Linear(8, 8, bias=False)))
    >>> type(model[0]).__name__
    'HLinear'
    """
    header, digests = _read(path, verify=verify)
    subject = f"file {path}"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FormatError(subject, f"cannot be read ({error})", _MEND) from error
    if digests:
        check_digests(subject, {name: digest_of_tensor(name, tensor) for name, tensor in tensors.items()}, digests)
    if missing := set(header.shared.values()) - tensors.keys():
        raise FormatError(subject, f"lacks {', '.join(sorted(missing))}", "write it again")
    mend = f"give the network that was compressed ({header.architecture or 'the file does not say which'})"
    root = build(model, header.layers, lambda _, layer: HWeight.skeleton(layer.shape), heads=header.heads, mend=mend)
    state = {**tensors, **{name: tensors[owner] for name, owner in header.shared.items()}}
    try:
        root.load_state_dict(state, assign=True)
    except RuntimeError as error:
        mend = "give the network that was compressed"
        raise NetworkError(subject, f"does not fit the network ({error})", mend) from error
    _tie(root, header.shared)
    make_ready(root)
    return root.requires_grad_(False).eval()


def _deduplicated(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return each tensor once, contiguous, and the names of those that are another's."""
    tensors: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    owners: dict[Any, str] = {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            came = f"holds a {type(tensor).__name__} under {name} in its state dict"
            raise ArgumentError("model", came, "save networks whose state dict holds tensors only")
        start = tensor.untyped_storage().data_ptr(), tensor.storage_offset()
        key = (*start, tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and key in owners:
            shared[name] = owners[key]
            continue
        owners[key] = name
        # Views of one storage would be refused.
        whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
        tensors[name] = tensor if whole else tensor.contiguous().clone()
    return tensors, shared


def _tie(model: nn.Module, shared: Mapping[str, str]) -> None:
    """Make parameters that are stored once one parameter again."""
    for name, owner in shared.items():
        place, _, key = name.rpartition(".")
        own_place, _, own_key = owner.rpartition(".")
        module, source = model.get_submodule(place), model.get_submodule(own_place)
        if key in module._parameters and own_key in source._parameters:
            module._parameters[key] = source._parameters[own_key]


def load_matrix(path: str | os.PathLike[str], layer: str, *, verify: bool = True) -> HMatrix:
    """Read the H-matrix of one layer of a file that `save` wrote.

    Parameters
    ----------
    path
        The file.
    layer
        Name of the layer.
    verify
        Whether the header, and the arrays of the layer, are checked against their digests.

    Raises
    ------
    FormatError
        If the file is missing, truncated, damaged, or of another kind or version.
    ArgumentError
        If it has no such layer.

    Examples
    --------
    >>> hnn.save(torch.nn.Sequential(hnn.HLinear(hm.quantize(np.eye(8), "int8"))), "small.safetensors")
    >>> hnn.load_matrix("small.safetensors", "0").shape
    (8, 8)
    """
    header, digests = _read(path, verify=verify)
    subject = f"file {path}"
    if layer not in header.layers:
        raise ArgumentError("layer", f"{subject} has no {layer!r}", f"name one of {', '.join(header.layers)}")
    entry = header.layers[layer]
    prefix = f"{entry.weight}.weight." if entry.weight else "weight."
    with safe_open(path, framework="pt") as file:
        names = {name for name in PackedTensors._fields if prefix + name in file.keys()}  # noqa: SIM118
        tensors: list[Any] = [
            file.get_tensor(prefix + name) if name in names else None for name in PackedTensors._fields
        ]
    found = {prefix + name: tensor for name, tensor in zip(PackedTensors._fields, tensors, strict=True)}
    known = {name: digest for name, digest in digests.items() if name in found}
    check_digests(
        subject, {name: digest_of_tensor(name, found[name]) for name in known if found[name] is not None}, known
    )
    try:
        return PackedTensors(*tensors).matrix(entry.shape)
    except (ArgumentError, AttributeError) as error:
        raise FormatError(subject, f"layer {layer} is damaged ({error})", "write it again") from error
