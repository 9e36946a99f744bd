"""The dense layer of a progressive head, and its calibration inputs, as a user gives them: checked, and in float32."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from hmatrix._support.checks import as_array, check_matrix
from hmatrix._support.ranges import check_not_too_large, check_range, largest_of
from hmatrix._support.typing import Floats32
from hmatrix.errors import ArgumentError
from hmatrix.heads.sizes import MAX_COLUMNS

_MOST = 2.0**62
"""Largest length of an input: float32 holds its square, and a multiple of that."""


@dataclass(frozen=True, eq=False)
class DenseLayer:
    """A layer ``x A^T + b``, with inputs like those that it gets.

    Parameters
    ----------
    weight
        A ``(m, n)``.
    bias
        b ``(m,)``.
    calibration
        Inputs ``(samples, n)``, or ``None``.
    """

    weight: Floats32
    bias: Floats32
    calibration: Floats32 | None

    @classmethod
    def of(cls, weight: npt.ArrayLike, bias: npt.ArrayLike | None, calibration: npt.ArrayLike | None) -> Self:
        """Return the layer of arguments that fit together; no bias is one of zeros.

        Raises
        ------
        ArgumentError
            If an argument is not of finite real numbers, or has another shape.
        """
        given = check_matrix("weight", weight)
        largest = largest_of(given)
        check_range("weight", largest)
        matrix = np.ascontiguousarray(given, np.float32)
        m, n = matrix.shape
        if n > MAX_COLUMNS:
            raise ArgumentError("weight", f"has {n} columns", f"give at most {MAX_COLUMNS}")
        column = np.zeros((m, 1), np.float32) if bias is None else np.reshape(as_array("bias", bias), (-1, 1))
        column = check_matrix("bias", column)
        check_not_too_large("bias", largest_of(column))
        vector = column.astype(np.float32).ravel()
        if vector.shape != (m,):
            raise ArgumentError("bias", f"has {len(vector)} entries", f"give {m}")
        if calibration is None:
            return cls(matrix, vector, None)
        samples = check_matrix("calibration", calibration)
        largest_input = largest_of(samples)
        check_range("calibration", largest_input)
        inputs = np.ascontiguousarray(samples, np.float32)
        if inputs.shape[1] != n:
            raise ArgumentError("calibration", f"has the shape {inputs.shape}", f"give (samples, {n})")
        # Squares of vectors, and outputs: of any signs of the entries.
        check_not_too_large("calibration", largest_input, _MOST / math.sqrt(n), "squares allow")
        if largest_input > 0:
            check_not_too_large("weight", largest, _MOST**2 / n / largest_input, "outputs allow")
        return cls(matrix, vector, inputs)
