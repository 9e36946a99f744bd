"""The types of arrays and of random generators that every room speaks of."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
"""Floating-point numbers, float32 or float64 unless other types are named."""

IndexArray: TypeAlias = npt.NDArray[np.int32]
"""Positions in a matrix, as the kernel and files have them."""

Scores: TypeAlias = npt.NDArray[np.float64]
"""One score of a matrix or network ``(1,)``, or one for each sample ``(samples,)``; larger is better."""

Generator: TypeAlias = np.random.Generator | int
"""A generator of random numbers, or its seed."""
