"""The Frobenius norm, in which approximations and their errors are measured."""

import math

import numpy as np

from hmatrix._support.strips import strips
from hmatrix._support.typing import AnyArray

_STRIP = 1024
"""Rows whose norm is computed at a time."""


def frobenius(array: AnyArray) -> float:
    """Return the Frobenius norm in float64; squares neither overflow nor vanish."""
    largest = max(float(array.max(initial=0.0)), -float(array.min(initial=0.0)))
    if largest == 0 or not math.isfinite(largest):
        return largest
    norms = [np.linalg.norm(array[strip].astype(np.float64) / largest) for strip in strips(len(array), _STRIP)]
    return largest * float(np.linalg.norm(norms))
