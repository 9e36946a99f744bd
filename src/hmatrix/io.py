"""H-matrices in safetensors files: the arrays of the packed form, and a header with a version.

Nothing in a file is executed, and all of it is checked before a kernel sees it.
"""

import json
import os
import secrets
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hmatrix.errors import ArgumentError, FormatError, OutputError
from hmatrix.matrix import HMatrix
from hmatrix.packed import PackedBlocks

KEY = "hmatrix"
VERSION = 1
_OPTIONAL = ("row_permutation", "column_permutation")


def save(matrix: HMatrix, path: str | os.PathLike[str]) -> None:
    """Write an H-matrix to a safetensors file, all of it or nothing.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    packed = matrix.pack()
    arrays = {"leaves": packed.leaves, "data": packed.data}
    arrays |= {name: array for name in _OPTIONAL if (array := getattr(packed, name)) is not None}
    header = json.dumps({"version": VERSION, "shape": packed.shape, "quantized": packed.quantized})
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        save_file(arrays, temporary, metadata={KEY: header})
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(
            f"file {path}", f"cannot be written ({error})", "name a place that you may write to"
        ) from error


def load(path: str | os.PathLike[str]) -> HMatrix:
    """Read an H-matrix that `save` wrote.

    Raises
    ------
    FormatError
        If the file is missing, truncated, of another kind or version, or its content fits no matrix.
    """
    subject = f"file {path}"
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise FormatError(subject, f"cannot be read ({error})", "give a whole file written by hmatrix.save") from error
    try:
        header = json.loads(metadata[KEY])
        version, (m, n), quantized = int(header["version"]), header["shape"], bool(header["quantized"])
    except (KeyError, ValueError, TypeError) as error:
        raise FormatError(subject, "has no header of an H-matrix", "give a file written by hmatrix.save") from error
    if version != VERSION:
        raise FormatError(
            subject, f"has version {version}", f"this release reads version {VERSION}: install a newer one"
        )
    if missing := {"leaves", "data"} - arrays.keys():
        raise FormatError(subject, f"has no {' and no '.join(sorted(missing))}", "give a file written by hmatrix.save")
    if unknown := arrays.keys() - {"leaves", "data", *_OPTIONAL}:
        raise FormatError(subject, f"has unknown arrays {sorted(unknown)}", "give a file written by hmatrix.save")
    try:
        return HMatrix(PackedBlocks((m, n), quantized=quantized, **arrays))
    except ArgumentError as error:
        raise FormatError(subject, str(error), "the file is damaged: write it again") from error
