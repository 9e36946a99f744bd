"""Numbers whose squares would overflow or vanish, brought near 1 by a power of two, which changes no digit."""

import math
from dataclasses import replace

import numpy as np

from hmatrix._support.norms import frobenius
from hmatrix._support.ranges import largest_of
from hmatrix._support.typing import FloatArray, Floats32, IndexArray
from hmatrix.codes.encoding import Encoded
from hmatrix.errors import ArgumentError
from hmatrix.lowrank.factors import LowRank
from hmatrix.matrix import HMatrix
from hmatrix.packed.packing import EncodedLowRank, PackedLeaf

_ORDINARY = 2.0**24
"""Numbers up to this, and down to its inverse, are left alone: products of two of them have squares in float32."""

_MOST_LOST = 0.01
"""Largest part of the error that may be added by numbers that float32 holds only coarsely."""

_NEGLIGIBLE = 2.0**-20
"""Part of the matrix that may be lost in any case."""


def exponent_of(array: FloatArray) -> int:
    """Return the exponent e for which the largest magnitude over ``2^e`` is in [1, 2); ordinary ones have 0."""
    largest = largest_of(array)
    if largest == 0 or 1 / _ORDINARY <= largest <= _ORDINARY or not math.isfinite(largest):
        return 0
    return int(np.frexp(largest)[1]) - 1


def divided(array: FloatArray, exponent: int) -> FloatArray:
    """Return an array over ``2^exponent`` in float32: the array itself, where it is that."""
    scaled = np.ldexp(array, -exponent) if exponent else array
    return scaled.astype(np.float32, copy=False)


def multiplied(
    matrix: HMatrix,
    leaves: list[PackedLeaf],
    permutations: tuple[IndexArray, IndexArray],
    exponent: int,
    errors: FloatArray,
) -> HMatrix:
    """Return a matrix times ``2^exponent``: itself for the exponent 0.

    Parameters
    ----------
    matrix
        The matrix.
    leaves, permutations
        Leaves and permutations that the matrix was made of.
    exponent
        The power of two.
    errors
        The weight less the matrix, ``(m, n)``, rows by their weights.

    Raises
    ------
    ArgumentError
        If numbers leave the range of float32, and the loss is not small beside the errors.
    """
    if exponent == 0:
        return matrix
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        try:
            whole = HMatrix.from_leaves(
                matrix.shape,
                [_leaf(leaf, exponent) for leaf in leaves],
                *permutations,
                activations=matrix.activations,
            )
        except ArgumentError as error:
            raise _out_of_range("weight") from error
        before, after = matrix.to_dense(), np.ldexp(whole.to_dense().astype(np.float64), -exponent)
        lost = frobenius(after - before)
        # Not the other way round: what is lost may be no number.
        if not lost <= _MOST_LOST * frobenius(errors) + _NEGLIGIBLE * frobenius(before):
            raise _out_of_range("weight")
    return whole


def multiplied_correction(correction: Floats32, exponent: int) -> Floats32:
    """Return a correction of the bias times ``2^exponent``.

    Raises
    ------
    ArgumentError
        If float32 does not hold it.
    """
    if exponent == 0:
        return correction
    with np.errstate(over="ignore", under="ignore"):
        whole: Floats32 = np.ldexp(correction, exponent)
    if not np.isfinite(whole).all():
        raise _out_of_range("calibration")
    return whole


def _leaf(leaf: PackedLeaf, exponent: int) -> PackedLeaf:
    """Return a leaf times ``2^exponent``, half of which each factor of low rank gets."""
    block, half = leaf.block, exponent // 2
    if isinstance(block, EncodedLowRank):
        return replace(leaf, block=EncodedLowRank(_encoded(block.U, exponent - half), _encoded(block.Vt, half)))
    if isinstance(block, LowRank):
        return replace(leaf, block=LowRank(np.ldexp(block.U, exponent - half), np.ldexp(block.V, half)))
    return replace(leaf, block=_encoded(block, exponent) if isinstance(block, Encoded) else np.ldexp(block, exponent))


def _encoded(encoded: Encoded, exponent: int) -> Encoded:
    return replace(encoded, scales=np.ldexp(encoded.scales, exponent))


def _out_of_range(name: str) -> ArgumentError:
    """Return the exception for numbers that float32 cannot hold."""
    came = "has a result outside the range of float32"
    return ArgumentError(name, came, "multiply it by a power of two, and the layer's outputs by its inverse")
