"""The machine's memory, what is asked of it, arrays that begin on a cache line, and arrays looked at in pieces."""

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from hmatrix._support.typing import AnyArray
from hmatrix.errors import ArgumentError

CACHE_LINE = 64
"""Bytes; also those of the widest register."""

_PIECE = 1 << 17
"""Entries that are looked at together."""

T = TypeVar("T", bound=np.generic)

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files with the bytes that a container may use, of both versions of Linux's control groups."""


@cache
def machine_memory() -> int:
    """Return the bytes of memory that this machine, or this container, has."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in _LIMITS:
        # There is none, or it is the word "max".
        with suppress(OSError, ValueError):
            memory = min(memory, int(Path(limit).read_text(encoding="ascii")))
    return memory


def check_memory(name: str, came: str, needed: int, mend: str) -> None:
    """Check, before they are taken, that the machine has so many bytes.

    Raises
    ------
    ArgumentError
        With this name, value and mend, if it has not.
    """
    most = machine_memory()
    if needed > most:
        wanted = f"{came}, which takes {needed / 1e9:,.1f} GB at least, and this machine has {most / 1e9:,.1f} GB"
        raise ArgumentError(name, wanted, mend)


def aligned(array: npt.NDArray[T]) -> npt.NDArray[T]:
    """Return the array if it begins on a cache line, else a copy that does.

    Loads of a register from an array that begins elsewhere touch two cache lines each.
    """
    if array.ctypes.data % CACHE_LINE == 0 or array.size == 0:
        return array
    copy = aligned_empty(array.size, array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def aligned_empty(size: int, dtype: np.dtype[T]) -> npt.NDArray[T]:
    """Return an array ``(size,)`` that begins on a cache line, of any content."""
    buffer: AnyArray = np.empty(size * dtype.itemsize + CACHE_LINE, np.uint8)
    start = -buffer.ctypes.data % CACHE_LINE
    return buffer[start : start + size * dtype.itemsize].view(dtype)


def pieces(array: npt.NDArray[T]) -> Iterator[npt.NDArray[T]]:
    """Iterate over a flat array in parts that stay in the cache, and whose temporary results take little memory."""
    return (array[first : first + _PIECE] for first in range(0, array.size, _PIECE))
