"""The coarse part of a progressive head that a user asks for: of low rank, or an H-matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hmatrix._support.checks import check_integer
from hmatrix.codes.precision import Activations, Precision
from hmatrix.errors import ArgumentError
from hmatrix.heads.rules import FixedRows, Rigorous, Rule
from hmatrix.heads.sizes import COARSE
from hmatrix.matrix import HMatrix
from hmatrix.packed.packed_blocks import PackedBlocks

RANKS = (0, 16, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512)
"""Ranks of the coarse part to choose from."""

CLUSTER_ROWS = (0, 256, 128, 64)
"""Most rows of a cluster that are tried; 0 is no clusters."""

MANY_ROWS = 8192
"""Least rows of a layer for which clusters are tried."""


@dataclass(frozen=True, eq=False)
class LowRanks:
    """Coarse parts of low rank, to choose from.

    Parameters
    ----------
    ranks, precisions
        Ranks and precisions of the factors.
    cluster_rows
        Most rows of a cluster; 0 is no clusters.
    """

    ranks: Sequence[int]
    precisions: Sequence[Precision]
    cluster_rows: Sequence[int]


@dataclass(frozen=True, eq=False)
class CoarseArguments:
    """Arguments of `hmatrix.progressive` about the coarse part; ``None`` where the user gave none."""

    coarse: HMatrix | None
    ranks: Sequence[int] | None
    coarse_precisions: Sequence[Precision | str] | None
    cluster_rows: Sequence[int] | None

    def checked(self, shape: tuple[int, int], rule: Rule, *, calibrated: bool) -> LowRanks | PackedBlocks:
        """Return the coarse parts to choose from, or the H-matrix.

        Raises
        ------
        ArgumentError
            If anything cannot be used.
        """
        return self._low_ranks(shape, rule, calibrated) if self.coarse is None else self._matrix(shape, rule)

    def _matrix(self, shape: tuple[int, int], rule: Rule) -> PackedBlocks:
        coarse = self.coarse
        for name in ("ranks", "coarse_precisions", "cluster_rows"):
            if getattr(self, name) is not None:
                raise ArgumentError(name, "is given beside coarse", "leave it out: the H-matrix is the coarse part")
        if not isinstance(coarse, HMatrix):
            raise ArgumentError("coarse", f"is a {type(coarse).__name__}", "give an HMatrix of the weight")
        if coarse.shape != shape:
            raise ArgumentError("coarse", f"has the shape {coarse.shape}", f"give {shape}, that of the weight")
        if coarse.dtype != np.float32:
            raise ArgumentError("coarse", f"is of {coarse.dtype}", 'give one of float32: coarse.astype("float32")')
        if isinstance(rule, Rigorous) and coarse.activations is Activations.INT8:
            came = "has int8 activations, whose errors no bound of Rigorous() covers"
            raise ArgumentError("coarse", came, 'give an H-matrix with activations="exact", or the rule Margin()')
        return coarse.pack()

    def _low_ranks(self, shape: tuple[int, int], rule: Rule, calibrated: bool) -> LowRanks:
        m, n = shape
        asked = RANKS if self.ranks is None else self.ranks
        ranks = sorted({min(check_integer("ranks", rank, at_least=0), m, n) for rank in asked})
        if not ranks:
            raise ArgumentError("ranks", "are none", "give some")
        names = self.coarse_precisions
        if names is None:
            names = COARSE if calibrated else COARSE[:1]
        precisions = tuple(Precision.of(name) for name in names)
        if not precisions or not set(precisions) <= set(COARSE):
            came = f"are {[precision.name.lower() for precision in precisions]}"
            raise ArgumentError("coarse_precisions", came, "give int8, int4 or both")
        fixed, cluster_rows = isinstance(rule, FixedRows), self.cluster_rows
        if cluster_rows is None:
            cluster_rows = CLUSTER_ROWS if m >= MANY_ROWS and calibrated and not fixed else (0,)
        sizes = sorted({check_integer("cluster_rows", rows, at_least=0) for rows in cluster_rows})
        if not sizes or (fixed and sizes != [0]):
            raise ArgumentError("cluster_rows", f"are {list(cluster_rows)}", "give some, or with FixedRows() 0")
        return LowRanks(ranks, precisions, sizes)
