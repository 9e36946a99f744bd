"""The flat arrays of a progressive head, which the kernel reads, and files and state dicts hold.

The coarse part is ``U V^T`` of a low rank in int8 or int4, or any H-matrix, which has no subspace of x: its rank is 0,
and all of x is outside. The fine part is the weight itself, row by row. A row's output is at most its coarse output
plus ``(scale * |x outside the span of V| + constant) * remainder + noise * reach``. Clusters of rows have one coarse
output each, and the same kind of bound for all their rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np

from hmatrix._support.memory import pieces
from hmatrix._support.typing import AnyArray, Codes, Flags, FloatArray, Floats32, IndexArray, Integers, Words
from hmatrix.codes.precision import Precision
from hmatrix.errors import ArgumentError
from hmatrix.heads.levels import Bound, Level
from hmatrix.heads.sizes import HeadSizes
from hmatrix.heads.words import BLOCK, STRIP, from_fine, from_strips, is_filled_up, is_filled_up_fine, padded
from hmatrix.packed.packed_blocks import PackedBlocks
from hmatrix.packed.storage import Storage

PREFIX = "coarse_"
"""Beginning of the names of the arrays of a coarse H-matrix."""

RECORDS: dict[str, type[HeadSizes] | type[Bound]] = {"sizes": HeadSizes, "limits": Bound, "cluster_limits": Bound}
"""Arrays of numbers that have names."""


@dataclass(frozen=True, eq=False)
class PackedHead:
    """A progressive head in packed form.

    Parameters
    ----------
    sizes
        Sizes, counts and precisions.
    limits, cluster_limits
        Bounds of the level of the rows and of that of the clusters.
    basis, basis_scales
        ``V^T``: strips of words, and a scale for each row, filled up to whole strips.
    weights
        ``sum(weights * t^2)`` is at most the squared norm of the part of x in the span of V.
    factor, factor_scales, bias, remainder, reach
        Arrays of the `Level` of the rows. Where there are clusters, they lie one after another, each filled up to whole
        strips.
    cluster_factor, cluster_scales, cluster_bias, cluster_remainder, cluster_reach
        Arrays of the `Level` of the clusters.
    order
        Row at each place of the rows' level, -1 where there is none; int32, empty without clusters.
    starts
        First strip of each cluster, and the end; int32, empty without clusters.
    fine, fine_scales
        The fine rows, each in whole blocks, and a scale for each.
    matrix
        H-matrix ``(m, n)`` that gives the coarse outputs of the rows, in the place of the factors.

    Raises
    ------
    ArgumentError
        If they do not fit together.
    """

    sizes: HeadSizes
    limits: Bound
    basis: Words
    basis_scales: Floats32
    weights: Floats32
    factor: Words
    factor_scales: Floats32
    bias: Floats32
    remainder: Floats32
    reach: Floats32
    cluster_limits: Bound
    cluster_factor: Words
    cluster_scales: Floats32
    cluster_bias: Floats32
    cluster_remainder: Floats32
    cluster_reach: Floats32
    order: IndexArray
    starts: IndexArray
    fine: Words
    fine_scales: Floats32
    matrix: PackedBlocks | None = None

    def __post_init__(self) -> None:
        for name in ARRAYS:
            if name not in RECORDS:
                object.__setattr__(self, name, _vector(name, getattr(self, name)))
        matrix, rank, clusters = self.matrix, self.rank, self.sizes.clusters
        if matrix is not None and (matrix.shape != self.shape or matrix.dtype != np.float32 or rank or clusters):
            came = f"is {matrix.dtype} of shape {matrix.shape}, beside rank {rank} and {clusters} clusters"
            raise ArgumentError("matrix", came, f"give float32 of shape {self.shape}, and neither factors nor clusters")
        self._check_places()
        self._check_arrays()

    def _check_places(self) -> None:
        m, clusters = self.sizes.rows, self.sizes.clusters
        if self.starts.shape != (clusters + 1 if clusters else 0,):
            raise ArgumentError("starts", f"has {len(self.starts)} entries", "give one a cluster, and the end")
        if clusters and (self.starts[0] != 0 or (np.diff(self.starts) <= 0).any()):
            raise ArgumentError("starts", "do not increase from 0", "give the first strip of each cluster, and the end")
        rows = self.order[self.order >= 0]
        if len(self.order) != (int(self.starts[-1]) * STRIP if clusters else 0):
            raise ArgumentError("order", f"has {len(self.order)} entries", "give as many as the clusters have places")
        # Their number first: a damaged file may say that there are two billions.
        if clusters and ((self.order < -1).any() or len(rows) != m or not np.array_equal(np.sort(rows), np.arange(m))):
            raise ArgumentError("order", "is no order of the rows", "name each row once, and -1 where there is none")

    def _check_arrays(self) -> None:
        (m, n), rank, clusters = self.shape, self.rank, self.sizes.clusters
        places, inner, strips = len(self.order) or padded(m, STRIP), padded(rank, STRIP), padded(clusters, STRIP)
        codes = self.coarse.per_word
        lengths = {
            "basis": inner * (padded(n, codes) // codes),
            "basis_scales": inner,
            "weights": inner,
            "factor": places * inner // codes,
            **dict.fromkeys(("factor_scales", "bias", "remainder", "reach"), places),
            "cluster_factor": strips * inner // codes,
            **dict.fromkeys(("cluster_scales", "cluster_bias", "cluster_remainder", "cluster_reach"), strips),
            "fine": m * padded(n, BLOCK) // self.precision.per_word,
            "fine_scales": m,
        }
        for name, length in lengths.items():
            array = getattr(self, name)
            if array.shape != (length,):
                raise ArgumentError(name, f"has {len(array)} entries", f"give {length}")
            if name not in (*WORDS, "bias", "cluster_bias") and not np.isfinite(array).all():
                raise ArgumentError(name, "has NaN or infinity in it", "give finite numbers")
            if name in NORMS and (array < 0).any():
                raise ArgumentError(name, "has negative entries", "give norms")
        for name, real in (("bias", self.real), ("cluster_bias", np.arange(strips) < clusters)):
            array = getattr(self, name)
            if not np.isfinite(array[real]).all():
                raise ArgumentError(name, "has NaN or infinity in it", "give finite numbers")
            if not np.isneginf(array[~real]).all():
                raise ArgumentError(name, "is not filled up with -inf", "give -inf where there is no row")
        if not all(_all_finite(part, self.precision) for part in pieces(self.fine)):
            raise ArgumentError("fine", "has NaN or infinity in it", "give finite numbers")
        self._check_filling(np.arange(strips) < clusters)

    def _check_filling(self, real_clusters: Flags) -> None:
        """Check the codes that fill up strips and words, which the kernel reads."""
        (m, n), rank = self.shape, self.rank
        real_rank = np.arange(padded(rank, STRIP)) < rank
        filled = {
            "basis": is_filled_up(self.basis, real_rank, n, self.coarse),
            "factor": is_filled_up(self.factor, self.real, rank, self.coarse),
            "cluster_factor": is_filled_up(self.cluster_factor, real_clusters, rank, self.coarse),
            "fine": is_filled_up_fine(self.fine.reshape(m, -1), n, self.precision),
        }
        for name, is_filled in filled.items():
            if not is_filled:
                raise ArgumentError(name, "has codes that belong to no row or column", "fill it up with zeros")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the weight."""
        return self.sizes.rows, self.sizes.columns

    @property
    def rank(self) -> int:
        """Rank of the coarse part."""
        return self.sizes.rank

    @property
    def precision(self) -> Precision:
        """Precision of the fine rows."""
        return self.sizes.fine

    @property
    def coarse(self) -> Precision:
        """Precision of the coarse factors."""
        return self.sizes.coarse

    @property
    def real(self) -> Flags:
        """Whether each place of the rows' level holds a row."""
        return self.order >= 0 if len(self.order) else np.arange(padded(self.shape[0], STRIP)) < self.shape[0]

    @cached_property
    def places(self) -> Level:
        """The level of the rows."""
        arrays = (self.factor, self.factor_scales, self.bias, self.remainder, self.reach)
        return Level(self.limits, self.coarse, *arrays)

    @cached_property
    def clusters(self) -> Level:
        """The level of the clusters, without any row where there are none."""
        arrays = (self.cluster_factor, self.cluster_scales, self.cluster_bias)
        return Level(self.cluster_limits, self.coarse, *arrays, self.cluster_remainder, self.cluster_reach)

    def own_arrays(self) -> dict[str, AnyArray]:
        """Return the arrays that every head has, by name, in the order of the kernel's `HeadArrays`."""
        values = {name: getattr(self, name) for name in ARRAYS}
        return {name: value.as_array() if name in RECORDS else value for name, value in values.items()}

    def arrays(self) -> dict[str, AnyArray]:
        """Return all arrays by name; those of the coarse H-matrix, if there is one, begin with `PREFIX`."""
        others = {} if self.matrix is None else self.matrix.arrays()
        return self.own_arrays() | {PREFIX + name: others[name] for name in others}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, AnyArray]) -> Self:
        """Return the head that has such `arrays`.

        Raises
        ------
        ArgumentError
            If they do not fit together.
        TypeError
            If some are missing or unknown.
        """
        own = _named({name: array for name, array in arrays.items() if not name.startswith(PREFIX)})
        others = {name.removeprefix(PREFIX): array for name, array in arrays.items() if name.startswith(PREFIX)}
        if not others:
            return cls(**own)
        # Before panels are made for rows that only the file's sizes tell of.
        sizes, rows = others.get("sizes"), len(own.get("fine_scales", ()))
        if sizes is not None and sizes.ravel()[:1].tolist() != [rows]:
            raise ArgumentError(PREFIX + "sizes", f"are {sizes.tolist()}", f"give the {rows} rows of the fine part")
        return cls(**own, matrix=PackedBlocks.of_arrays(others))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a pickle; those of release 0.1.0 hold records as arrays."""
        self.__dict__.update(_named(state))

    def storage(self) -> Storage:
        """Return the bytes of its parts: fine rows (near field), coarse coefficients (far field), and all else."""
        fine = self.fine.nbytes + self.fine_scales.nbytes
        coarse = self.basis.nbytes + self.basis_scales.nbytes
        coarse += sum(level.factor.nbytes + level.scales.nbytes for level in (self.places, self.clusters))
        total = sum(array.nbytes for array in self.arrays().values())
        if self.matrix is not None:
            coarse += self.matrix.data.nbytes
            total += self.matrix.schedule.nbytes
        return Storage(fine, coarse, total - fine - coarse, 4 * self.shape[0] * self.shape[1])

    @cached_property
    def basis_codes(self) -> Codes:
        """Codes of ``V^T`` ``(rank, n)``, with the rows of zeros that fill up strips."""
        return from_strips(self.basis, self.rank, self.shape[1], self.coarse)

    def rows_of(self, rows: Integers, *, scaled: bool = True) -> FloatArray:
        """Return fine rows decoded, float32 ``(rows, n)``, with or without their scales."""
        m, n = self.shape
        scales = self.fine_scales[rows] if scaled else np.ones(len(rows), np.float32)
        return from_fine(self.fine.reshape(m, -1)[rows], scales, self.precision, n)


def _vector(name: str, array: Any) -> AnyArray:
    """Return an array, contiguous, if its type is the one of its name."""
    kind = np.int32 if name in INTEGERS else np.uint32 if name in WORDS else np.float32
    if not isinstance(array, np.ndarray) or array.dtype != kind or array.ndim != 1:
        raise ArgumentError(name, "has another type or dimension", f"give a vector of {kind.__name__}")
    return np.ascontiguousarray(array)


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with records in the place of their arrays."""
    arrays = {name: _vector(name, values[name]) for name in RECORDS if isinstance(values.get(name), np.ndarray)}
    return {**values, **{name: RECORDS[name].of_array(array) for name, array in arrays.items()}}


def _all_finite(words: Words, precision: Precision) -> bool:
    """Whether words hold finite numbers only, by their exponents."""
    match precision:
        case Precision.FLOAT32:
            return bool(np.isfinite(words.view(np.float32)).all())
        case Precision.BFLOAT16:
            return bool((words.view(np.uint16) & 0x7F80 != 0x7F80).all())
        case _:
            return True


ARRAYS = tuple(field.name for field in fields(PackedHead) if field.name != "matrix")
"""Names of the arrays that every head has."""

WORDS = ("basis", "factor", "cluster_factor", "fine", PREFIX + "data")
"""Arrays of words."""

INTEGERS = ("sizes", "order", "starts")
"""Arrays of int32."""

NORMS = ("weights", "remainder", "reach", "cluster_remainder", "cluster_reach")
"""Arrays of numbers that are not negative."""
