"""The packed form: the kernel streams the same arrays that files and state dicts hold."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np

from hmatrix._support.checks import check_shape
from hmatrix._support.memory import aligned, pieces
from hmatrix._support.typing import AnyArray, FloatArray, IndexArray
from hmatrix.codes.precision import Precision, from_words, padding
from hmatrix.errors import ArgumentError
from hmatrix.lowrank.factors import LowRank
from hmatrix.packed.panels import Panel, Run, Schedule, Stage
from hmatrix.packed.schedule import (
    DENSE,
    PRECISION,
    build_schedule,
    least_words,
)

OPTIONAL = ("row_permutation", "column_permutation")
"""Arrays that are there only where they change anything."""


@dataclass(frozen=True, eq=False)
class PackedBlocks:
    """All blocks of an H-matrix in flat arrays, checked once and for all.

    Parameters
    ----------
    shape
        Shape of the matrix, ``(m, n)``.
    leaves
        int32 ``(leaves, 7)``: first and end row, first and end column in tree order, the rank, -1 for a
        dense leaf, the precision, and the columns that share a scale. The matrix is their sum: they cover
        it, and may overlap.
    data
        The panels of the schedule, one after the other, as words: float64, or uint32 for all other
        precisions. Products are fastest where they begin on a cache line.
    quantized
        Whether the product quantises activations to int8 where they meet integer codes.
    row_permutation, column_permutation
        ``permutation[tree position] = original index``, int32; ``None`` where the two are the same.
    known
        The schedule of this shape and these leaves, where it is known; ``None`` builds it.

    Raises
    ------
    ArgumentError
        If anything does not fit: types, sizes, leaves that leave a gap, an index array that
        is no permutation, or coefficients or scales that are not finite.
    """

    shape: tuple[int, int]
    leaves: IndexArray
    data: AnyArray
    quantized: bool = False
    row_permutation: IndexArray | None = None
    column_permutation: IndexArray | None = None
    known: InitVar[Schedule | None] = field(default=None, kw_only=True)

    def __post_init__(self, known: Schedule | None) -> None:
        check_shape("shape", self.shape)
        if max(self.shape) > np.iinfo(np.int32).max:
            raise ArgumentError("shape", f"got {self.shape}", "stay below 2^31 rows and columns")
        if self.leaves.dtype != np.int32:
            raise ArgumentError("leaves", f"have the type {self.leaves.dtype}", "give int32")
        if known is not None:
            self.__dict__["schedule"] = known
        elif (least := least_words(self.shape, self.leaves)) > self.data.size:
            raise ArgumentError("data", f"are of shape {self.data.shape}", f"give {least:.0f} words at least")
        expected = (self.schedule.words,)
        word = np.dtype(np.float64 if self.dtype == np.float64 else np.uint32)
        if self.data.shape != expected or self.data.dtype != word or not self.data.flags.c_contiguous:
            came = f"are {self.data.dtype} of shape {self.data.shape}"
            raise ArgumentError("data", came, f"give {word} of shape {expected}, contiguous")
        self._check_words()
        for name, size, permutation in (
            ("row_permutation", self.shape[0], self.row_permutation),
            ("column_permutation", self.shape[1], self.column_permutation),
        ):
            if permutation is not None:
                _check_permutation(name, permutation, size)

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, AnyArray]) -> Self:
        """Return the blocks that have such `arrays`.

        Raises
        ------
        ArgumentError
            If some are missing or unknown, or do not fit together.
        """
        needed = {"sizes", "leaves", "data"}
        if not needed <= arrays.keys() <= {*needed, *OPTIONAL}:
            raise ArgumentError("arrays", f"are {sorted(arrays)}", f"give {', '.join(sorted(needed))}; permutations")
        sizes = arrays["sizes"]
        if sizes.dtype != np.int32 or sizes.shape != (3,) or sizes[2] not in (0, 1):
            raise ArgumentError("sizes", f"are {sizes.tolist()}", "give int32: rows, columns, activations")
        m, n, quantized = sizes.tolist()
        return cls((m, n), arrays["leaves"], aligned(arrays["data"]), bool(quantized), *map(arrays.get, OPTIONAL))

    def arrays(self) -> dict[str, AnyArray]:
        """Return all arrays by name, shape and activations among them; `of_arrays` takes them."""
        own = {"sizes": np.array([*self.shape, self.quantized], np.int32), "leaves": self.leaves, "data": self.data}
        return own | {name: array for name in OPTIONAL if (array := getattr(self, name)) is not None}

    @cached_property
    def schedule(self) -> Schedule:
        """The order in which `data` are streamed."""
        return build_schedule(self.shape, self.leaves, quantized=self.quantized)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Type in which products are computed: float64 for coefficients of float64, else float32."""
        return np.dtype(np.float64 if (self.leaves[:, PRECISION] == Precision.FLOAT64).any() else np.float32)

    @property
    def index_nbytes(self) -> int:
        """Bytes of all that the product needs beside the coefficients and their scales."""
        permutations = [p.nbytes for p in (self.row_permutation, self.column_permutation) if p is not None]
        return self.leaves.nbytes + self.schedule.nbytes + sum(permutations)

    @cached_property
    def dense_words(self) -> int:
        """Words of the dense leaves, with their scales."""
        n = self.shape[1]
        panels = self.schedule.near.panels
        return sum(panel.height * run.words() for panel in panels for run in panel.runs if run.source < n)

    def block(self, leaf: int) -> FloatArray | LowRank:
        """Return the block ``(m, n)`` of a dense leaf, or the factors of a low-rank one; decoded, a copy."""
        first, end, left, right, rank, _, _ = self.leaves[leaf].tolist()
        near = np.empty((end - first, right - left if rank == DENSE else rank), self.dtype)
        for panel, rows, part in overlaps(self.schedule.near, first, end):
            for run, values in self.decoded(panel, leaf):
                near[part, run.column : run.column + run.length] = values[rows]
        if rank == DENSE:
            return near
        V = np.empty((right - left, rank), self.dtype)
        start = self.schedule.starts[leaf]
        for panel, rows, part in overlaps(self.schedule.far, start, start + rank):
            for run, values in self.decoded(panel):
                V[run.column : run.column + run.length, part] = values[rows].T
        return LowRank(near, V)

    def units(self, panel: Panel, leaf: int | None = None) -> Iterator[tuple[Run, AnyArray, FloatArray | None]]:
        """Iterate over the runs of a panel, of one leaf alone if it is named.

        Yields
        ------
        run
            The run.
        units
            Its coefficients ``(height, length)``: codes uint8, or floating-point numbers.
        scales
            Scales of the rows of codes, ``(height,)``; ``None`` for floating-point numbers.
        """
        scales: FloatArray | None = None
        for run, words in self._runs(panel):
            if run.begins:
                scales = _scales(words)
            if leaf is None or run.leaf == leaf:
                own = from_words(words[:, run.begins :], run.precision, run.length)
                yield run, own, scales if run.precision.is_integer else None

    def decoded(self, panel: Panel, leaf: int | None = None) -> Iterator[tuple[Run, FloatArray]]:
        """Iterate over the runs of a panel as `units` does, with their values ``(height, length)``."""
        for run, units, scales in self.units(panel, leaf):
            if scales is None:
                yield run, units
            else:
                yield run, run.precision.values(units) * scales[:, None]

    def _check_words(self) -> None:
        if (self.leaves[:, PRECISION] <= Precision.FLOAT32).all():
            finite = all(bool(np.isfinite(part).all()) for part in pieces(self.data.view(self.dtype)))
        else:
            panels = (*self.schedule.far.panels, *self.schedule.near.panels)
            finite = all(self._is_sound(panel) for panel in panels)
        if not finite:
            raise ArgumentError("data", "have NaN or infinity in them", "give finite numbers")

    def _is_sound(self, panel: Panel) -> bool:
        """Whether the scales of a panel, and its coefficients that are no codes, are finite.

        Raises
        ------
        ArgumentError
            If words are not filled up as `to_words` does. Kernels read these bits: those of a trellis as neighbours.
        """
        for run, words in self._runs(panel):
            if run.begins and not np.isfinite(_scales(words)).all():
                return False
            if not run.precision.is_integer and not np.isfinite(from_words(words, run.precision, run.length)).all():
                return False
            if (filling := padding(run.precision, run.length)) is not None:
                mask, bits = filling
                if ((words[:, -len(mask) :] & mask) != bits).any():
                    came = f"have bits in the last words of {run.precision.name.lower()} rows that belong to no column"
                    raise ArgumentError("data", came, f"fill them up with the code {run.precision.filling}")
        return True

    def _runs(self, panel: Panel) -> Iterator[tuple[Run, AnyArray]]:
        """Iterate over the runs of a panel with their words ``(height, words)``, after scales where a group begins."""
        words = panel_words(self.data, panel)
        column = 0
        for run in panel.runs:
            yield run, words[:, column : column + run.words()]
            column += run.words()


