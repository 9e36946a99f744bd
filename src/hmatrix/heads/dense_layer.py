"""The dense layer of a progressive head, and its calibration inputs, as a user gives them: checked, and in float32."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from hmatrix._support.checks import check_matrix
from hmatrix._support.typing import Floats32
from hmatrix.errors import ArgumentError
from hmatrix.heads.sizes import MAX_COLUMNS


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
        matrix = np.ascontiguousarray(check_matrix("weight", weight), np.float32)
        m, n = matrix.shape
        if n > MAX_COLUMNS:
            raise ArgumentError("weight", f"has {n} columns", f"give at most {MAX_COLUMNS}")
        column = np.zeros((m, 1), np.float32) if bias is None else np.reshape(np.asarray(bias), (-1, 1))
        vector = check_matrix("bias", column).astype(np.float32).ravel()
        if vector.shape != (m,):
            raise ArgumentError("bias", f"has {len(vector)} entries", f"give {m}")
        if calibration is None:
            return cls(matrix, vector, None)
        inputs = np.ascontiguousarray(check_matrix("calibration", calibration), np.float32)
        if inputs.shape[1] != n:
            raise ArgumentError("calibration", f"has the shape {inputs.shape}", f"give (samples, {n})")
        return cls(matrix, vector, inputs)
