"""The Frobenius norm, which approximation and its errors are measured in."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from hmatrix._support.strips import strips

_STRIP = 1024
"""Rows whose norm is computed at a time."""


def frobenius(array: npt.NDArray[Any]) -> float:
    """Return the Frobenius norm in float64; squares neither overflow nor vanish."""
    largest = max(float(array.max(initial=0.0)), -float(array.min(initial=0.0)))
    if largest == 0 or not math.isfinite(largest):
        return largest
    norms = [np.linalg.norm(array[strip].astype(np.float64) / largest) for strip in strips(len(array), _STRIP)]
    return largest * float(np.linalg.norm(norms))
