"""The leaves of a packed matrix, sorted into stacks of equal shape.

A kernel streams panels; torch multiplies batches. Here the blocks, or the factors, of all leaves that have the same
shape and precision become one stack ``(leaves, rows, columns)``. Nothing relies on the leaves being a partition: a
product adds the contribution of each of them.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hmatrix._support.typing import AnyArray, Integers64
from hmatrix.nn.ops.coefficients import UNITS, Coefficients, Columns
from hmatrix.nn.ops.modes import outside_modes
from hmatrix.packed.packed_blocks import PackedBlocks, overlaps
from hmatrix.packed.panels import Run, Stage
from hmatrix.packed.schedule import DENSE


@dataclass(frozen=True, eq=False)
class Stack:
    """Places of the words of equal factors: dense blocks, factors U, or transposed factors V.

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

    def coefficients(self, words: Tensor) -> Coefficients:
        """Return the coefficients of the stack, as they are stored, on the device of the words."""
        precision = self.columns.precision
        codes, scales = self.columns.places()
        units = words[self._addresses(codes)].view(UNITS[precision])
        return Coefficients(
            self.columns, units, words[self._addresses(scales)].view(torch.float32) if precision.is_integer else None
        )

    def rows(self, words: Tensor, leaf: Tensor, row: Tensor) -> Coefficients:
        """Return the coefficients of some rows, the shape of `leaf` and `row` in the place of leaves and rows."""
        chosen = Stack(self.columns, self.starts[leaf, row], self.steps[leaf, row])
        return chosen.coefficients(words)

    def store(self, words: Tensor, coefficients: Coefficients) -> None:
        """Write coefficients where `coefficients` would read them."""
        codes, scales = self.columns.places()
        words[self._addresses(codes)] = coefficients.units.view(words.dtype)
        if coefficients.scales is not None:
            words[self._addresses(scales)] = coefficients.scales.contiguous().view(words.dtype)

    def _addresses(self, columns: list[int]) -> Tensor:
        """Return the places of some columns of words, int64 ``(leaves, rows, columns)``."""
        return self.starts[:, :, None] + self.steps[:, :, None] * torch.tensor(columns, device=self.starts.device)


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
        Rows and columns of each leaf in tree order, int64 ``(leaves, m)`` and ``(leaves, n)``.
    factors
        Factors that multiply the input, in order: the dense blocks; or V^T, then U.
    """

    leaves: tuple[int, ...]
    shape: tuple[int, int]
    rows: Tensor
    columns: Tensor
    factors: tuple[Stack, ...]


@dataclass(frozen=True, eq=False)
class ProductStructure:
    """Everything but the coefficients that a product in torch needs, on the device of the coefficients.

    Parameters
    ----------
    shape
        Shape of the matrix, ``(m, n)``.
    quantized
        Whether activations are int8 where they meet codes.
    dtype
        Type in which products are computed.
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
    starts: Integers64
    steps: Integers64


@dataclass
class _Members:
    """Leaves that go together."""

    leaves: list[int] = field(default_factory=list)
    rows: list[Integers64] = field(default_factory=list)
    columns: list[Integers64] = field(default_factory=list)
    factors: list[tuple[_Factor, ...]] = field(default_factory=list)


def structure_of(packed: PackedBlocks, device: torch.device) -> ProductStructure:
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

    def placed(array: AnyArray) -> Tensor:
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
    return ProductStructure(packed.shape, packed.quantized, dtype, groups, rows, columns)


def _factor(stage: Stage, first: int, end: int, leaf: int | None) -> _Factor:
    """Return the places of rows ``first:end`` of a stage; in the second stage, those of one leaf."""
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
