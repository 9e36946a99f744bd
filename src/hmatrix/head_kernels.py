"""Products with a progressive head: the native kernel, and the same in NumPy as its reference."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from hmatrix import _core
from hmatrix._validation import FloatArray
from hmatrix.head import STRIP, PackedHead, padded
from hmatrix.kernels import REFERENCE, backend, quantize_activations

Indices = npt.NDArray[np.int64]

BISECTIONS = 12
_HUGE, _TINY = np.float32(1e37), np.float32(1e-37)


class HeadProduct(Protocol):
    """The outputs of one head, on contiguous arrays of float32."""

    def multiply(self, x: FloatArray, y: FloatArray) -> None:
        """Set y ``(m,)`` to the outputs of x ``(n,)``."""
        ...

    def multiply_batch(self, x: FloatArray, y: FloatArray) -> None:
        """Set y ``(batch, m)`` to the outputs of x ``(batch, n)``."""
        ...

    def largest(self, x: FloatArray, values: FloatArray, indices: Indices, counts: Indices | None) -> None:
        """Set values and indices ``(batch, k)`` to the largest outputs, and counts ``(batch,)`` to refined rows."""
        ...


def prepare_head(packed: PackedHead) -> HeadProduct:
    """Return the product with `packed` by the kernel that `backend` names."""
    name = backend().name
    return ReferenceHead(packed) if name == REFERENCE else native_head(packed, name)


def native_head(packed: PackedHead, instruction_set: str) -> HeadProduct:
    """Return the product with `packed` by the native kernel of one instruction set."""
    product: HeadProduct = _core.ProgressiveHead(
        instruction_set,
        packed.sizes.tolist(),
        packed.limits.tolist(),
        packed.basis,
        packed.factor,
        packed.fine,
        [
            packed.basis_scales,
            packed.weights,
            packed.factor_scales,
            packed.bias,
            packed.remainder,
            packed.reach,
            packed.fine_scales,
        ],
    )
    return product


class ReferenceHead:
    """The product in NumPy, with the kernel's arithmetic.

    Coarse outputs, bounds and the rows that are refined are the kernel's to the bit, except that a row within
    rounding of the threshold may be refined by one and not by the other; refined outputs differ by rounding.
    """

    def __init__(self, packed: PackedHead) -> None:
        self._packed = packed

    def multiply(self, x: FloatArray, y: FloatArray) -> None:
        """Set y ``(m,)`` to the outputs of x ``(n,)``."""
        self.multiply_batch(x[None], y[None])

    def multiply_batch(self, x: FloatArray, y: FloatArray) -> None:
        """Set y ``(batch, m)`` to the outputs of x ``(batch, n)``."""
        coarse, upper, slack = self.coarse(x)
        for b in range(len(x)):
            rows, refined = self._refine(x[b], coarse[b], upper[b], slack[b], int(self._packed.sizes[3]))
            y[b] = coarse[b]
            if len(rows):
                y[b] = np.minimum(coarse[b], np.nextafter(refined.max(), np.float32(-np.inf)))
                y[b, rows] = refined

    def largest(self, x: FloatArray, values: FloatArray, indices: Indices, counts: Indices | None = None) -> None:
        """Set values and indices ``(batch, k)`` to the largest outputs, and counts ``(batch,)`` to refined rows."""
        coarse, upper, slack = self.coarse(x)
        k = values.shape[1]
        for b in range(len(x)):
            top = max(k, int(self._packed.sizes[3]))
            rows, refined = self._refine(x[b], coarse[b], upper[b], slack[b], top)
            if counts is not None:
                counts[b] = len(rows)
            order = np.lexsort((rows, -refined))[:k]
            values[b], indices[b] = (refined[order], rows[order]) if len(rows) else (np.nan, np.arange(k))

    def coarse(self, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return coarse outputs, their upper bounds ``(batch, m)``, and what refined ones may be off ``(batch,)``.

        NaN, all of them, for an x that is not finite.
        """
        packed, bound = self._packed, self._packed.bound
        m = packed.shape[0]
        t, step, margin, norm = self.inside(x)
        inner_codes, inner_step = quantize_activations(t)
        coarse = _multiply(packed.coarse[1], inner_codes, inner_step, packed.factor_scales) + packed.bias
        coarse[~np.isfinite(step)] = np.nan
        parts = (step, norm, inner_step)
        factors = [np.float32(factor) for factor in (bound.quantised, bound.relative, bound.inner)]
        noise = parts[0] * factors[0] + parts[1] * factors[1] + parts[2] * factors[2]
        with np.errstate(over="ignore"):
            off = (np.float32(bound.scale) * margin)[:, None] * packed.remainder + noise[:, None] * packed.reach
            upper = coarse + off
        slack = np.float32(bound.rounding) * norm + np.float32(bound.offset)
        return coarse[:, :m], upper[:, :m], slack

    def inside(self, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return ``V^T x``, steps of x, the norm of its part outside the span of V, and its norm."""
        packed = self._packed
        n = packed.shape[1]
        codes, step = quantize_activations(x)
        filled = np.zeros((len(x), padded(n, 4)), np.int8)
        filled[:, :n] = codes
        t = _multiply(packed.coarse[0], filled, step, packed.basis_scales)
        with np.errstate(over="ignore", invalid="ignore"):
            square = _lanes(np.square(x))
            known = np.sqrt(_lanes(t * t * packed.weights)) - np.float32(packed.bound.quantised) * step
            known = np.maximum(known, 0)
            outside = np.sqrt(np.maximum(square * np.float32(1.0001) - known * known, _TINY))
            norm = np.where(square < _HUGE, np.sqrt(square), np.finfo(np.float32).max).astype(np.float32)
        return t, step, np.where(square < _HUGE, outside, norm), norm

    def _refine(
        self, x: FloatArray, coarse: FloatArray, upper: FloatArray, slack: np.floating, top: int
    ) -> tuple[Indices, FloatArray]:
        """Return the rows that are refined, and their outputs; none where x is not finite."""
        if np.isnan(coarse[0]):
            return np.empty(0, np.int64), np.empty(0, np.float32)
        first = _choose_largest(coarse, top)
        refined = self._outputs(x, first)
        threshold = refined.min() - slack
        rest = upper.copy()
        rest[first] = -np.inf
        room = max(int(self._packed.sizes[4]) - len(first), 0)
        candidates = np.flatnonzero(rest >= threshold)
        if len(candidates) <= room:
            more = candidates
        elif room:
            more = _choose_largest(np.where(np.isneginf(rest), rest, coarse), room)
        else:
            more = candidates[:0]
        return np.concatenate([first, more]), np.concatenate([refined, self._outputs(x, more)])

    def _outputs(self, x: FloatArray, rows: Indices) -> FloatArray:
        return self._packed.rows_of(rows) @ x + self._packed.bias[rows]


def _multiply(
    codes: npt.NDArray[np.uint8], x: npt.NDArray[np.int8], step: FloatArray, scales: FloatArray
) -> FloatArray:
    """Multiply rows of codes with quantised vectors ``(batch, columns)``; ``(batch, rows)``."""
    # float64 sums these integers exactly.
    integers = x.astype(np.float64) @ (codes.astype(np.float64) - 128).T
    products: FloatArray = (2 * integers).astype(np.float32) * (np.float32(0.5) * step)[:, None] * scales
    return products


def _lanes(terms: FloatArray) -> FloatArray:
    """Sum rows ``(batch, length)`` in float32 in the order of the kernel: in 16 lanes, which are then halved."""
    whole = np.zeros((len(terms), max(padded(terms.shape[1], STRIP), STRIP)), np.float32)
    whole[:, : terms.shape[1]] = terms
    lanes = np.zeros((len(terms), STRIP), np.float32)
    for start in range(0, whole.shape[1], STRIP):
        lanes += whole[:, start : start + STRIP]
    while lanes.shape[1] > 1:
        lanes = lanes[:, : lanes.shape[1] // 2] + lanes[:, lanes.shape[1] // 2 :]
    return lanes[:, 0]


def _choose(values: FloatArray, low: np.floating, wanted: int) -> Indices:
    """Choose `wanted` rows with nearly the largest values, where at least so many are at least `low`."""
    high = np.nextafter(values.max(), np.float32(np.inf))
    low = np.float32(low)
    for _ in range(BISECTIONS):
        middle = np.float32(0.5) * low + np.float32(0.5) * high
        count = int(np.count_nonzero(values >= middle))
        if count > wanted:
            low = middle
        else:
            high = middle
        if count == wanted:
            break
    above = np.flatnonzero(values >= high)
    return np.concatenate([above, np.flatnonzero((values >= low) & (values < high))[: wanted - len(above)]])


def _choose_largest(values: FloatArray, wanted: int) -> Indices:
    """Choose the `wanted` rows with nearly the largest values of all."""
    most = values.max()
    if wanted == 1:
        return np.flatnonzero(values >= most)[:1]
    step = np.maximum(np.abs(most), np.float32(1e-30)) / np.float32(64)
    while np.count_nonzero(values >= most - step) < wanted:
        step *= np.float32(2)
    return _choose(values, most - step, wanted)
