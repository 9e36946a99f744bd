"""Magnitudes of numbers, and those that float32 holds."""

import numpy as np

from hmatrix._support.typing import FloatArray
from hmatrix.errors import ArgumentError

# Not in float32, to which Python's numbers would be cast.
_MOST, _LEAST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)


def largest_of(array: FloatArray) -> float:
    """Return the largest magnitude."""
    return max(float(array.max(initial=0.0)), -float(array.min(initial=0.0)))


def check_not_too_large(name: str, largest: float, most: float = _MOST, what: str = "float32 holds") -> None:
    """Check, before long work, that numbers up to a magnitude can be used.

    Parameters
    ----------
    name
        Name of the argument.
    largest
        Its largest magnitude.
    most
        Largest magnitude that can be used.
    what
        Name of the bound, for the message.

    Raises
    ------
    ArgumentError
        If they are larger.
    """
    if largest > most:
        mend = f"{what} {most:.3g} at most: divide the {name}, and multiply the layer's outputs"
        raise ArgumentError(name, f"has entries up to {largest:.3g}", mend)


def check_range(name: str, largest: float) -> None:
    """Check, before long work, that float32 can hold numbers up to a magnitude.

    Raises
    ------
    ArgumentError
        If they are too large for it, or all of them so small that it holds them with few digits.
    """
    check_not_too_large(name, largest)
    if 0 < largest < _LEAST:
        mend = f"smaller numbers have few digits in float32: multiply the {name}, and divide the layer's outputs"
        raise ArgumentError(name, f"has no entries above {_LEAST:.3g}", mend)
