"""A matrix that is known by its entries only, and blocks of it that are evaluated where they are read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hmatrix._support.checks import as_array, as_floating, check_shape
from hmatrix._support.typing import FloatArray, Positions
from hmatrix.errors import ArgumentError

EntryFunction: TypeAlias = Callable[[Positions, Positions], FloatArray]


@dataclass(frozen=True)
class Entries:
    """A matrix given by a function of row and column indices.

    Parameters
    ----------
    function
        Called with row indices ``(p,)`` and column indices ``(q,)``; returns the entries ``(p, q)``.
    shape
        Shape of the whole matrix, ``(m, n)``.
    dtype
        float32 or float64; the precision of matrices that are built from it.

    Raises
    ------
    ArgumentError
        If the shape or the type cannot be used; on evaluation, if the function returns another shape
        or something that is not finite.

    Examples
    --------
    >>> x, y = np.linspace(0, 1, 300), np.linspace(2, 3, 200)
    >>> kernel = hm.Entries(lambda i, j: 1 / np.abs(x[i, None] - y[j]), (300, 200))
    >>> H = hm.build(kernel, compressor=hm.PartialACA(), truncation=hm.Truncation(rtol=1e-4))
    >>> H.shape
    (300, 200)
    """

    function: EntryFunction
    shape: tuple[int, int]
    dtype: npt.DTypeLike = np.float64

    def __post_init__(self) -> None:
        check_shape("shape", self.shape)
        if np.dtype(self.dtype) not in (np.float32, np.float64):
            raise ArgumentError("dtype", f"got {np.dtype(self.dtype)}", "give float32 or float64")

    def __call__(self, rows: Positions, columns: Positions) -> FloatArray:
        """Evaluate the block of `rows` ``(p,)`` and `columns` ``(q,)``."""
        given = as_array("entry function", self.function(rows, columns))
        block = as_floating("entry function", given).astype(self.dtype, copy=False)
        if block.shape != (rows.size, columns.size):
            raise ArgumentError(
                "entry function",
                f"returned shape {block.shape}",
                f"return {(rows.size, columns.size)}, one entry a pair",
            )
        if not np.isfinite(block).all():
            raise ArgumentError("entry function", "returned NaN or infinity", "return finite entries only")
        return block


@dataclass(frozen=True)
class EntryBlock:
    """The block of some rows and columns of a matrix that is given by its entries.

    Like an array it has ``shape``, ``dtype`` and ``block[i, :]``, ``block[:, j]``; ``np.asarray(block)``
    evaluates all of it.
    """

    entries: Entries
    rows: Positions
    columns: Positions

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows.size, self.columns.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the entries."""
        return np.dtype(self.entries.dtype)

    def __getitem__(self, index: tuple[int | slice, int | slice]) -> FloatArray:
        rows, columns = self.rows[index[0]], self.columns[index[1]]
        block = self.entries(np.atleast_1d(rows), np.atleast_1d(columns))
        return block.reshape(np.shape(rows) + np.shape(columns))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> FloatArray:
        if copy is False:
            raise ValueError("a block of entries is evaluated, so it cannot be had without a copy")
        block = self.entries(self.rows, self.columns)
        return block if dtype is None else block.astype(dtype)


Block: TypeAlias = FloatArray | EntryBlock
"""Blocks that a compressor is given."""
