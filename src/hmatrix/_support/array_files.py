"""Arrays in safetensors files with a header that has a version, and digests of both.

Nothing in a file is executed; others check the meaning of its arrays.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hmatrix._support.digests import check_digests, check_header, digests_of, sealed
from hmatrix._support.files import written
from hmatrix._support.stored_arrays import opened
from hmatrix._support.typing import AnyArray
from hmatrix.errors import FormatError


def write_arrays(arrays: Mapping[str, AnyArray], path: Path, key: str, header: Mapping[str, object]) -> None:
    """Write arrays and a header, which gets digests of both.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps(sealed(header, digests_of(contiguous)))
    with written(path, sum(array.nbytes for array in contiguous.values())) as temporary:
        save_file(contiguous, temporary, metadata={key: text})


def read_header(path: Path, key: str, writer: str) -> Any:
    """Read the header alone; ``None`` if the file has none.

    Raises
    ------
    FormatError
        If the file is missing or truncated.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error, writer) from error
    try:
        return json.loads(metadata[key])
    except (KeyError, ValueError, RecursionError):
        return None


def read_arrays(
    path: Path, key: str, versions: Collection[int], kind: str, writer: str, *, verify: bool = True
) -> tuple[dict[str, AnyArray], dict[str, Any]]:
    """Read arrays and their header. Each array is read once, to where it stays, and begins on a cache line.

    Parameters
    ----------
    path
        The file.
    key, versions
        Name of the header, and the versions of it that can be read.
    kind, writer
        Kind of the file, and the function that writes such files, for messages.
    verify
        Whether both are checked against their digests, if the file has some.

    Raises
    ------
    FormatError
        If the file is missing, truncated, damaged, or of another kind or version.
    """
    subject, mend = f"file {path}", f"give a file written by {writer}"
    try:
        with opened(path, digested=verify) as (metadata, content):
            header = _versioned(subject, metadata.get(key), versions, kind, mend)
            expected = check_header(subject, header) if verify else {}
            arrays, digests = {}, {}
            for name, array, digest in content:
                arrays[name], digests[name] = array, digest
    except (OSError, SafetensorError, ValueError) as error:
        raise _unreadable(path, error, writer) from error
    if verify:
        check_digests(subject, digests, expected)
    return arrays, header


def _versioned(subject: str, text: Any, versions: Collection[int], kind: str, mend: str) -> dict[str, Any]:
    """Return the header that a text holds.

    Raises
    ------
    FormatError
        If there is none, or it is of another version.
    """
    try:
        header: dict[str, Any] = json.loads(text)
        found = header["version"]
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise FormatError(subject, f"has no header of {kind}", mend) from error
    if type(found) is not int or found not in versions:
        first, last = min(versions), max(versions)
        known = f"version {last}" if first == last else f"versions {first} to {last}"
        raise FormatError(subject, f"has version {found!r}", f"this release reads {known}: install a newer one")
    return header


def _unreadable(path: Path, error: Exception, writer: str) -> FormatError:
    """Return the error of a file that is no whole safetensors file."""
    is_archive = isinstance(error, SafetensorError) and is_zipfile(path)
    came = "is an archive, as torch.save writes it" if is_archive else f"cannot be read ({error})"
    return FormatError(f"file {path}", came, f"give a whole file written by {writer}")
