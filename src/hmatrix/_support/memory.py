"""Arrays that begin on a cache line."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from hmatrix._support.typing import AnyArray

CACHE_LINE = 64
"""Bytes; also those of the widest register."""

T = TypeVar("T", bound=np.generic)


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
