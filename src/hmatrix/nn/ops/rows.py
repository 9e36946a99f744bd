"""Some rows of a packed matrix, without decoding the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from hmatrix.nn.ops.modes import outside_modes
from hmatrix.nn.ops.stacks import LeafGroup, ProductStructure

Near: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Function of leaves and rows within them, ``(count, slots)``: these rows of D or U, ``(count, slots, columns)``."""

Far: TypeAlias = Callable[[], Tensor]
"""Returns the factors V^T of a group, ``(leaves, rank, columns)``."""


@dataclass(frozen=True, eq=False)
class RowTable:
    """The leaves of a group that hold each row; every row has as many slots as the most that any row needs.

    Parameters
    ----------
    leaf, within
        int64 ``(m, slots)``: number of the leaf in the group, and the row within it, by original row.
    used
        bool ``(m, slots)``: whether there is one.
    """

    leaf: Tensor
    within: Tensor
    used: Tensor


def row_tables(structure: ProductStructure) -> tuple[RowTable, ...]:
    """Return the table of each group of leaves."""
    order = structure.row_order
    return tuple(_table(group, structure.shape[0], None if order is None else order.tree) for group in structure.groups)


def select_rows(
    structure: ProductStructure,
    tables: Sequence[RowTable],
    near: Sequence[Near],
    far: Sequence[Far | None],
    indices: Tensor,
) -> Tensor:
    """Return rows of the matrix.

    Parameters
    ----------
    structure
        ProductStructure of the matrix ``(m, n)``.
    tables
        Tables of its rows.
    near, far
        Functions, for each group of leaves, that return rows of the blocks D or the factors U, and the factors V^T; the
        latter ``None`` for dense leaves.
    indices
        Integers ``(...)``, within 0 to m - 1.

    Returns
    -------
    Tensor
        ``(..., n)``.
    """
    shape, indices = indices.shape, indices.reshape(-1).long()
    n = structure.shape[1]
    result = torch.zeros(indices.shape[0], n, dtype=structure.dtype, device=indices.device)
    for group, table, near_rows, factors in zip(structure.groups, tables, near, far, strict=True):
        leaf, used = table.leaf[indices], table.used[indices]
        part = near_rows(leaf, table.within[indices]) * used[..., None]
        if factors is not None:
            V = factors()
            part = part @ V[0] if len(V) == 1 else (part[..., None, :] @ V[leaf]).squeeze(-2)
        columns = group.columns[leaf].flatten(1)
        result = (
            result + part[:, 0] if group.columns.shape == (1, n) else result.scatter_add(1, columns, part.flatten(1))
        )
    if structure.column_order is not None:
        result = result.index_select(1, structure.column_order.tree)
    return result.reshape(*shape, n)


def _table(group: LeafGroup, m: int, tree: Tensor | None) -> RowTable:
    with outside_modes():
        members = group.rows.cpu().numpy()
        slots = np.zeros(m, np.int64)
        leaf = np.zeros((m, 1), np.int64)
        within, used = np.zeros_like(leaf), np.zeros((m, 1), bool)
        for number, own in enumerate(members):
            slot = slots[own]
            if slot.max() == leaf.shape[1]:
                leaf, within, used = (np.pad(table, ((0, 0), (0, 1))) for table in (leaf, within, used))
            leaf[own, slot], within[own, slot], used[own, slot] = number, own - own[0], True
            slots[own] += 1
        tables = (torch.from_numpy(table).to(group.rows.device) for table in (leaf, within, used))
        return RowTable(*(table if tree is None else table[tree] for table in tables))
