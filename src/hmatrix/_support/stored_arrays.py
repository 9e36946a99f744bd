"""The arrays of a safetensors file: each is read once, to where it stays, and its digest made on the way."""

import json
import math
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from hmatrix._support.digests import digest_of
from hmatrix._support.memory import aligned_empty, pieces
from hmatrix._support.typing import AnyArray

_TYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"I{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"F{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
"""Types of arrays by their names in safetensors files."""

_Read = tuple[str, AnyArray, str]


@contextmanager
def opened(path: Path, *, digested: bool) -> Iterator[tuple[dict[str, str], Iterator[_Read]]]:
    """Open a file; give its metadata, and an iterator over names, arrays and digests, empty if unwanted.

    Arrays begin on a cache line. All of them together are as large as the file says that it is.

    Raises
    ------
    OSError, SafetensorError, ValueError
        If it is no whole safetensors file, or NumPy does not have a type in it.
    """
    # safetensors checks types, shapes and sizes of all arrays against the length of the file.
    with safe_open(path, framework="numpy"):
        pass
    with path.open("rb", buffering=0) as file:
        length = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(length))
        metadata = entries.pop("__metadata__", None) or {}
        yield metadata, (_read(file, 8 + length, name, entry, digested=digested) for name, entry in entries.items())


def _read(file: FileIO, begin: int, name: str, entry: Mapping[str, Any], *, digested: bool) -> _Read:
    """Read an array, and make its digest while each piece is in the cache."""
    if entry["dtype"] not in _TYPES:
        raise ValueError(f"{name} has the type {entry['dtype']}, which NumPy does not have")
    dtype, shape = _TYPES[entry["dtype"]], entry["shape"]
    flat: AnyArray = aligned_empty(math.prod(shape), dtype)
    file.seek(begin + entry["data_offsets"][0])

    content = _filled(file, flat, name)
    if digested:
        digest = digest_of(name, dtype.name, shape, content)
    else:
        digest = ""
        deque(content, maxlen=0)
    return name, flat.reshape(shape), digest


def _filled(file: FileIO, flat: AnyArray, name: str) -> Iterator[AnyArray]:
    """Read an array piece by piece, and give the pieces."""
    for piece in pieces(flat.view(np.uint8)):
        if file.readinto(piece.data) != piece.size:
            raise ValueError(f"it ends within {name}")
        yield piece
