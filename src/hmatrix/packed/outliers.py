"""Entries so far out in their row that codes whose values are not evenly spaced would spoil the others.

Evenly spaced values have a zero, to which one large entry rounds all others; those of lloyd4 and the trellises have
none that all entries may take. Where even values of as many bits leave less, the largest entries are leaves of their
own.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from hmatrix._support.strips import strips
from hmatrix._support.typing import FloatArray, Floats64, Positions
from hmatrix.codes.encoding import decode, encode
from hmatrix.codes.precision import Precision
from hmatrix.packed.packing import PackedLeaf
from hmatrix.packed.schedule import LONGEST_RUN

_EVEN = {Precision.LLOYD4: Precision.INT4, Precision.TRELLIS4: Precision.INT4, Precision.TRELLIS4P: Precision.INT4}
"""Even precisions of as many bits; those of fewer bits have no zero, either."""

_FAR = 8.0
"""Largest entry of an ordinary row, in units of their mean: of normally distributed ones it is less in 10^9 entries.

In rows of up to so many entries, none is further out."""

_FEWEST_ALIKE = 16.0
"""Sum of a row's squares, in units of its largest one, from which on that spoils nothing."""

_MOST_APART = 1 / 8
"""Part of a row's entries that may be leaves of their own, or one."""


def with_outliers_apart(leaf: PackedLeaf) -> Iterator[PackedLeaf]:
    """Iterate over leaves whose sum is a dense leaf: itself without outliers, and each of these in float32."""
    block = leaf.block
    if not isinstance(block, np.ndarray) or leaf.stored not in _EVEN:
        yield leaf
        return
    rows, columns = _places(block, leaf.stored, min(leaf.group or LONGEST_RUN, LONGEST_RUN))
    if not len(rows):
        yield leaf
        return
    rest = block.copy()
    rest[rows, columns] = 0
    yield replace(leaf, block=rest)
    for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
        row, column = leaf.rows.start + i, leaf.columns.start + j
        entry = block[i : i + 1, j : j + 1]
        yield PackedLeaf(slice(row, row + 1), slice(column, column + 1), entry, Precision.FLOAT32)


def far_rows(block: FloatArray) -> Positions:
    """Return the rows ``(rows,)`` of a block whose largest entry is far out, and has a part of the row's squares."""
    magnitudes = np.abs(block)
    largest = magnitudes.max(axis=1).astype(np.float64)
    far = np.flatnonzero(largest > _FAR * magnitudes.mean(axis=1, dtype=np.float64))
    if len(far):
        shares = np.square(magnitudes[far] / largest[far, None]).sum(axis=1)
        far = far[shares < _FEWEST_ALIKE]
    return far


def _places(block: FloatArray, precision: Precision, group: int) -> tuple[Positions, Positions]:
    """Return rows and columns of the outliers."""
    m, n = block.shape
    found: list[tuple[Positions, Positions]] = []
    for rows in strips(m):
        for columns in strips(n, min(group, n)):
            part = block[rows, columns]
            far = far_rows(part)
            if len(far):
                i, j = _outliers(part[far].astype(np.float64), precision)
                found.append((far[i] + rows.start, j + columns.start))
    if not found:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    return np.concatenate([i for i, _ in found]), np.concatenate([j for _, j in found])


def _outliers(rows: Floats64, precision: Precision) -> tuple[Positions, Positions]:
    """Return places of the largest entries, a power of two in a row, without which even values leave no less."""
    even = _errors(rows, _EVEN[precision])
    apart = np.zeros(len(rows), int)
    order = np.argsort(-np.abs(rows), axis=1, kind="stable")
    bad = np.flatnonzero(_errors(rows, precision) > even)
    most, count = max(1, int(_MOST_APART * rows.shape[1])), 1
    while len(bad) and count <= most:
        rest = rows[bad]
        np.put_along_axis(rest, order[bad, :count], 0, axis=1)
        good = _errors(rest, precision) <= even[bad]
        apart[bad[good]] = count
        bad, count = bad[~good], 2 * count
    i = np.repeat(np.arange(len(rows)), apart)
    j = np.concatenate([order[row, :number] for row, number in enumerate(apart)])
    return i, j


def _errors(rows: Floats64, precision: Precision) -> Floats64:
    errors: Floats64 = np.square(rows - decode(encode(rows, precision))).sum(axis=1)
    return errors
