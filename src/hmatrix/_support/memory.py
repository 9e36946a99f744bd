"""The machine's memory, what is asked of it, and arrays that begin on a cache line."""

import os
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
    buffer: AnyArray = np.empty(array.nbytes + CACHE_LINE, np.uint8)
    start = -buffer.ctypes.data % CACHE_LINE
    copy = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
