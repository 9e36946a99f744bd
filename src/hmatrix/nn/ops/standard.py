"""Products of layers in operators that every exporter knows.

Coefficients become constants as they are stored: codes stay bytes, and are decoded by the exported network. (The
exporter of TorchScript decodes constants beforehand, whatever one does.)
"""

from functools import partial

from torch import Tensor

from hmatrix.nn.ops import batched
from hmatrix.nn.ops.coefficients import Coefficients
from hmatrix.nn.ops.modes import outside_modes
from hmatrix.nn.ops.operator import multiply_by_torch
from hmatrix.nn.ops.prepared import Prepared
from hmatrix.nn.ops.rows import Far, Near, select_rows


def multiply(words: Tensor, prepared: Prepared, x: Tensor) -> Tensor:
    """Return ``x A^T`` for x ``(..., n)``."""
    structure = prepared.structure
    with outside_modes():
        coefficients = batched.coefficients_of(structure, words)
    return multiply_by_torch(structure, coefficients, x)


def rows(words: Tensor, prepared: Prepared, indices: Tensor) -> Tensor:
    """Return the rows of A with indices ``(...)``."""
    structure = prepared.structure
    with outside_modes():
        coefficients, tables = batched.coefficients_of(structure, words), prepared.row_tables
    near: list[Near] = [partial(_near_rows, factors[-1]) for factors in coefficients]
    far: list[Far | None] = [factors[0].values if len(factors) == 2 else None for factors in coefficients]
    return select_rows(structure, tables, near, far, indices)


def _near_rows(factor: Coefficients, leaf: Tensor, row: Tensor) -> Tensor:
    return factor.rows(leaf, row).values()
