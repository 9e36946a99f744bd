"""Weights in files: state dicts, lone matrices, and their digests; no pickle is ever executed."""

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from hmatrix._support.typing import Floats32
from hmatrix.errors import FormatError, NetworkError
from hmatrix.study.config.settings import Network

_WRAPPERS = ("state_dict", "model")
_PARALLEL = "module."
_SHOWN = 5


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a safetensors file or of a torch state dict.

    A wrapping ``{"state_dict": ...}`` or ``{"model": ...}`` is unwrapped, and the prefix ``module.``
    that ``DataParallel`` leaves is removed.

    Raises
    ------
    FormatError
        If the file is missing, truncated, foreign, or holds anything but tensors under names.
    """
    subject = f"weights {path}"
    try:
        with path.open("rb") as file:
            magic = file.read(9)
    except OSError as error:
        raise FormatError(subject, f"cannot be read ({error.strerror})", "name a file of weights") from error
    # A safetensors file is eight bytes of length, then JSON.
    safe = path.suffix == ".safetensors" or magic[8:] == b"{"
    content: Any = _read_safetensors(path, subject) if safe else _read_torch(path, subject, magic)
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        raise FormatError(subject, f"holds a {type(content).__name__}, not a state dict", "save model.state_dict()")
    foreign = [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if foreign or not content:
        came = f"holds entries that are not tensors ({shortened(foreign)})" if foreign else "holds no tensors"
        raise FormatError(subject, came, "save model.state_dict() alone")
    if all(key.startswith(_PARALLEL) for key in content):
        consume_prefix_in_state_dict_if_present(content, _PARALLEL)
    return content


def _read_safetensors(path: Path, subject: str) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise FormatError(
            subject, f"is not a whole safetensors file ({error})", "copy or save the file again"
        ) from error


def _read_torch(path: Path, subject: str, magic: bytes) -> Any:
    try:
        with warnings.catch_warnings():
            # torch warns of pickles and archives that it then refuses anyway.
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            warnings.filterwarnings("ignore", message="'torch.load' received a zip file", category=UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not magic.startswith((b"PK", b"\x80")):
            raise FormatError(subject, "is no file of weights", "name a safetensors file or a state dict") from error
        raise FormatError(
            subject,
            "holds Python objects, which could run code when they are loaded",
            "save the tensors alone: torch.save(model.state_dict(), FILE), or as safetensors",
        ) from error
    except Exception as error:  # whatever a damaged pickle happens to raise, from KeyError to struct.error
        reason = str(error).split("\n", 1)[0]
        raise FormatError(
            subject, f"is truncated or no file of weights ({type(error).__name__}: {reason})", "copy or save it again"
        ) from error


def digest_tensors(tensors: Mapping[str, torch.Tensor], *context: str) -> str:
    """Return the sha256, in hexadecimal, of names, dtypes, shapes and bytes of `tensors`, and of `context`."""
    digest = hashlib.sha256(repr(context).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        # NumPy lacks some of torch's dtypes, so the bytes go through uint8.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def shortened(names: list[str]) -> str:
    """Return the first few of `names` and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def check_finite(tensor: torch.Tensor, subject: str) -> None:
    """Raise NetworkError, about `subject`, if `tensor` holds NaN or infinity."""
    count = int((~torch.isfinite(tensor)).sum())
    if count:
        raise NetworkError(subject, f"{count} of {tensor.numel()} values are NaN or infinity", "use intact weights")


def load_matrix(network: Network) -> tuple[Floats32, str, str]:
    """Load a lone matrix.

    Parameters
    ----------
    network
        ``weights`` names the file; ``layer`` the tensor ``<layer>.weight`` or ``<layer>``, where
        ``None`` is the only two-dimensional one.

    Returns
    -------
    matrix : (out, in) array of float32
    name : str
        Name by which ``layer`` gets this matrix: its key without ``.weight``.
    digest : str
        sha256 of name, shape and bytes.

    Raises
    ------
    FormatError
        If the file cannot be read.
    NetworkError
        If no file is named, the file lacks the matrix, or the matrix cannot be used.
    """
    if network.weights is None:
        raise NetworkError("network", "neither a model nor weights are given", "name a model, or --weights FILE")
    tensors = read_state_dict(network.weights)
    key = _find_matrix(tensors, network.layer, f"weights {network.weights}")
    tensor = tensors[key]
    subject = f"weights {network.weights}, tensor {key}"
    shape = " x ".join(str(n) for n in tensor.shape)
    if tensor.ndim != 2 or 0 in tensor.shape:
        raise NetworkError(subject, f"has shape ({shape})", "name a matrix with at least one row and column")
    if not tensor.is_floating_point():
        raise NetworkError(subject, f"holds {tensor.dtype}", "name a matrix of floating-point numbers")
    matrix = tensor.to(torch.float32)
    check_finite(matrix, subject)
    name = key.removesuffix(".weight")
    return matrix.numpy(), name, digest_tensors({name: matrix})


def _find_matrix(tensors: Mapping[str, torch.Tensor], layer: str | None, subject: str) -> str:
    matrices = [key for key, tensor in tensors.items() if tensor.ndim == 2]
    if layer is not None:
        key = next((key for key in (f"{layer}.weight", layer) if key in tensors), None)
        if key is None:
            there = ", ".join(sorted(matrices)) or "none"
            raise NetworkError(subject, f"has no tensor {layer}.weight or {layer}", f"its matrices are: {there}")
        return key
    if len(matrices) != 1:
        came = f"holds {len(matrices)} matrices" + (f" ({shortened(sorted(matrices))})" if matrices else "")
        mend = "name one with --layer (hmatrix compress: --layers); hmatrix.nn.compress takes your own network, whole"
        raise NetworkError(subject, came, mend if matrices else "name a file with a matrix")
    return matrices[0]
