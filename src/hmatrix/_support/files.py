"""The one way to write a file, all of it or nothing; arrays in files with a header that has a version; and caches.

Nothing in a file is executed; others check the meaning of its arrays.
"""

import hashlib
import json
import os
import secrets
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_IMODE
from typing import Any, TypeVar
from zipfile import is_zipfile

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hmatrix._support.typing import AnyArray
from hmatrix.errors import CacheWarning, FormatError, HMatrixError, OutputError

_Result = TypeVar("_Result")

_KEPT = "hmatrix-cache"
"""Key of the header of a file that `keep` wrote."""

_KEPT_VERSION = 1


def default_cache() -> Path:
    """Return the folder of caches, whose files can be computed again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hmatrix"


def write_arrays(arrays: Mapping[str, AnyArray], path: Path, key: str, header: Mapping[str, object]) -> None:
    """Write arrays and a header.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with written(path) as temporary:
        save_file(contiguous, temporary, metadata={key: json.dumps(header)})


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file, whole or not at all; text is UTF-8.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with written(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


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
def written(path: Path) -> Iterator[Path]:
    """Give a temporary name for a file, which becomes `path` when it is whole.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    if not path.name:
        raise OutputError(f"file {path}", "cannot be written (it has no name)", "name a file")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        check_place(path)
        # safetensors writes files that nobody else may read; a new file has the mode that the user wants.
        temporary.touch(exist_ok=False)
        mode = S_IMODE(temporary.stat().st_mode)
        yield temporary
        temporary.chmod(mode)
        temporary.replace(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise OutputError(
            f"file {path}", f"cannot be written ({error})", "name a place that you may write to"
        ) from error
    finally:
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)


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
    path: Path, key: str, versions: Collection[int], kind: str, writer: str
) -> tuple[dict[str, AnyArray], dict[str, Any]]:
    """Read arrays and their header.

    Parameters
    ----------
    path
        The file.
    key, versions
        Name of the header, and the versions of it that can be read.
    kind, writer
        Kind of the file, and the function that writes such files, for messages.

    Raises
    ------
    FormatError
        If the file is missing, truncated, or of another kind or version.
    """
    subject, mend = f"file {path}", f"give a file written by {writer}"
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError) as error:
        # The last two come of types that NumPy does not have.
        raise _unreadable(path, error, writer) from error
    try:
        header = json.loads(metadata[key])
        found = header["version"]
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise FormatError(subject, f"has no header of {kind}", mend) from error
    if type(found) is not int or found not in versions:
        first, last = min(versions), max(versions)
        known = f"version {last}" if first == last else f"versions {first} to {last}"
        raise FormatError(subject, f"has version {found!r}", f"this release reads {known}: install a newer one")
    return arrays, header


def keep(path: Path, arrays: Mapping[str, AnyArray], facts: Mapping[str, Any]) -> None:
    """Write a result that can be computed again, with a digest by which any damage is found.

    Parameters
    ----------
    path
        The file.
    arrays, facts
        Arrays, and plain values, by name.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    header = {"version": _KEPT_VERSION, "digest": _digest(arrays, facts), "facts": facts}
    write_arrays(arrays, path, _KEPT, header)


def recall(path: Path, read: Callable[[dict[str, AnyArray], dict[str, Any]], _Result | None]) -> _Result | None:
    """Return the result that `keep` wrote; ``None`` where there is none of use, so that it has to be computed.

    Parameters
    ----------
    path
        The file.
    read
        Function of arrays and plain values that returns the result, or ``None`` for one that is of no use here.

    Warns
    -----
    CacheWarning
        If the file is damaged.
    """
    if not path.exists():
        return None
    try:
        arrays, header = read_arrays(path, _KEPT, (_KEPT_VERSION,), "a cache", "hmatrix")
        facts = header["facts"]
        if header["digest"] != _digest(arrays, facts):
            raise FormatError(f"file {path}", "does not fit its digest", "remove it")
        return read(arrays, facts)
    except (HMatrixError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        tell_damage(path, error.came if isinstance(error, HMatrixError) else f"{type(error).__name__}: {error}")
        return None


def tell_damage(path: Path, came: str) -> None:
    """Warn that a file of a cache is damaged."""
    warnings.warn(f"cache {path}: is damaged ({came}); what it held is computed again", CacheWarning, stacklevel=3)


def _digest(arrays: Mapping[str, AnyArray], facts: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _unreadable(path: Path, error: Exception, writer: str) -> FormatError:
    """Return the error of a file that is no whole safetensors file."""
    is_archive = isinstance(error, SafetensorError) and is_zipfile(path)
    came = "is an archive, as torch.save writes it" if is_archive else f"cannot be read ({error})"
    return FormatError(f"file {path}", came, f"give a whole file written by {writer}")
