"""The one store of results that can be computed again: entries with a digest, in a folder that does not grow for ever.

An entry is a safetensors file in the folder of its shelf. Its header has its facts, and a digest of the entry's name,
facts and arrays, so that any damage is found when it is read, and another entry's file, too.

The time at which a file was changed is that of its last use.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from stat import S_ISREG
from typing import Any, TypeVar

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from hmatrix._support.files import check_place, make_folder, sweep, write_file
from hmatrix._support.typing import AnyArray
from hmatrix.errors import CacheWarning, FormatError, HMatrixError, OutputError

_Result = TypeVar("_Result")

_KEY = "hmatrix-cache"
_VERSION = 2
_SUFFIX = ".safetensors"

_MOST = 10_000_000_000
"""Largest size of a store in bytes, where its disk is large."""

_OF_DISK = 10
"""A store may take one part of so many of its disk."""


class Shelf(StrEnum):
    """Kinds of entries, and the names of their folders."""

    FEATURES = "features"
    LAYERS = "layers"
    TIMES = "times"


def default_cache() -> Path:
    """Return the folder of the store where a user names none."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hmatrix"


class Store:
    """The entries of one kind.

    Parameters
    ----------
    root
        Folder of the whole store.
    shelf
        Kind of the entries.
    """

    def __init__(self, root: Path, shelf: Shelf) -> None:
        self._root = root
        self._folder = root / shelf.value
        sweep(self._folder)

    def check(self) -> None:
        """Check, before long work, that its result can be kept.

        Raises
        ------
        OutputError
            If it cannot.
        """
        make_folder(self._folder)
        check_place(self._path("entry"))

    def keep(self, name: str, arrays: Mapping[str, AnyArray], facts: Mapping[str, Any]) -> None:
        """Write an entry; the least recently used ones go where the store has become too large.

        Parameters
        ----------
        name
            Name of the entry, a digest of all that it depends on.
        arrays, facts
            Arrays, and plain values, by name.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        path = self._path(name)
        stored = {key: np.asarray(array, order="C") for key, array in arrays.items()}
        make_folder(self._folder)
        write_file(path, save(stored, self._metadata(name, stored, facts)))
        _keep_bound(self._root, path)

    def recall(
        self, name: str, read: Callable[[dict[str, AnyArray], dict[str, Any]], _Result | None]
    ) -> _Result | None:
        """Return the result that `keep` wrote; ``None`` where there is none of use, so that it has to be computed.

        Parameters
        ----------
        name
            Name of the entry.
        read
            Function of arrays and plain values that returns the result, or ``None`` for one that is of no use here.

        Warns
        -----
        CacheWarning
            If the entry is damaged.
        """
        path = self._path(name)
        try:
            if not path.exists():
                return None
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            facts = json.loads(metadata[_KEY])["facts"]
            if metadata != self._metadata(name, arrays, facts):
                raise FormatError(f"file {path}", "does not fit its digest", "remove it")
            result = read(arrays, facts)
        except FileNotFoundError:
            return None  # another process has made room just now
        except MemoryError:
            raise
        except Exception as error:  # damaged files raise anything from SafetensorError to RecursionError
            came = error.came if isinstance(error, HMatrixError) else f"{type(error).__name__}: {error}"
            message = f"cache {path}: is damaged ({came}); what it held is computed again"
            warnings.warn(message, CacheWarning, stacklevel=2)
            return None
        # Where the store may be read alone, nothing is ever removed from it.
        with suppress(OSError):
            os.utime(path)
        return result

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"

    def _metadata(self, name: str, arrays: Mapping[str, AnyArray], facts: Mapping[str, Any]) -> dict[str, str]:
        """Return the header of an entry as it has to be, to the last character."""
        digest = hashlib.sha256(json.dumps([self._folder.name, name, facts], sort_keys=True).encode())
        for key, array in sorted(arrays.items()):
            digest.update(repr((key, array.dtype.str, array.shape)).encode())
            digest.update(np.asarray(array, order="C").data)
        header = {"version": _VERSION, "digest": digest.hexdigest(), "facts": facts}
        # One key, because safetensors writes several in any order.
        return {_KEY: json.dumps(header, sort_keys=True)}


@dataclass(frozen=True)
class StoredEntry:
    """One entry of a store.

    Parameters
    ----------
    path, shelf
        Its file, and its kind.
    size
        Bytes of the file.
    used
        Time of its last use, in seconds since the epoch.
    """

    path: Path
    shelf: Shelf
    size: int
    used: float


def largest_size(root: Path) -> int:
    """Return the bytes that a store may have: 10 GB, or a tenth of its disk where that is less."""
    return min(_MOST, shutil.disk_usage(root).total // _OF_DISK)


def list_entries(root: Path, shelves: Collection[Shelf] = tuple(Shelf)) -> list[StoredEntry]:
    """Return the entries of a store on some shelves, the least recently used first."""
    found = [
        StoredEntry(path, shelf, status.st_size, status.st_mtime)
        for shelf in shelves
        for path, status in _files(root / shelf.value)
        if path.suffix == _SUFFIX
    ]
    return sorted(found, key=lambda entry: (entry.used, entry.path))


def other_bytes(root: Path) -> int:
    """Return the bytes of files in the folder of a store that are no entries, such as data sets."""
    all_bytes = sum(status.st_size for _, status in _files(root, deep=True))
    return all_bytes - sum(entry.size for entry in list_entries(root))


def clear(root: Path, shelves: Collection[Shelf] = tuple(Shelf)) -> list[StoredEntry]:
    """Remove the entries of some shelves, and what killed writers left there, and return the entries.

    Raises
    ------
    OutputError
        If one cannot be removed.
    """
    removed = list_entries(root, shelves)
    for entry in removed:
        try:
            entry.path.unlink(missing_ok=True)
        except OSError as error:
            came = f"cannot be removed ({error.strerror})"
            raise OutputError(f"cache {entry.path}", came, "ask its owner to clear it") from error
    for shelf in shelves:
        sweep(root / shelf.value)
    return removed


def _keep_bound(root: Path, newest: Path) -> None:
    """Remove the least recently used entries above the largest size, and never the newest."""
    entries = list_entries(root)
    above = sum(entry.size for entry in entries) - largest_size(root)
    for entry in entries:
        if above <= 0:
            return
        if entry.path != newest:
            with suppress(OSError):
                entry.path.unlink(missing_ok=True)
                above -= entry.size


def _files(folder: Path, *, deep: bool = False) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the files in a folder, with what the system knows of them; others may remove some meanwhile."""
    for path in folder.glob("**/*" if deep else "*"):
        with suppress(OSError):
            status = path.stat()
            if S_ISREG(status.st_mode):
                yield path, status
