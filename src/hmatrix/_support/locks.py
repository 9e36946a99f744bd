"""Locks on files, which the system releases when their holder ends, however it ends: none is ever stale."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from hmatrix.errors import OutputError


def take(file: IO[Any]) -> bool:
    """Lock an open file until it is closed, and return whether that could be done at once."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path, tell: Callable[[], None]) -> Iterator[None]:
    """Be the only one that holds the lock of a file, which is made where there is none.

    Parameters
    ----------
    path
        The file. It may be read and appended to, and not be replaced.
    tell
        Function that says, once, that somebody else holds it, and that this one waits.

    Raises
    ------
    OutputError
        If the file cannot be opened or locked.
    """
    try:
        file = _locked(path, tell)
    except OSError as error:
        came = f"cannot be written by one run alone ({error.strerror})"
        raise OutputError(f"output {path}", came, "name a folder that you may write to") from error
    with file:
        yield


def _locked(path: Path, tell: Callable[[], None]) -> IO[bytes]:
    told = False
    while True:
        file = path.open("ab")
        try:
            if not take(file):
                if not told:
                    tell()
                told = True
                fcntl.flock(file, fcntl.LOCK_EX)
            if is_at(file, path):
                return file
        except BaseException:
            file.close()
            raise
        # Whoever held it removed it, and another may be there.
        file.close()


def is_at(file: IO[Any], path: Path) -> bool:
    """Return whether an open file is still the one that has this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
