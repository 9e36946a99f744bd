"""The sizes of a progressive head, by name, as the kernel's `HeadSizes` in `cpp/heads/head.hpp` has them."""

from dataclasses import astuple, dataclass
from typing import Self

import numpy as np

from hmatrix._support.typing import IndexArray
from hmatrix.codes.precision import Precision
from hmatrix.errors import ArgumentError

MAX_COLUMNS = 1 << 15
"""Sums of products of codes stay within 32 bits."""

FINE = (Precision.FLOAT32, Precision.BFLOAT16, Precision.INT8)
"""Precisions of the fine rows."""

COARSE = (Precision.INT8, Precision.INT4)
"""Precisions of the coarse factors."""

_SUBJECT = "sizes"


@dataclass(frozen=True)
class HeadSizes:
    """Sizes, counts and precisions of a progressive head. Files and state dicts hold them as ten int32 in this order.

    Parameters
    ----------
    rows, columns
        Shape of the weight.
    rank
        Rank of the coarse factors; 0 where an H-matrix is in their place.
    top
        Number of outputs that are the dense layer's.
    most
        Largest number of rows that are refined.
    fine
        Precision of the fine rows.
    clusters
        Number of clusters; 0 where all rows are looked at.
    probes
        Number of clusters that are looked into first.
    coarse
        Precision of the coarse factors.
    first
        Number of rows that are refined first.

    Raises
    ------
    ArgumentError
        If one is out of range.
    """

    rows: int
    columns: int
    rank: int
    top: int
    most: int
    fine: Precision
    clusters: int
    probes: int
    coarse: Precision
    first: int

    def __post_init__(self) -> None:
        ordered = 1 <= self.top <= self.first <= self.most <= self.rows
        if not 1 <= self.columns <= MAX_COLUMNS or not 0 <= self.rank <= self.columns or not ordered:
            came = f"are {list(map(int, astuple(self)))}"
            mend = f"give at most {MAX_COLUMNS} columns, and 1 <= top <= first <= most <= rows"
            raise ArgumentError(_SUBJECT, came, mend)
        if self.fine not in FINE:
            raise ArgumentError(_SUBJECT, f"have the precision {int(self.fine)}", "give float32, bfloat16 or int8")
        if self.coarse not in COARSE:
            raise ArgumentError(_SUBJECT, f"have the coarse precision {int(self.coarse)}", "give int8 or int4")
        if not 0 <= self.clusters <= self.rows or not min(self.clusters, 1) <= self.probes <= self.clusters:
            came = f"have {self.clusters} clusters, {self.probes} first"
            raise ArgumentError(_SUBJECT, came, "give 1 <= first <= clusters")
        object.__setattr__(self, "fine", Precision(self.fine))
        object.__setattr__(self, "coarse", Precision(self.coarse))

    @classmethod
    def of_array(cls, array: IndexArray) -> Self:
        """Return the sizes that a file holds.

        Parameters
        ----------
        array
            int32 ``(10,)``. Files of version 2 end before the coarse precision, which is int8. Files of version 3 end
            before the number of first rows, which is that of the outputs.

        Raises
        ------
        ArgumentError
            If the number of entries is another, or one is out of range.
        """
        numbers = array.tolist()
        if len(numbers) == 8:
            numbers.append(Precision.INT8)
        if len(numbers) == 9:
            numbers.append(numbers[3])
        if len(numbers) != 10:
            raise ArgumentError(_SUBJECT, f"have {len(numbers)} entries", "give ten sizes")
        return cls(*numbers)

    def as_array(self) -> IndexArray:
        """Return the sizes as int32 ``(10,)``."""
        return np.array(astuple(self), np.int32)
