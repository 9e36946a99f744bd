"""H-matrices in safetensors files: the arrays of the packed form, and a header with a version.

Nothing in a file is executed, and all of it is checked before a kernel sees it.
"""

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from stat import S_IMODE

import numpy as np
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
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header = json.dumps({"version": VERSION, "shape": packed.shape, "quantized": packed.quantized})
    if not path.name:
        raise OutputError(f"file {path}", "cannot be written (it has no name)", "name a file")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        # safetensors writes files that nobody else may read; a new file has the mode that the user wants.
        temporary.touch(exist_ok=False)
        mode = S_IMODE(temporary.stat().st_mode)
        save_file(arrays, temporary, metadata={KEY: header})
        temporary.chmod(mode)
        temporary.replace(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise OutputError(
            f"file {path}", f"cannot be written ({error})", "name a place that you may write to"
        ) from error
    finally:
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)


def is_matrix(path: str | os.PathLike[str]) -> bool:
    """Return whether a safetensors file has the header of a single H-matrix.

    Raises
    ------
    FormatError
        If it cannot be read.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[KEY])
    except (OSError, SafetensorError) as error:
        came = f"cannot be read ({error})"
        raise FormatError(f"file {path}", came, "give a whole file written by hmatrix") from error
    except (KeyError, ValueError, TypeError, RecursionError):
        return False
    return isinstance(header, dict) and header.get("kind", "matrix") == "matrix"


def load(path: str | os.PathLike[str]) -> HMatrix:
    """Read an H-matrix that `save` wrote.

    Raises
    ------
    FormatError
        If the file is missing, truncated, of another kind or version, or its content fits no matrix.
    """
    path = Path(path)
    subject = f"file {path}"
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError) as error:
        # The last two come of types that NumPy does not have.
        raise FormatError(subject, f"cannot be read ({error})", "give a whole file written by hmatrix.save") from error
    try:
        header = json.loads(metadata[KEY])
        version = header["version"]
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise FormatError(subject, "has no header of an H-matrix", "give a file written by hmatrix.save") from error
    if version != VERSION or type(version) is not int:
        raise FormatError(
            subject, f"has version {version!r}", f"this release reads version {VERSION}: install a newer one"
        )
    try:
        (m, n), quantized = header["shape"], header["quantized"]
    except (KeyError, ValueError, TypeError) as error:
        raise FormatError(subject, "has no header of an H-matrix", "give a file written by hmatrix.save") from error
    if not isinstance(quantized, bool):
        raise FormatError(subject, f"has 'quantized' of {quantized!r}", "the file is damaged: write it again")
    if missing := {"leaves", "data"} - arrays.keys():
        raise FormatError(subject, f"has no {' and no '.join(sorted(missing))}", "give a file written by hmatrix.save")
    if unknown := arrays.keys() - {"leaves", "data", *_OPTIONAL}:
        raise FormatError(subject, f"has unknown arrays {sorted(unknown)}", "give a file written by hmatrix.save")
    try:
        return HMatrix(PackedBlocks((m, n), quantized=quantized, **arrays))
    except ArgumentError as error:
        raise FormatError(subject, str(error), "the file is damaged: write it again") from error
