"""Rows whose errors count more than those of others: a weight whose rows are scaled, and leaves that are scaled back.

Integer codes stay as they are: scales belong to rows.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hmatrix._support.checks import as_array, check_matrix
from hmatrix._support.typing import Floats32
from hmatrix.codes.encoding import Encoded
from hmatrix.errors import ArgumentError
from hmatrix.lowrank.factors import LowRank
from hmatrix.packed.packing import EncodedLowRank, PackedLeaf

_LEAST = 2.0**-60
"""Least weight, in units of the mean: float32 does not tell sums of errors with a smaller one from those without."""


def row_scales(weights: npt.ArrayLike | None, m: int) -> Floats32:
    """Return the factors of rows whose squares are in proportion to their weights, and 1 on average, ``(m,)``.

    Raises
    ------
    ArgumentError
        If there are not m weights, or one is not positive.
    """
    if weights is None:
        return np.ones(m, np.float32)
    given = check_matrix("row_weights", np.reshape(as_array("row_weights", weights), (-1, 1)))[:, 0].astype(np.float64)
    if len(given) != m:
        raise ArgumentError("row_weights", f"has {len(given)} entries", f"give one a row, {m}")
    if not (given > 0).all():
        raise ArgumentError("row_weights", f"has {given.min():g} in it", "give positive numbers")
    # Divided first: the sum of large ones is not finite.
    shares = given / given.max()
    shares = np.maximum(shares / shares.mean(), _LEAST)
    scales: Floats32 = np.sqrt(shares).astype(np.float32)
    return scales


def with_rows_scaled(leaf: PackedLeaf, factors: Floats32) -> PackedLeaf:
    """Return a leaf with its rows multiplied by the factors ``(m,)`` of all rows, in tree order."""
    own = factors[leaf.rows, None]
    block = leaf.block
    if isinstance(block, EncodedLowRank):
        return replace(leaf, block=replace(block, U=_scaled(block.U, own)))
    if isinstance(block, LowRank):
        return replace(leaf, block=replace(block, U=block.U * own))
    return replace(leaf, block=_scaled(block, own) if isinstance(block, Encoded) else block * own)


def _scaled(encoded: Encoded, factors: Floats32) -> Encoded:
    return replace(encoded, scales=encoded.scales * factors)
