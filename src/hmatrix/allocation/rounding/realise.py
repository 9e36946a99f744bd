"""The leaves that are stored, made of pieces."""

from collections.abc import Sequence

import numpy as np
import scipy.linalg

from hmatrix._support.typing import FloatArray
from hmatrix.allocation.error.damping import upper_root
from hmatrix.allocation.error.moments import Moments
from hmatrix.allocation.error.row_moments import RowMoments
from hmatrix.allocation.rounding.second_order import Cell, round_cells
from hmatrix.allocation.search.candidates import Piece
from hmatrix.allocation.search.depths import Depth
from hmatrix.allocation.search.spectra import leading_directions
from hmatrix.codes.encoding import Encoded, decode
from hmatrix.codes.precision import Precision, from_words, to_words
from hmatrix.lowrank.factors import LowRank
from hmatrix.packed.packing import EncodedLowRank, PackedLeaf

_DEPTHS = {Precision.INT8: Depth.EIGHT, Precision.TRELLIS4: Depth.FAST_FOUR}


def realise(
    weight: FloatArray, pieces: Sequence[Piece], moments: Moments, row_moments: RowMoments
) -> tuple[list[PackedLeaf], FloatArray]:
    """Compute the leaves: low-rank parts first, then all dense ones together, making up for all errors.

    Parameters
    ----------
    weight
        ``(m, n)`` in tree order, float32.
    pieces
        Pieces to store.
    moments, row_moments
        Moments of the columns and of the rows in tree order.

    Returns
    -------
    leaves
        Leaves in the order of `leaf_table`.
    errors
        The weight less the leaves, ``(m, n)``.
    """
    rest = weight.copy()
    parts: dict[int, list[PackedLeaf]] = {number: [] for number in range(len(pieces))}
    cells: dict[int, Cell] = {}
    for number, piece in enumerate(pieces):
        place = (piece.rows, piece.columns)
        form = piece.form
        if form.rank:
            root = None if moments.root is None else moments.root[piece.columns, piece.columns]
            factors = _factors(rest[place], root, form.rank, form.factors)
            parts[number].append(PackedLeaf(*place, factors, None if form.factors.is_integer else form.factors))
            rest[place] -= _dense(factors, form.factors)
        if isinstance(form.dense, Depth):
            cells[number] = Cell(*place, form.dense)
        elif form.dense is not None:
            stored = _stored(rest[place], form.dense)
            parts[number].append(PackedLeaf(*place, stored, form.dense))
            rest[place] -= stored
        elif not form.rank:
            empty = LowRank(*(np.zeros((size, 0), np.float32) for size in rest[place].shape))
            parts[number].append(PackedLeaf(*place, empty))
    made = round_cells(rest, list(cells.values()), moments, row_moments)
    for (number, cell), rounded in zip(cells.items(), made, strict=True):
        parts[number] += [PackedLeaf(cell.rows, cell.columns, plane) for plane in rounded]
    return [leaf for number in range(len(pieces)) for leaf in parts[number]], rest


def _stored(block: FloatArray, precision: Precision) -> FloatArray:
    """Return a copy of the block as a floating-point precision holds it."""
    stored: FloatArray = from_words(to_words(block.copy(), precision), precision, block.shape[1])
    return stored


def _dense(factors: LowRank | EncodedLowRank, precision: Precision) -> FloatArray:
    """Return the block ``(m, n)`` that factors stand for as they are stored."""
    if isinstance(factors, EncodedLowRank):
        return decode(factors.U) @ decode(factors.Vt)
    return _stored(factors.U, precision) @ _stored(factors.V, precision).T


def _factors(block: FloatArray, root: FloatArray | None, rank: int, precision: Precision) -> LowRank | EncodedLowRank:
    """Return the low-rank factors that leave the least error of the output; U answers to V as it is stored.

    Parameters
    ----------
    block
        ``(m, n)``.
    root
        Root of the second moment of its columns, given those before them, ``(n, n)``.
    rank
        Columns of each factor.
    precision
        Precision of the factors.
    """
    directions = leading_directions(block, root, rank)
    weighted = block if root is None else block @ root
    U = weighted @ directions
    V = directions if root is None else scipy.linalg.solve_triangular(root, directions, trans="T", check_finite=False)
    if not precision.is_integer:
        return LowRank(_stored(U, precision), _stored(np.ascontiguousarray(V), precision))
    Vt = _rounded(np.ascontiguousarray(V.T), root, precision)
    held = decode(Vt) if root is None else decode(Vt) @ root
    U = scipy.linalg.lstsq(held.T, weighted.T, check_finite=False)[0].T
    # The rows of V have scales of their own, so the columns of U may share theirs when they are of one size.
    norms = np.linalg.norm(U, axis=0)
    norms[norms == 0] = 1
    Vt = Encoded(Vt.codes, (Vt.scales * norms[:, None]).astype(np.float32), Vt.group, Vt.precision)
    return EncodedLowRank(_rounded(U / norms, upper_root(held * norms[:, None]), precision), Vt)


def _rounded(matrix: FloatArray, root: FloatArray | None, precision: Precision) -> Encoded:
    """Round a factor to integers by the error of the output."""
    m, n = matrix.shape
    cell = Cell(slice(0, m), slice(0, n), _DEPTHS[precision])
    ((rounded,),) = round_cells(matrix.astype(np.float32), [cell], Moments.of_root(root, n))
    return rounded
