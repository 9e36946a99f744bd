"""Products with a packed matrix: the native kernel, and the same in NumPy as its reference."""

import os
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hmatrix import _core
from hmatrix._validation import FloatArray, check_integer
from hmatrix.errors import BackendError
from hmatrix.packed import PackedBlocks
from hmatrix.schedule import Panel

VARIABLE = "HMATRIX_KERNEL"
"""Environment variable that forces a kernel; read once, when the package is imported."""

REFERENCE = "numpy"


@dataclass(frozen=True)
class Backend:
    """Which kernel runs.

    Parameters
    ----------
    name
        Instruction set of the native kernel, or ``numpy`` for the reference.
    threads
        Most threads that one product uses.
    available
        The names that this machine can run.
    """

    name: str
    threads: int
    available: tuple[str, ...]


class Product(Protocol):
    """The product with one packed matrix, on arrays of its own type that are C-contiguous."""

    def multiply(self, x: FloatArray, y: FloatArray) -> None:
        """Set ``y = A x``; x ``(n,)``, y ``(m,)``."""
        ...

    def multiply_batch(self, x: FloatArray, y: FloatArray) -> None:
        """Set ``y = x A^T``; x ``(batch, n)``, y ``(batch, m)``."""
        ...

    def multiply_transposed(self, x: FloatArray, y: FloatArray) -> None:
        """Set ``y = A^T x``; x ``(m,)``, y ``(n,)``."""
        ...

    def multiply_transposed_batch(self, x: FloatArray, y: FloatArray) -> None:
        """Set ``y = x A``; x ``(batch, m)``, y ``(batch, n)``."""
        ...


def backend() -> Backend:
    """Return which kernel runs, with how many threads at most."""
    return Backend(_name, _core.get_num_threads(), (*_core.instruction_sets(), REFERENCE))


def set_num_threads(threads: int) -> None:
    """Let one product use at most `threads` threads; small ones use fewer. The bits of results do not depend on it.

    Raises
    ------
    ArgumentError
        If `threads` is not a positive integer.
    """
    _core.set_num_threads(check_integer("threads", threads, at_least=1))


def prepare(packed: PackedBlocks) -> Product:
    """Return the product with `packed` by the kernel that `backend` names."""
    return ReferenceProduct(packed) if _name == REFERENCE else native_product(packed, _name)


def native_product(packed: PackedBlocks, instruction_set: str) -> Product:
    """Return the product with `packed` by the native kernel of one instruction set."""
    plan = _core.PlanFloat32 if packed.dtype == np.float32 else _core.PlanFloat64
    schedule = packed.schedule
    product: Product = plan(
        instruction_set,
        packed.shape,
        schedule.intermediate,
        packed.data,
        schedule.far.tables,
        schedule.near.tables,
        packed.row_permutation,
        packed.column_permutation,
    )
    return product


class ReferenceProduct:
    """The product panel by panel in NumPy."""

    def __init__(self, packed: PackedBlocks) -> None:
        self._packed = packed

    def multiply(self, x: FloatArray, y: FloatArray) -> None:
        """Set ``y = A x``; x ``(n,)``, y ``(m,)``."""
        self.multiply_batch(x[None], y[None])

    def multiply_batch(self, x: FloatArray, y: FloatArray) -> None:
        """Set ``y = x A^T``; x ``(batch, n)``, y ``(batch, m)``."""
        packed, schedule = self._packed, self._packed.schedule
        n = packed.shape[1]
        source = np.empty((len(x), n + schedule.intermediate), packed.dtype)
        source[:, :n] = x if packed.column_permutation is None else x[:, packed.column_permutation]
        for panel in schedule.far.panels:
            _target(source[:, n:], panel)[:] = _gather(source, panel) @ packed.panel(panel).T
        result = np.empty_like(y)
        for panel in schedule.near.panels:
            _target(result, panel)[:] = _gather(source, panel) @ packed.panel(panel).T
        y[:, slice(None) if packed.row_permutation is None else packed.row_permutation] = result

    def multiply_transposed(self, x: FloatArray, y: FloatArray) -> None:
        """Set ``y = A^T x``; x ``(m,)``, y ``(n,)``."""
        self.multiply_transposed_batch(x[None], y[None])

    def multiply_transposed_batch(self, x: FloatArray, y: FloatArray) -> None:
        """Set ``y = x A``; x ``(batch, m)``, y ``(batch, n)``."""
        packed, schedule = self._packed, self._packed.schedule
        n = packed.shape[1]
        source = x if packed.row_permutation is None else x[:, packed.row_permutation]
        result = np.zeros((len(x), n + schedule.intermediate), packed.dtype)
        for panel in schedule.near.panels:
            _scatter(result, panel, _target(source, panel) @ packed.panel(panel))
        for panel in schedule.far.panels:
            _scatter(result, panel, _target(result[:, n:], panel) @ packed.panel(panel))
        y[:, slice(None) if packed.column_permutation is None else packed.column_permutation] = result[:, :n]


def _target(vectors: FloatArray, panel: Panel) -> FloatArray:
    return vectors[:, panel.target : panel.target + panel.height]


def _gather(source: FloatArray, panel: Panel) -> FloatArray:
    """Return the entries of `source` that meet the panel's columns, ``(batch, width)``."""
    runs = [source[:, start : start + length] for start, length in panel.runs]
    return np.concatenate(runs, axis=1) if runs else source[:, :0]


def _scatter(target: FloatArray, panel: Panel, values: FloatArray) -> None:
    """Add values ``(batch, width)`` where the panel's columns meet `target`."""
    column = 0
    for start, length in panel.runs:
        target[:, start : start + length] += values[:, column : column + length]
        column += length


def _forced_or_best() -> str:
    available = (*_core.instruction_sets(), REFERENCE)
    forced = os.environ.get(VARIABLE)
    if forced is None:
        return available[0]
    if forced not in available:
        raise BackendError(f"{VARIABLE}={forced}", "is not available here", f"set one of {', '.join(available)}")
    return forced


_name = _forced_or_best()
