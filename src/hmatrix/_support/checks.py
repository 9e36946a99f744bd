"""Checks of arguments that several rooms share."""

import math
from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
import numpy.typing as npt

from hmatrix._support.memory import check_memory
from hmatrix._support.typing import AnyArray, FloatArray
from hmatrix.errors import ArgumentError

LARGEST_SIZE = 2**31 - 1
"""Most rows or columns of a matrix: indices are int32."""


def check_integer(name: str, value: object, *, at_least: int) -> int:
    """Return `value` as an int, or raise ArgumentError when it is not an integer of at least `at_least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < at_least:
        raise ArgumentError(name, f"got {value!r}", f"give an integer of at least {at_least}")
    return int(value)


def check_number(name: str, value: object, *, above: float | None = None, at_least: float | None = None) -> float:
    """Return `value` as a float, or raise ArgumentError when it is not finite and in range."""
    allowed = f"above {above}" if above is not None else f"of at least {at_least}"
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ArgumentError(name, f"got {value!r}", f"give a finite number {allowed}")
    number = float(value)
    if (above is not None and number <= above) or (at_least is not None and number < at_least):
        raise ArgumentError(name, f"got {value!r}", f"give a finite number {allowed}")
    return number


def check_shape(name: str, shape: Sequence[object]) -> tuple[int, int]:
    """Return `shape` as a pair of positive ints, or raise ArgumentError."""
    if len(shape) != 2:
        raise ArgumentError(name, f"has {len(shape)} dimensions", "give a matrix (rows, columns)")
    rows, columns = (check_integer(f"{name}, rows and columns", size, at_least=1) for size in shape)
    return rows, columns


def refuse_masked(name: str, value: object) -> None:
    """Raise ArgumentError when `value` is an array with masked entries, whose values mean nothing."""
    # A mask that hides nothing is no reason to refuse.
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        came = f"is a masked array, with {int(np.ma.getmaskarray(value).sum())} entries masked"
        raise ArgumentError(name, came, "give an array without a mask: array.filled(0), for example")


def as_array(name: str, value: npt.ArrayLike) -> AnyArray:
    """Return `value` as a NumPy array.

    Raises
    ------
    ArgumentError
        If it cannot be one, or has masked entries, whose values mean nothing.
    """
    refuse_masked(name, value)
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        mend = "give a NumPy array; for a torch parameter, parameter.detach().float().numpy()"
        raise ArgumentError(name, f"is no array ({error})", mend) from error


def check_matrix(name: str, array: npt.ArrayLike) -> FloatArray:
    """Return `array` as a finite float32 or float64 matrix, without a copy where it is one already.

    Integers become float64, float16 becomes float32.

    Raises
    ------
    ArgumentError
        If it is not two-dimensional, is empty, is complex or not numeric, has NaN, infinity or masked entries, or has
        more entries than the machine's memory, as an array may that repeats a few.
    """
    matrix = as_array(name, array)
    if matrix.dtype == object and not matrix.ndim:
        raise ArgumentError(name, f"is a {type(array).__name__}", "give a NumPy array")
    check_shape(name, matrix.shape)
    # A byte for each entry that says whether it is finite, and a copy of those that are no floating-point numbers.
    needed = matrix.size * (1 if matrix.dtype.kind == "f" else 9)
    check_memory(name, f"has the shape {matrix.shape}", needed, "give a smaller one")
    matrix = as_floating(name, matrix)
    bad = matrix.size - int(np.count_nonzero(np.isfinite(matrix)))
    if bad:
        raise ArgumentError(name, f"has {bad} entries that are NaN or infinite", "give finite entries only")
    return matrix


def as_floating(name: str, array: AnyArray) -> FloatArray:
    """Return `array` in float32 or float64: the smaller of them that holds its values."""
    if array.dtype in (np.float32, np.float64):
        return array
    if array.dtype.kind == "f" and array.dtype.itemsize < 4:
        return array.astype(np.float32)
    if array.dtype.kind in "iub":
        return array.astype(np.float64)
    raise ArgumentError(name, f"has the type {array.dtype}", "give real numbers in float32 or float64")
