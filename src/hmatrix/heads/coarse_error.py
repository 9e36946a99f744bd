"""The error of the coarse part of a progressive head."""

import numpy as np

from hmatrix._support.typing import Floats64, Positions
from hmatrix.heads.coarse_matrix import remainders
from hmatrix.heads.fine_rows import CHUNK
from hmatrix.heads.packed_head import PackedHead
from hmatrix.heads.words import from_codes


def coarse_error(packed: PackedHead) -> float:
    """Return the relative error of the coarse part in the Frobenius norm."""
    rest = _beside_factors(packed) if packed.matrix is None else remainders(packed.matrix, packed.rows_of)[0]
    square = sum(np.square(rows, dtype=np.float64).sum() for rows in map(packed.rows_of, _chunks(packed.shape[0])))
    return float(np.linalg.norm(rest) / np.sqrt(square)) if square else 0.0


def _beside_factors(packed: PackedHead) -> Floats64:
    """Return the norms of the fine rows less the coarse ones, in the order of their places."""
    V = from_codes(packed.basis_codes, packed.basis_scales, packed.coarse)
    order = packed.order if len(packed.order) else np.arange(len(packed.real))
    factor, rows = packed.places.codes(packed.rank)[packed.real], order[packed.real]
    U = from_codes(factor, packed.factor_scales[packed.real], packed.coarse)
    chunks = _chunks(len(rows))
    return np.concatenate([np.linalg.norm(packed.rows_of(rows[chunk]) - U[chunk] @ V, axis=1) for chunk in chunks])


def _chunks(m: int) -> list[Positions]:
    return [np.arange(start, min(start + CHUNK, m)) for start in range(0, m, CHUNK)]
