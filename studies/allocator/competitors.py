"""Competitors of the allocator: other methods at equal bytes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial

import numpy as np

from hmatrix._support.typing import FloatArray
from hmatrix.allocation.search.costs import Bytes
from hmatrix.assembly import build, quantize
from hmatrix.codes.precision import Precision
from hmatrix.lowrank.factors import LowRank, Truncation
from hmatrix.matrix import HMatrix
from hmatrix.packed.packing import PackedLeaf
from hmatrix.packed.schedule import build_schedule
from studies.allocator.blast import Blast, fit_blast, largest_rank


class Contender(Enum):
    """A way to spend bytes."""

    ALLOCATOR = "allocator"
    ALLOCATOR_UNBIASED = "allocator, unbiased"
    ALLOCATOR_INT8 = "allocator, int8 activations"
    INT8 = "int8"
    INT4 = "int4"
    INT2 = "int2"
    SVD = "global SVD"
    SVD_INT4 = "global SVD, int4"
    PUBLISHED = "H-matrix of fixed rank"
    BLAST = "BLAST"


OWN = (Contender.ALLOCATOR, Contender.ALLOCATOR_UNBIASED, Contender.ALLOCATOR_INT8)

PLAIN = {Contender.INT8: Precision.INT8, Contender.INT4: Precision.INT4, Contender.INT2: Precision.INT2}
"""A single dense leaf with one scale a row."""

_FACTORS = {Contender.SVD: Precision.FLOAT32, Contender.SVD_INT4: Precision.INT4}

BLAST_BLOCKS = (4, 16)
"""Blocks to a side that are tried; the better fit counts."""


@dataclass(frozen=True, eq=False)
class Approximation:
    """An approximation of a weight.

    Parameters
    ----------
    contender
        Method that made it.
    dense
        The matrix that it stands for, ``(m, n)``.
    apply
        Multiplies vectors ``(batch, n)``.
    nbytes
        Bytes of everything that the product needs.
    form
        For people: the rank, or whatever was free.
    seconds
        Time of the choice.
    """

    contender: Contender
    dense: FloatArray
    apply: Callable[[FloatArray], FloatArray]
    nbytes: int
    form: str
    seconds: float


class Competitors:
    """Approximates a weight by each competitor, as well as it can within so many bytes.

    Parameters
    ----------
    weight
        ``(m, n)``, float32.
    """

    def __init__(self, weight: FloatArray) -> None:
        self._weight = weight
        self._sizes: dict[tuple[Contender, int], int] = {}
        U, s, Vt = np.linalg.svd(weight, full_matrices=False)
        self._factors = U * s, np.ascontiguousarray(Vt.T)

    def within(self, nbytes: int) -> Iterator[Approximation]:
        """Iterate over the best approximation of each that fits into `nbytes`."""
        for contender, precision in PLAIN.items():
            start = time.perf_counter()
            matrix = quantize(self._weight, precision)
            if matrix.storage().total <= nbytes:
                yield of_matrix(contender, matrix, "one scale a row", start)
                # What fewer bits leave of the bytes is of no use to them.
                break
        for contender in (Contender.SVD, Contender.SVD_INT4, Contender.PUBLISHED):
            start = time.perf_counter()
            rank = self._largest_rank(contender, nbytes)
            if rank:
                yield of_matrix(contender, self._of_rank(contender, rank), f"rank {rank}", start)
        yield from self._blast(nbytes)

    def _largest_rank(self, contender: Contender, nbytes: int) -> int:
        """Return the largest rank that fits into `nbytes`; 0 if none does."""
        low, high = 0, min(self._weight.shape)
        while low < high:
            rank = (low + high + 1) // 2
            if (contender, rank) not in self._sizes:
                self._sizes[contender, rank] = self._size(contender, rank)
            if self._sizes[contender, rank] <= nbytes:
                low = rank
            else:
                high = rank - 1
        return low

    def _size(self, contender: Contender, rank: int) -> int:
        """Return the bytes of a rank; those of a global SVD follow from its table of leaves."""
        if contender is Contender.PUBLISHED:
            return self._of_rank(contender, rank).storage().total
        m, n = self._weight.shape
        table = np.array([[0, m, 0, n, rank, _FACTORS[contender], 0]], np.int32)
        return int(Bytes().of_matrix(table, build_schedule((m, n), table, quantized=False)))

    def _of_rank(self, contender: Contender, rank: int) -> HMatrix:
        if contender is Contender.PUBLISHED:
            return build(self._weight, truncation=Truncation(max_rank=rank))
        m, n = self._weight.shape
        U, V = (np.ascontiguousarray(factor[:, :rank]) for factor in self._factors)
        leaf = PackedLeaf(slice(0, m), slice(0, n), LowRank(U, V), _FACTORS[contender])
        return HMatrix.from_leaves((m, n), [leaf])

    def _blast(self, nbytes: int) -> Iterator[Approximation]:
        start = time.perf_counter()
        weight = self._weight
        best: tuple[float, Blast, FloatArray] | None = None
        for blocks in BLAST_BLOCKS:
            rank = largest_rank(weight.shape, blocks, nbytes) if blocks <= min(weight.shape) else 0
            if rank:
                fit = fit_blast(weight, blocks, rank)
                dense = fit.to_dense()
                error = float(np.linalg.norm(weight - dense))
                if best is None or error < best[0]:
                    best = error, fit, dense
        if best:
            _, fit, dense = best
            blocks, _, rank = fit.couplings.shape
            form = f"{blocks} x {blocks} blocks, rank {rank}"
            seconds = time.perf_counter() - start
            yield Approximation(Contender.BLAST, dense, partial(_multiply, dense), fit.nbytes, form, seconds)


def of_matrix(contender: Contender, matrix: HMatrix, form: str, start: float) -> Approximation:
    """Return an H-matrix as an approximation that was begun at `start`, in seconds of `time.perf_counter`."""
    seconds = time.perf_counter() - start
    return Approximation(contender, matrix.to_dense(), matrix.apply, matrix.storage().total, form, seconds)


def _multiply(dense: FloatArray, X: FloatArray) -> FloatArray:
    product: FloatArray = X @ dense.T
    return product
