"""Singular values and leading factors of blocks, from the smaller of their two Gram matrices.

These are summed in float64, so that nothing above the rounding of a float32 block is lost; they cost a third of a
singular value decomposition where the block is four times as long as wide, and of a large block they need no copy.
"""

from collections.abc import Iterator

import numpy as np
import scipy.linalg

from hmatrix._support.strips import strips
from hmatrix._support.typing import FloatArray, Floats64


def energies(block: FloatArray) -> Floats64:
    """Return the squares of the singular values of a block ``(m, n)``, falling, ``(min(m, n),)``."""
    squares: Floats64 = scipy.linalg.eigvalsh(_gram(block, None), overwrite_a=True, check_finite=False)
    # Those that are rounding errors are none, so that no rank seems to gain by them.
    squares[squares <= squares[-1] * _rounding(block)] = 0
    return squares[::-1]


def leading_directions(block: FloatArray, root: FloatArray | None, rank: int) -> FloatArray:
    """Return the leading right singular vectors of ``block @ root``, ``(n, k)``; of its nonzero values alone.

    Parameters
    ----------
    block
        ``(m, n)``.
    root
        ``(n, n)``, or ``None`` for the identity.
    rank
        Most of them; k is less where the block has a lower rank.
    """
    size = min(block.shape)
    values, vectors = scipy.linalg.eigh(
        _gram(block, root), overwrite_a=True, check_finite=False, subset_by_index=(max(size - rank, 0), size - 1)
    )
    inside = values > values[-1] * _rounding(block)
    if not inside.all():
        vectors = vectors[:, inside]
    if len(block) > block.shape[1]:
        directions: FloatArray = vectors[:, ::-1].astype(np.float32)
        return directions
    # From left vectors; in float64, since rounding them would mix much of the first into the last.
    directions = np.empty((block.shape[1], vectors.shape[1]), np.float32)
    squares, start = np.zeros(vectors.shape[1]), 0
    for part in _parts(block, root):
        product = part @ vectors
        squares += np.square(product).sum(axis=0)
        directions[start : start + len(part)] = product[:, ::-1]
        start += len(part)
    directions /= np.sqrt(squares[::-1]).astype(np.float32)
    return directions


def _rounding(block: FloatArray) -> float:
    """Return how large eigenvalues of the smaller Gram matrix may be that should be 0, relative to the largest."""
    return float(min(block.shape) * np.finfo(np.float64).eps)


def _gram(block: FloatArray, root: FloatArray | None) -> Floats64:
    """Return the smaller of the two Gram matrices of ``block @ root``: its lower triangle, in LAPACK's order."""
    gram = np.zeros((min(block.shape),) * 2, order="F")
    for part in _parts(block, root):
        # Added where it is: of a large block a sum of two would be four times as large as the block.
        gram = scipy.linalg.blas.dsyrk(1.0, part.T, beta=1.0, c=gram, lower=True, overwrite_c=True)
    return gram


def _parts(block: FloatArray, root: FloatArray | None) -> Iterator[Floats64]:
    """Iterate over strips along the longer side of ``block @ root``, ``(strip, min(m, n))``."""
    m, n = block.shape
    for strip in strips(max(m, n)):
        if m > n:
            part = block[strip] if root is None else block[strip] @ root
        else:
            part = (block[:, strip] if root is None else block @ root[:, strip]).T
        yield part.astype(np.float64)
