"""The one way to write a file, all of it or nothing.

A file is made in a *workshop*: a hidden folder beside its place, from which it moves there when it is whole. The writer
holds a lock in it. So a workshop whose lock is free belongs to a writer that was killed, and the next one removes it.
"""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_IMODE
from typing import IO

from safetensors import SafetensorError

from hmatrix._support.locks import is_at, take
from hmatrix.errors import OutputError

_WORKSHOP = re.compile(r"\.hmatrix-[0-9a-f]{8}")
_LOCK = "lock"

_FULL = (errno.ENOSPC, errno.EDQUOT)
"""The system's numbers of a full disk, and of a full part of it that is a user's."""


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
