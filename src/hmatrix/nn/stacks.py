"""The leaves of a packed matrix, sorted into stacks of equal shape, and their coefficients as tensors.

A kernel streams panels; torch multiplies batches. Here the blocks, or the factors, of all leaves that have
the same shape and precision become one stack ``(leaves, rows, columns)``. Nothing relies on the leaves
being a partition: a product adds what each of them contributes.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.onnx
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from hmatrix.packed import PackedBlocks, overlaps
from hmatrix.panels import Run, Stage
from hmatrix.precision import Precision
from hmatrix.schedule import DENSE

_Offsets: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Columns:
    """How the columns of a factor are cut into runs, the same for all factors of a stack.

    Parameters
    ----------
    precision
        Of the coefficients.
    lengths
        Columns of each run. Activations are quantised run by run.
    groups
        For each run the number of the group, of common scales, that it belongs to.
    """

    precision: Precision
    lengths: tuple[int, ...]
    groups: tuple[int, ...]

    @property
    def count(self) -> int:
        """All columns."""
        return sum(self.lengths)

    def runs(self) -> Iterator[tuple[slice, int]]:
        """Iterate over the columns of each run and the number of its group."""
        first = 0
        for length, group in zip(self.lengths, self.groups, strict=True):
            yield slice(first, first + length), group
            first += length

    def places(self) -> tuple[list[int], list[int]]:
        """Return which columns of words hold coefficients, and which hold scales."""
        codes: list[int] = []
        scales: list[int] = []
        at = 0
        for number, (length, group) in enumerate(zip(self.lengths, self.groups, strict=True)):
            if self.precision.is_integer and (number == 0 or group != self.groups[number - 1]):
                scales.append(at)
                at += 1
            codes += range(at, at + -(-length // self.precision.per_word))
            at = codes[-1] + 1
        return codes, scales

    def by_column(self, of_group: Tensor) -> Tensor:
        """Repeat numbers that groups have ``(..., groups)`` for each of their columns ``(..., columns)``."""
        return _repeated(of_group, self.groups, self.lengths)

    def by_run(self, of_run: Tensor) -> Tensor:
        """Repeat numbers that runs have ``(..., runs)`` for each of their columns ``(..., columns)``."""
        return _repeated(of_run, tuple(range(len(self.lengths))), self.lengths)


@dataclass(frozen=True, eq=False)
class Stack:
    """Where the words of equal factors lie: dense blocks, factors U, or transposed factors V.

    Parameters
    ----------
    columns
        Their columns.
    starts, steps
        int64 ``(leaves, rows)``: where the words of a row begin, and how far apart they are.
    """

    columns: Columns
    starts: Tensor
    steps: Tensor

    def coefficients(self, words: Tensor) -> "Coefficients":
        """Return the coefficients of the stack, as they are stored, on the device of the words."""
        precision = self.columns.precision
        codes, scales = self.columns.places()
        units = words[self._addresses(codes)].view(_UNITS[precision])
        return Coefficients(
            self.columns, units, words[self._addresses(scales)].view(torch.float32) if precision.is_integer else None
        )

    def rows(self, words: Tensor, leaf: Tensor, row: Tensor) -> "Coefficients":
        """Return the coefficients of some rows, the shape of `leaf` and `row` in the place of leaves and rows."""
        chosen = Stack(self.columns, self.starts[leaf, row], self.steps[leaf, row])
        return chosen.coefficients(words)

    def store(self, words: Tensor, coefficients: "Coefficients") -> None:
        """Write coefficients where `coefficients` would read them."""
        codes, scales = self.columns.places()
        words[self._addresses(codes)] = coefficients.units.view(words.dtype)
        if coefficients.scales is not None:
            words[self._addresses(scales)] = coefficients.scales.contiguous().view(words.dtype)

    def _addresses(self, columns: list[int]) -> Tensor:
        """Return where some columns of words lie, int64 ``(leaves, rows, columns)``."""
        return self.starts[:, :, None] + self.steps[:, :, None] * torch.tensor(columns, device=self.starts.device)


@dataclass(frozen=True, eq=False)
class Coefficients:
    """The coefficients of a stack.

    Parameters
    ----------
    columns
        Their columns.
    units
        ``(leaves, rows, ...)``: floating-point numbers, or bytes with one or several codes in each.
    scales
        float32 ``(leaves, rows, groups)`` of codes; ``None`` for floating-point numbers.
    """

    columns: Columns
    units: Tensor
    scales: Tensor | None

    @classmethod
    def of(cls, columns: Columns, values: Tensor, scales: Tensor | None = None) -> "Coefficients":
        """Return coefficients to be stored.

        Parameters
        ----------
        columns
            Their columns.
        values
            ``(leaves, rows, columns)``: codes, or floating-point numbers, to be rounded to the precision.
        scales
            float32 ``(leaves, rows, groups)`` of codes.
        """
        precision = columns.precision
        per_word = precision.per_word
        filling = int(precision.zero) if precision.is_integer else 0
        runs = [values[..., run].to(_UNITS[precision]) for run, _ in columns.runs()]
        units = torch.cat([nn.functional.pad(run, (0, -run.shape[2] % per_word), value=filling) for run in runs], dim=2)
        if precision.bits < 8:
            codes = units.unflatten(2, (-1, 8 // precision.bits, 4))
            shifted = [codes[:, :, :, number] << (precision.bits * number) for number in range(codes.shape[3])]
            units = torch.stack(shifted).sum(dim=0, dtype=torch.uint8).flatten(2)
        return cls(columns, units.contiguous(), scales)

    def rows(self, leaf: Tensor, row: Tensor) -> "Coefficients":
        """Return the coefficients of some rows, the shape of `leaf` and `row` in the place of leaves and rows."""
        scales = None if self.scales is None else self.scales[leaf, row]
        return Coefficients(self.columns, self.units[leaf, row], scales)

    def integers(self) -> Tensor:
        """Return codes less the code of zero, ``(leaves, rows, columns)``, float32; of int2 these are halves."""
        precision = self.columns.precision
        codes = self.units
        if precision.bits < 8:
            # Bytes hold columns that are four apart. By arithmetic: exporters confuse the types of shifts.
            bytes_ = codes.float().unflatten(2, (-1, 1, 4))
            above = [torch.floor(bytes_ / 2**shift) for shift in range(0, 9, precision.bits)]
            base = 2**precision.bits
            codes = torch.cat([low - base * high for low, high in pairwise(above)], dim=3).flatten(2)
        return self._unpadded(codes).float() - precision.zero

    def values(self) -> Tensor:
        """Return the coefficients ``(leaves, rows, columns)`` in float32, or float64 for float64."""
        if self.scales is not None:
            return self.integers() * self.columns.by_column(self.scales)
        units = self._unpadded(self.units)
        return units.float() if units.dtype == torch.bfloat16 else units

    def _unpadded(self, units: Tensor) -> Tensor:
        """Leave out what fills the last word of each run."""
        per_word = self.columns.precision.per_word
        pieces = []
        first = 0
        for length in self.columns.lengths:
            pieces.append(units.narrow(2, first, length))
            first += -(-length // per_word) * per_word
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)


@dataclass(frozen=True, eq=False)
class LeafGroup:
    """Leaves of one shape, rank and precision.

    Parameters
    ----------
    leaves
        Their numbers.
    shape
        Rows and columns of one of them.
    rows, columns
        int64 ``(leaves, m)`` and ``(leaves, n)``: those of each leaf, in tree order.
    factors
        What multiplies the input, in order: the dense blocks; or V^T, then U.
    """

    leaves: tuple[int, ...]
    shape: tuple[int, int]
    rows: Tensor
    columns: Tensor
    factors: tuple[Stack, ...]


@dataclass(frozen=True, eq=False)
class Structure:
    """Everything but the coefficients that a product in torch needs, on the device of the coefficients.

    Parameters
    ----------
    shape
        Of the matrix, ``(m, n)``.
    quantized
        Whether activations are int8 where they meet codes.
    dtype
        In which products are computed.
    groups
        All leaves but those of rank 0.
    row_order, column_order
        Permutations; ``None`` where tree positions are the original indices.
    """

    shape: tuple[int, int]
    quantized: bool
    dtype: torch.dtype
    groups: tuple[LeafGroup, ...]
    row_order: "Order | None"
    column_order: "Order | None"


@dataclass(frozen=True, eq=False)
class Order:
    """A permutation and its inverse.

    Parameters
    ----------
    original
        int64: the original index of each tree position.
    tree
        int64: the tree position of each original index.
    """

    original: Tensor
    tree: Tensor


@dataclass(frozen=True, eq=False)
class _Factor:
    """One factor of one leaf."""

    columns: Columns
    starts: _Offsets
    steps: _Offsets


@dataclass
class _Members:
    """Leaves that go together."""

    leaves: list[int] = field(default_factory=list)
    rows: list[_Offsets] = field(default_factory=list)
    columns: list[_Offsets] = field(default_factory=list)
    factors: list[tuple[_Factor, ...]] = field(default_factory=list)


def structure_of(packed: PackedBlocks, device: torch.device) -> Structure:
    """Return the structure of a packed matrix whose words lie on `device`."""
    schedule = packed.schedule
    found: dict[tuple[Any, ...], _Members] = defaultdict(_Members)
    for leaf, (first, end, left, right, rank, _, _) in enumerate(packed.leaves.tolist()):
        if rank == 0:
            continue
        near = _factor(schedule.near, first, end, leaf)
        factors: tuple[_Factor, ...] = (near,)
        if rank != DENSE:
            start = schedule.starts[leaf]
            factors = (_factor(schedule.far, start, start + rank, None), near)
        members = found[end - first, right - left, *(factor.columns for factor in factors)]
        members.leaves.append(leaf)
        members.rows.append(np.arange(first, end))
        members.columns.append(np.arange(left, right))
        members.factors.append(factors)

    def placed(array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array.astype(np.int64)).to(device)

    with outside_modes():
        groups = tuple(
            LeafGroup(
                tuple(members.leaves),
                (key[0], key[1]),
                placed(np.stack(members.rows)),
                placed(np.stack(members.columns)),
                tuple(
                    Stack(
                        stacked[0].columns,
                        placed(np.stack([factor.starts for factor in stacked])),
                        placed(np.stack([factor.steps for factor in stacked])),
                    )
                    for stacked in zip(*members.factors, strict=True)
                ),
            )
            for key, members in found.items()
        )
        rows, columns = (
            None if permutation is None else Order(placed(permutation), placed(np.argsort(permutation)))
            for permutation in (packed.row_permutation, packed.column_permutation)
        )
    dtype = torch.float64 if packed.dtype == np.float64 else torch.float32
    return Structure(packed.shape, packed.quantized, dtype, groups, rows, columns)


@contextmanager
def outside_modes() -> Iterator[None]:
    """Make tensors that are real, and fit for gradients, whatever modes and traces are under way."""
    # Inside an operator no trace is recorded, and none may be taken up again.
    trace = torch._C._get_tracing_state() if torch.onnx.is_in_onnx_export() else None
    if trace is not None:
        torch._C._set_tracing_state(None)
    try:
        with torch.inference_mode(False), _disable_current_modes():
            yield
    finally:
        if trace is not None:
            torch._C._set_tracing_state(trace)


_UNITS = {
    Precision.FLOAT64: torch.float64,
    Precision.FLOAT32: torch.float32,
    Precision.BFLOAT16: torch.bfloat16,
    Precision.INT8: torch.uint8,
    Precision.INT4: torch.uint8,
    Precision.INT2: torch.uint8,
}
"""As what words are viewed; little-endian, as all devices are that torch runs on."""


def _factor(stage: Stage, first: int, end: int, leaf: int | None) -> _Factor:
    """Return where rows ``first:end`` of a stage lie; in the second stage, those of one leaf."""
    starts, steps = np.empty(end - first, np.int64), np.empty(end - first, np.int64)
    runs: list[Run] = []
    for panel, rows, part in overlaps(stage, first, end):
        runs = [run for run in panel.runs if leaf is None or run.leaf == leaf]
        before = 0
        for run in panel.runs:
            if run is runs[0]:
                break
            before += run.words()
        starts[part] = panel.offset + before * panel.height + np.arange(rows.start, rows.stop)
        steps[part] = panel.height
    groups = np.cumsum([run.begins for run in runs]) - 1
    integer = runs[0].precision.is_integer
    columns = Columns(
        runs[0].precision,
        tuple(run.length for run in runs),
        tuple(groups.tolist()) if integer else (0,) * len(runs),
    )
    return _Factor(columns, starts, steps)


def _repeated(numbers: Tensor, chosen: tuple[int, ...], lengths: tuple[int, ...]) -> Tensor:
    if len(lengths) == 1:
        return numbers
    pieces = [
        numbers.narrow(-1, number, 1).expand(*numbers.shape[:-1], length)
        for number, length in zip(chosen, lengths, strict=True)
    ]
    return torch.cat(pieces, dim=-1)
