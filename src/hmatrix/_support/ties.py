"""Decisions that do not hang on the last bit.

A BLAS adds up in an order that depends on the processor and on where in a matrix a sum stands, so that equal sums come
out with different last bits. Values that rounding alone tells apart count as equal here, and of equal ones the first is
taken. That settles sums whose true difference is zero; two that happen to differ by just the bound are still told apart
by their last bits.

References
----------
N. J. Higham and T. Mary, "A new approach to probabilistic rounding error analysis", SIAM Journal on Scientific
Computing 41 (2019), doi:10.1137/18M1226312.
"""

import hashlib

import numpy as np
import numpy.typing as npt

from hmatrix._support.typing import AnyArray, FloatArray, Positions


def rounding_of(dtype: npt.DTypeLike, terms: int) -> float:
    """Return the largest difference of two sums that should be equal, relative to the size of their terms.

    Each of `terms` roundings is off by at most half an eps, with a sign that is as good as random, so that errors grow
    with the root of `terms`. Next to no difference exceeds four times that.
    """
    return 2.0 * float(np.finfo(dtype).eps) * float(np.sqrt(max(terms, 1)))


def first_least(values: npt.ArrayLike, rounding: float) -> int:
    """Return the index of the first of some values ``(n,)`` that exceeds the least by no more than `rounding`."""
    given = np.asarray(values)
    return int(np.argmax(given <= given.min() + rounding))


def first_largest(values: npt.ArrayLike, rounding: float) -> int:
    """Return the index of the first of some values ``(n,)`` that the largest exceeds by no more than `rounding`."""
    given = np.asarray(values)
    return int(np.argmax(given >= given.max() - rounding))


def tied_order(keys: FloatArray, rounding: npt.ArrayLike) -> Positions:
    """Return the order of `keys` ``(n,)``; neighbours in it that rounding alone tells apart keep the order of indices.

    Parameters
    ----------
    keys
        Values to order by.
    rounding
        Largest error of each of them, ``(n,)``, or one number for all.
    """
    order, groups = _grouped(keys, rounding)
    return order[np.lexsort((order, groups))]


def snapped(values: FloatArray, rounding: npt.ArrayLike) -> FloatArray:
    """Return `values` ``(n,)`` with those that rounding alone tells apart made equal to the first of them."""
    order, groups = _grouped(values, rounding)
    firsts = np.minimum.reduceat(order, np.flatnonzero(np.diff(groups, prepend=-1)))
    equal = np.empty_like(values)
    equal[order] = values[firsts[groups]]
    return equal


def _grouped(keys: FloatArray, rounding: npt.ArrayLike) -> tuple[Positions, Positions]:
    """Return the order of `keys`, and in it the number of the group of neighbours that each belongs to."""
    order = np.argsort(keys, kind="stable")
    bounds = np.broadcast_to(rounding, keys.shape)[order]
    apart = np.diff(keys[order]) > np.maximum(bounds[1:], bounds[:-1])
    return order, np.concatenate([[0], np.cumsum(apart)])


def first_equal(rows: AnyArray) -> Positions:
    """Return, for each row of a matrix ``(m, n)``, the number of the first row with the same bits, ``(m,)``."""
    seen: dict[bytes, int] = {}
    numbers = (
        seen.setdefault(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), number)
        for number, row in enumerate(rows)
    )
    return np.fromiter(numbers, np.intp, len(rows))


def signs_of(vectors: FloatArray) -> FloatArray:
    """Return the signs of singular or eigenvectors ``(n, k)``, ``(k,)``, by which the largest entries are positive.

    Without a rule rounding would decide about them. The first entry that is nearly as large will do: with a margin of
    the root of the rounding it is the same one on every processor.
    """
    margin = np.sqrt(rounding_of(vectors.dtype, len(vectors)))
    places = [first_largest(column, margin * column.max()) for column in np.abs(vectors.T)]
    signs: FloatArray = np.copysign(1, vectors[places, np.arange(vectors.shape[1])]).astype(vectors.dtype)
    return signs
