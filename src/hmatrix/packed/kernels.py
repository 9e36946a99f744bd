"""Products with a packed matrix: the native kernel, and the same in NumPy as its reference."""

import os
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np

from hmatrix import _core
from hmatrix._support.checks import check_integer
from hmatrix._support.typing import FloatArray, Integers8, Words
from hmatrix.errors import BackendError
from hmatrix.packed.packed_blocks import PackedBlocks
from hmatrix.packed.panels import Panel

VARIABLE = "HMATRIX_KERNEL"
"""Environment variable that forces a kernel; read once, when the first kernel is asked for."""

REFERENCE = "numpy"

LEAST_LARGEST = np.float32(2.0**-134)
"""Below this the largest magnitude of quantised activations counts as zero: its step would have too few digits."""

PLAIN_LARGEST = np.float32(1e-36)
"""Below this 127 over it might not be finite: activations are multiplied by `RAISING` first."""

RAISING = np.float32(2.0**64)


@dataclass(frozen=True)
class Backend:
    """The kernel that runs.

    Parameters
    ----------
    name
        Instruction set of the native kernel, or ``numpy`` for the reference.
    threads
        Most threads that one product uses.
    available
        The names that this machine can run.

    Examples
    --------
    >>> backend = hm.backend()
    >>> backend.name in backend.available, backend.threads >= 1
    (True, True)
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
    """Return the kernel that runs, and its largest number of threads.

    Examples
    --------
    >>> "numpy" in hm.backend().available
    True
    """
    return Backend(_name(), _core.get_num_threads(), (*_core.instruction_sets(), REFERENCE))


def set_num_threads(threads: int) -> None:
    """Let one product use at most `threads` threads; small ones use fewer. The bits of results do not depend on it.

    Raises
    ------
    ArgumentError
        If `threads` is not a positive integer.

    Examples
    --------
    >>> hm.set_num_threads(1)
    >>> hm.backend().threads
    1
    """
    _core.set_num_threads(min(check_integer("threads", threads, at_least=1), np.iinfo(np.int32).max))


def prepare(packed: PackedBlocks) -> Product:
    """Return the product with `packed` by the kernel that `backend` names."""
    return ReferenceProduct(packed) if _name() == REFERENCE else native_product(packed, _name())


def native_product(packed: PackedBlocks, instruction_set: str) -> _core.PlanFloat32:
    """Return the product with `packed` by the native kernel of one instruction set."""
    plan = _core.PlanFloat32 if packed.dtype == np.float32 else _core.PlanFloat64
    schedule = packed.schedule
    return plan(
        instruction_set,
        packed.shape,
        schedule.intermediate,
        packed.data,
        schedule.far.tables,
        schedule.near.tables,
        schedule.segments if packed.quantized else None,
        packed.row_permutation,
        packed.column_permutation,
    )


def read_words(words: Words) -> int:
    """Return the sum of uint32 words modulo 2^32, on one thread, at the speed of the memory that they sit in.

    No product that streams as many bytes can be faster.
    """
    return _core.read(_core.instruction_sets()[0], words)


class ReferenceProduct:
    """The product panel by panel in NumPy, with the kernel's arithmetic.

    Sums of integers are the kernel's to the bit; floating-point sums differ from it by rounding.
    """

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
            _target(source[:, n:], panel)[:] = self._forward(panel, source)
        result = np.empty_like(y)
        for panel in schedule.near.panels:
            _target(result, panel)[:] = self._forward(panel, source)
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
        for stage, origin in ((schedule.near, source), (schedule.far, result[:, n:])):
            for panel in stage.panels:
                entries = _target(origin, panel)
                for run, values in packed.decoded(panel):
                    result[:, run.source : run.source + run.length] += entries @ values
        y[:, slice(None) if packed.column_permutation is None else packed.column_permutation] = result[:, :n]

    def _forward(self, panel: Panel, source: FloatArray) -> FloatArray:
        """Multiply a panel with the source ``(batch, n + intermediate)``; ``(batch, height)``."""
        total = np.zeros((len(source), panel.height), source.dtype)
        of_group = np.zeros_like(total)
        for run, units, scales in self._packed.units(panel):
            entries = source[:, run.source : run.source + run.length]
            if scales is None:
                total += entries @ units.T
                continue
            values = run.precision.values(units)
            if self._packed.quantized:
                codes, steps = quantize_activations(entries)
                # Twice the value is an integer for int2 and int1 too; float64 sums them exactly.
                integers = codes.astype(np.float64) @ (2 * values.astype(np.float64)).T
                of_group += integers.astype(np.float32) * (np.float32(0.5) * steps[:, None])
            else:
                of_group += entries @ values.T
            if run.ends:
                total += of_group * scales
                of_group[:] = 0
        return total


def quantize_activations(entries: FloatArray) -> tuple[Integers8, FloatArray]:
    """Quantise each row ``(batch, length)`` symmetrically to int8, as the kernel does.

    Returns
    -------
    codes
        int8 ``(batch, length)``, -127 to 127; 0 in a row that is not finite.
    steps
        float32 ``(batch,)``; NaN for a row that is not finite, so that its products are NaN.
    """
    largest = np.abs(entries).max(axis=1, initial=0).astype(np.float32)
    finite = np.isfinite(largest)
    usable = finite & (largest >= LEAST_LARGEST)
    powers = np.where(finite & (largest < PLAIN_LARGEST), RAISING, np.float32(1))
    factors = np.divide(np.float32(127), largest * powers, out=np.zeros_like(largest), where=usable)
    codes = np.rint(np.where(finite[:, None], entries, 0) * powers[:, None] * factors[:, None]).astype(np.int8)
    steps = np.where(finite, np.where(usable, largest / np.float32(127), np.float32(0)), np.float32(np.nan))
    return codes, steps


def _target(vectors: FloatArray, panel: Panel) -> FloatArray:
    return vectors[:, panel.target : panel.target + panel.height]


@cache
def _name() -> str:
    """Return the name of the kernel that runs."""
    available = (*_core.instruction_sets(), REFERENCE)
    forced = os.environ.get(VARIABLE)
    if forced is None:
        return available[0]
    if forced not in available:
        raise BackendError(f"{VARIABLE}={forced}", "is not available here", f"set one of {', '.join(available)}")
    return forced
