"""The one way to write a file, all of it or nothing; and arrays in files with a header that has a version.

Nothing in a file is executed; others check the meaning of its arrays.

A file is made in a *workshop*: a hidden folder beside its place, from which it moves there when it is whole. The writer
holds a lock in it. So a workshop whose lock is free belongs to a writer that was killed, and the next one removes it.
"""

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_IMODE
from typing import IO, Any
from zipfile import is_zipfile

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hmatrix._support.digests import check_digests, check_header, digests_of, sealed
from hmatrix._support.locks import is_at, take
from hmatrix._support.stored_arrays import opened
from hmatrix._support.typing import AnyArray
from hmatrix.errors import FormatError, OutputError

_WORKSHOP = re.compile(r"\.hmatrix-[0-9a-f]{8}")
_LOCK = "lock"

_FULL = (errno.ENOSPC, errno.EDQUOT)
"""The system's numbers of a full disk, and of a full part of it that is a user's."""


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


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file, whole or not at all; text is UTF-8.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    with written(path, len(data)) as temporary:
        temporary.write_bytes(data)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where there is none.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        came = f"cannot be made ({error.strerror})"
        raise OutputError(f"folder {folder}", came, "name a folder that you may write to") from error


def check_place(path: Path) -> None:
    """Check, before long work, that its result can be written.

    Raises
    ------
    OutputError
        If there is no such folder, or it may not be written to, or the place is a folder itself.
    """
    folder = path.parent
    if path.is_dir():
        came, mend = "is a folder", "name a file in it"
    elif not folder.is_dir():
        came, mend = f"there is no folder {folder}", "make it, or name another place"
    elif not os.access(folder, os.W_OK):
        came, mend = f"folder {folder} is protected", "name a place that you may write to"
    else:
        return
    raise OutputError(f"file {path}", f"cannot be written ({came})", mend)


@contextmanager
def written(path: Path, size: int) -> Iterator[Path]:
    """Give a temporary name for a file, which becomes `path` when it is whole.

    Parameters
    ----------
    path
        The file.
    size
        About how many bytes it will have, for the message of a full disk.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    if not path.name:
        raise OutputError(f"file {path}", "cannot be written (it has no name)", "name a file")
    try:
        check_place(path)
        with _workshop(path.parent) as workshop:
            temporary = workshop / "file"
            # safetensors writes files that nobody else may read; a new file has the mode that the user wants.
            temporary.touch()
            mode = S_IMODE(temporary.stat().st_mode)
            yield temporary
            temporary.chmod(mode)
            temporary.replace(path)
    except (OSError, SafetensorError, ValueError) as error:
        if _is_full(error):
            came = f"has no room for the {size:,} bytes of {path.name} ({os.strerror(errno.ENOSPC)})"
            mend = "make room there (`hmatrix cache` shows what may go), or name another place"
            raise OutputError(f"folder {path.parent}", came, mend) from error
        raise OutputError(
            f"file {path}", f"cannot be written ({error})", "name a place that you may write to"
        ) from error


def sweep(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder, and nothing of those that still write."""
    with suppress(OSError):
        for workshop in [entry for entry in folder.iterdir() if _WORKSHOP.fullmatch(entry.name)]:
            # It may have no lock yet, or no longer: then it gets one, so that its writer finds it taken.
            with suppress(OSError), (workshop / _LOCK).open("ab") as lock:
                if take(lock):
                    shutil.rmtree(workshop)


@contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """Give a folder of this writer's own, which is removed with all that is in it."""
    sweep(folder)
    lock: IO[bytes] | None = None
    while lock is None:
        workshop = folder / f".hmatrix-{secrets.token_hex(4)}"
        lock = _occupied(workshop)
    try:
        yield workshop
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
        lock.close()


def _occupied(workshop: Path) -> IO[bytes] | None:
    """Make a workshop, and return its lock; ``None`` where another's sweep came between."""
    workshop.mkdir()
    try:
        lock = (workshop / _LOCK).open("ab")
    except FileNotFoundError:
        return None
    try:
        occupied = take(lock) and is_at(lock, workshop / _LOCK)
    except OSError:
        occupied = True  # a disk without locks, where nobody sweeps
    if occupied:
        return lock
    lock.close()
    return None


def _is_full(error: Exception) -> bool:
    """Return whether there was no room; safetensors gives the system's number in words alone."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    return any(f"os error {number})" in str(error) for number in _FULL)


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
