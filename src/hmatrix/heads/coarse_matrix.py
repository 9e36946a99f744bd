"""Any H-matrix as the coarse part of a progressive head: its error in each row, and the rounding of its product.

There is no subspace of x, as if the rank were 0: the rows' remainders meet all of x.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hmatrix._support.typing import FloatArray, Floats64, Positions
from hmatrix.codes.precision import Precision
from hmatrix.heads.fine_rows import CHUNK, UNIT, FineRows, offset_of
from hmatrix.heads.levels import Bound, Level
from hmatrix.heads.packed_head import PackedHead
from hmatrix.heads.sizes import HeadSizes
from hmatrix.heads.words import STRIP, filled, padded
from hmatrix.lowrank.factors import LowRank
from hmatrix.packed.packed_blocks import PackedBlocks, overlaps
from hmatrix.packed.panels import Stage
from hmatrix.packed.schedule import LEFT


@dataclass(frozen=True, eq=False)
class CoarseMatrix:
    """The coarse part of a head that is an H-matrix H.

    Parameters
    ----------
    rows, bias
        The fine part A ``(m, n)`` and b ``(m,)``.
    matrix
        H in packed form, of float32.
    remainder
        Norms of the rows of ``A - H``, ``(m,)``.
    reach
        Norms that rounding errors of the product are relative to ``(m,)``: the sums, over the leaves that meet a row,
        of the norms of their rows, times those of V where they are of low rank.
    """

    rows: FineRows
    bias: FloatArray
    matrix: PackedBlocks
    remainder: Floats64
    reach: Floats64

    @classmethod
    def of(cls, rows: FineRows, bias: FloatArray, matrix: PackedBlocks) -> "CoarseMatrix":
        """Measure the error of an H-matrix of the rows' shape."""
        return cls(rows, bias, matrix, *remainders(matrix, lambda chosen: rows.weight[chosen]))

    @cached_property
    def without_clusters(self) -> PackedHead:
        """The head that looks at all rows, as all of these do."""
        return self.pack()

    def pack(self) -> PackedHead:
        """Pack a head that refines all rows within the rigorous bound, which holds for exact activations."""
        rows = self.rows
        m, n = rows.weight.shape
        places = padded(m, STRIP)
        bound = Bound(1.0, relative=rounding(self.matrix), rounding=rows.rounding, offset=offset_of(self.bias))
        nothing, none = np.empty(0, np.int32), Level.none(Precision.INT8)
        return PackedHead(
            sizes=HeadSizes(
                rows=m,
                columns=n,
                rank=0,
                top=1,
                most=m,
                fine=rows.precision,
                clusters=0,
                probes=0,
                coarse=Precision.INT8,
                first=1,
            ),
            limits=bound,
            basis=none.factor,
            basis_scales=none.scales,
            weights=none.scales,
            factor=none.factor,
            factor_scales=np.zeros(places, np.float32),
            bias=filled(self.bias, places, -np.inf),
            remainder=filled(self.remainder * (1 + 1e-5), places),
            reach=filled(self.reach * (1 + 1e-5), places),
            cluster_limits=none.bound,
            cluster_factor=none.factor,
            cluster_scales=none.scales,
            cluster_bias=none.bias,
            cluster_remainder=none.remainder,
            cluster_reach=none.reach,
            order=nothing,
            starts=nothing,
            fine=rows.words,
            fine_scales=rows.scales,
            matrix=self.matrix,
        )


def rounding(matrix: PackedBlocks) -> float:
    """Return the largest rounding error of products with exact activations, relative to reach and the norm of x.

    Twice the float32 rounding of as many steps as a sum of each stage has, and some for decoding and the bias: the
    standard bound of a dot product, ``|error| <= n u / (1 - n u) |a| |x|``, in any order, whose second-order terms are
    well below the doubling [1]_.

    References
    ----------
    .. [1] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., SIAM 2002, section 3.1,
       doi:10.1137/1.9780898718027.
    """

    def steps(stage: Stage) -> int:
        return max((sum(run.length + 2 * run.ends for run in panel.runs) for panel in stage.panels), default=0)

    return 2 * (steps(matrix.schedule.far) + steps(matrix.schedule.near) + 16) * UNIT


def remainders(matrix: PackedBlocks, fine_rows: Callable[[Positions], FloatArray]) -> tuple[Floats64, Floats64]:
    """Return norms of rows ``(m,)``: of ``A - H``, and those that rounding errors of H's product are relative to.

    H is decoded a few rows at a time.

    Parameters
    ----------
    matrix
        H ``(m, n)``.
    fine_rows
        Function of indices of rows that returns these rows of A.
    """
    m, n = matrix.shape
    order = np.arange(m) if matrix.row_permutation is None else matrix.row_permutation.astype(np.intp)
    columns = slice(None) if matrix.column_permutation is None else matrix.column_permutation
    factors = _right_factors(matrix)
    lengths = {leaf: float(np.linalg.norm(V)) for leaf, V in factors.items()}
    remainder, reach = np.empty(m), np.zeros(m)
    for start in range(0, m, CHUNK):
        chosen = order[start : start + CHUNK]
        rest = fine_rows(chosen)[:, columns].astype(np.float64)
        for panel, of_panel, part in overlaps(matrix.schedule.near, start, start + len(chosen)):
            squares: dict[int, Floats64] = {}
            for run, decoded in matrix.decoded(panel):
                values = decoded[of_panel].astype(np.float64)
                squares[run.leaf] = squares.get(run.leaf, 0) + np.square(values).sum(axis=1)
                if run.source < n:
                    rest[part, run.source : run.source + run.length] -= values
                else:
                    V, left = factors[run.leaf], matrix.leaves[run.leaf, LEFT]
                    rest[part, left : left + len(V)] -= values @ V[:, run.column : run.column + run.length].T
            for leaf, square in squares.items():
                reach[chosen[part]] += np.sqrt(square) * lengths.get(leaf, 1.0)
        remainder[chosen] = np.linalg.norm(rest, axis=1)
    return remainder, reach


def _right_factors(matrix: PackedBlocks) -> dict[int, Floats64]:
    """Return V of the low-rank leaves by their numbers."""
    found = {}
    for leaf, start in enumerate(matrix.schedule.starts):
        if start >= 0:
            block = matrix.block(leaf)
            assert isinstance(block, LowRank)
            found[leaf] = block.V.astype(np.float64)
    return found
