"""The types of arrays and of random generators that every room speaks of: each has one name, which stands here."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

AnyArray: TypeAlias = npt.NDArray[Any]
"""Anything: what a user gives, or words of any size."""

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
"""Real numbers, in float32 or float64."""

Floats32: TypeAlias = npt.NDArray[np.float32]

Floats64: TypeAlias = npt.NDArray[np.float64]

Flags: TypeAlias = npt.NDArray[np.bool_]
"""One truth value for each."""

Codes: TypeAlias = npt.NDArray[np.uint8]
"""Integer codes of coefficients."""

Words: TypeAlias = npt.NDArray[np.uint32]
"""Coefficients as they are stored, several to a word where they are short."""

Integers8: TypeAlias = npt.NDArray[np.int8]
"""Quantised activations, and other small integers."""

IndexArray: TypeAlias = npt.NDArray[np.int32]
"""Positions in a matrix, as the kernel and files have them."""

Integers64: TypeAlias = npt.NDArray[np.int64]
"""Offsets, counts and labels."""

Positions: TypeAlias = npt.NDArray[np.intp]
"""Positions in arrays, and counts, as NumPy gives and takes them."""

Integers: TypeAlias = npt.NDArray[np.integer[Any]]
"""Positions of any integer type."""

Scores: TypeAlias = npt.NDArray[np.float64]
"""One score of a matrix or network ``(1,)``, or one for each sample ``(samples,)``; larger is better."""

Generator: TypeAlias = np.random.Generator | int
"""A generator of random numbers, or its seed."""