def _scales(words: AnyArray) -> FloatArray:
    """Return the scales of the rows, ``(height,)``, of words that begin with them."""
    return words[:, 0].copy().view(np.float32)


def panel_words(data: AnyArray, panel: Panel) -> AnyArray:
    """View a panel in the data as a matrix of words ``(height, width)``."""
    return data[panel.offset : panel.end].reshape(panel.width, panel.height).T


def overlaps(stage: Stage, first: int, end: int) -> Iterator[tuple[Panel, slice, slice]]:
    """Iterate over the panels with rows in ``first:end``; also give those rows in the panel, and in the range."""
    number = max(bisect_right(stage.panels, first, key=lambda panel: panel.target) - 1, 0)
    while first < end and number < len(stage.panels) and (panel := stage.panels[number]).target < end:
        number += 1
        start, stop = max(first, panel.target), min(end, panel.target + panel.height)
        yield panel, slice(start - panel.target, stop - panel.target), slice(start - first, stop - first)


def _check_permutation(name: str, permutation: IndexArray, size: int) -> None:
    if permutation.dtype != np.int32 or permutation.shape != (size,):
        raise ArgumentError(name, f"is {permutation.dtype} {permutation.shape}", f"give int32 ({size},)")
    if permutation.min() < 0 or permutation.max() >= size or (np.bincount(permutation, minlength=size) != 1).any():
        raise ArgumentError(name, "is no permutation", f"give each of 0 to {size - 1} once")
