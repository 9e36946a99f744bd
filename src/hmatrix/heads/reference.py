"""The product with a progressive head in NumPy, with the kernel's arithmetic: the reference of its tests."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hmatrix._support.typing import Codes, FloatArray, Integers, Integers8, Integers64
from hmatrix.codes.precision import Precision, from_words
from hmatrix.heads.largest import choose_largest
from hmatrix.heads.levels import Level
from hmatrix.heads.packed_head import PackedHead
from hmatrix.heads.sums import multiply_rows, sum_block_lanes, sum_lanes
from hmatrix.heads.ties import equal, largest_outputs, sum_rounding
from hmatrix.heads.words import BLOCK, REST_STEPS, STRIP, padded
from hmatrix.packed.kernels import PLAIN_LARGEST, RAISING, Product, ReferenceProduct, quantize_activations

_HUGE, _TINY = np.float32(1e37), np.float32(1e-37)
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Known:
    """Facts about inputs ``(batch, n)`` that bounds need.

    Parameters
    ----------
    step, norm, outside
        Steps of quantisation, NaN where x is not finite; norms; and norms outside the span of V; ``(batch,)`` each.
    inner_codes, inner_step
        Codes and steps of ``V^T x``.
    rounding
        Rounding errors of refined outputs, relative to the norms of their rows ``(batch,)``.
    products
        Products with the coarse H-matrix, filled up to whole strips with zeros; ``None`` where there is none.
    """

    step: FloatArray
    norm: FloatArray
    outside: FloatArray
    inner_codes: Integers8
    inner_step: FloatArray
    rounding: FloatArray
    products: FloatArray | None


class ReferenceHead:
    """The product in NumPy, with the kernel's arithmetic.

    All outputs and rows are the kernels' to the bit, unless the coarse part is an H-matrix with floating-point sums:
    then coarse outputs differ by rounding, and a row within rounding of a threshold may be refined by one alone.

    Parameters
    ----------
    packed
        The head.
    product
        Product with its coarse H-matrix, if it has one; ``None`` is the reference's.
    """

    def __init__(self, packed: PackedHead, product: Product | None = None) -> None:
        self._packed = packed
        self._product = product
        if packed.matrix is not None and product is None:
            self._product = ReferenceProduct(packed.matrix)
        m = packed.shape[0]
        self._rounding = sum_rounding(packed.shape[1])
        self._largest_norm = (packed.places.remainder + packed.places.reach).max()
        self._order = packed.order if len(packed.order) else np.where(packed.real, np.arange(padded(m, STRIP)), -1)

    def multiply(self, x: FloatArray, y: FloatArray) -> None:
        """Set y ``(m,)`` to the outputs of x ``(n,)``."""
        self.multiply_batch(x[None], y[None])

    def multiply_batch(self, x: FloatArray, y: FloatArray) -> None:
        """Set y ``(batch, m)`` to the outputs of x ``(batch, n)``."""
        for b, product in enumerate(self._products(x)):
            places, refined, opened = product.refine(self._packed.sizes.top)
            if not len(places):
                y[b] = np.nan
                continue
            outputs = product.outputs(opened)
            y[b, self._order[self._order >= 0]] = outputs[self._order >= 0]
            best = refined.max()
            y[b] = np.minimum(y[b], np.nextafter(best, np.float32(-np.inf)))
            same = equal(refined, product.off_by(places), int(refined.argmax()))
            y[b, self._order[places]] = np.where(same, best, refined)

    def largest_one(self, x: FloatArray, values: FloatArray, indices: Integers64) -> None:
        """Set values and indices ``(k,)`` to the largest outputs of x ``(n,)``."""
        self.largest(x[None], values[None], indices[None])

    def largest(self, x: FloatArray, values: FloatArray, indices: Integers64, counts: Integers64 | None = None) -> None:
        """Set values and indices ``(batch, k)`` to the largest outputs, and counts ``(batch,)`` to refined rows."""
        k = values.shape[1]
        for b, product in enumerate(self._products(x)):
            places, refined, _ = product.refine(max(k, self._packed.sizes.top))
            if counts is not None:
                counts[b] = len(places)
            if len(places):
                rows = self._order[places].astype(np.int64)
                values[b], indices[b] = largest_outputs(refined, product.off_by(places), rows, k)
            else:
                values[b], indices[b] = np.nan, np.arange(k)

    def look(self, level: Level, known: Known) -> tuple[FloatArray, FloatArray]:
        """Return outputs of a level, and upper bounds of the fine ones, ``(batch, its places)`` each."""
        bound, products = level.bound, known.products
        if products is None:
            codes = level.codes(self._packed.rank)
            products = _multiply(codes, level.precision, known.inner_codes, known.inner_step, level.scales)
        factors = [np.float32(factor) for factor in (bound.quantised, bound.relative, bound.inner)]
        noise = known.step * factors[0] + known.norm * factors[1] + known.inner_step * factors[2]
        with np.errstate(over="ignore", invalid="ignore"):
            coarse = products + level.bias
            margin = np.float32(bound.scale) * known.outside + np.float32(bound.constant)
            off = margin[:, None] * level.remainder + noise[:, None] * level.reach
            return coarse, coarse + off

    def slack(self, known: Known) -> FloatArray:
        """Return the largest distance below a refined output at which another one can equal it ``(batch,)``."""
        bound = self._packed.places.bound
        return np.float32(bound.rounding) * known.norm + np.float32(bound.offset) + self.ties(known)

    def ties(self, known: Known) -> FloatArray:
        """Return the largest distance of equal outputs ``(batch,)``."""
        apart: FloatArray = np.float32(2) * (known.rounding * self._largest_norm)
        return apart

    def take_in(self, x: FloatArray) -> Known:
        """Return the facts about inputs ``(batch, n)``."""
        packed = self._packed
        codes, step = quantize_activations(x)
        t = _multiply(packed.basis_codes, packed.coarse, codes, step, packed.basis_scales)
        inner_codes, inner_step = quantize_activations(t)
        with np.errstate(over="ignore", invalid="ignore"):
            square = sum_lanes(np.square(x))
            known = np.sqrt(sum_lanes(t * t * packed.weights)) - np.float32(packed.places.bound.quantised) * step
            known = np.maximum(known, 0)
            outside = np.sqrt(np.maximum(square * np.float32(1.0001) - known * known, _TINY))
            norm = np.where(square < _HUGE, np.sqrt(square), np.finfo(np.float32).max).astype(np.float32)
        products = self._products_of(x)
        # Outputs that may overflow are never equal.
        rounding = np.where(square < _HUGE, self._rounding * norm, np.float32(0)).astype(np.float32)
        return Known(step, norm, np.where(square < _HUGE, outside, norm), inner_codes, inner_step, rounding, products)

    def _products_of(self, x: FloatArray) -> FloatArray | None:
        """Return the products with the coarse H-matrix, if there is one, filled up to whole strips."""
        if self._product is None:
            return None
        m = self._packed.shape[0]
        whole, products = np.zeros((len(x), padded(m, STRIP)), np.float32), np.empty((len(x), m), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            self._product.multiply_batch(x, products)
        whole[:, :m] = products
        return whole

    def _products(self, x: FloatArray) -> Iterator["_Product"]:
        known = self.take_in(x)
        outputs, upper = self.look(self._packed.places, known)
        clustered = len(self._packed.order) > 0
        of_clusters = self.look(self._packed.clusters, known) if clustered else (np.empty((len(x), 0), np.float32),) * 2
        slack = self.slack(known)
        for b in range(len(x)):
            clusters = (of_clusters[0][b], of_clusters[1][b])
            known_of = (slack[b], known.step[b], known.rounding[b])
            yield _Product(self._packed, self._order, x[b], outputs[b], upper[b], *clusters, *known_of)


@dataclass(frozen=True, eq=False)
class _Product:
    """One input, and the outputs of all levels."""

    packed: PackedHead
    order: Integers
    x: FloatArray
    coarse: FloatArray
    upper: FloatArray
    cluster_outputs: FloatArray
    cluster_upper: FloatArray
    slack: np.floating
    step: np.floating
    rounding: np.floating

    def refine(self, top: int) -> tuple[Integers64, FloatArray, Integers64]:
        """Return the places of rows that are refined, their outputs, and the clusters that are looked into.

        No places where x is not finite, or outputs are not.
        """
        nothing = _NONE, np.empty(0, np.float32), _NONE
        clustered = len(self.packed.order) > 0
        if not np.isfinite(self.step):
            return nothing
        if self.packed.matrix is not None and not (self.coarse[self.order >= 0] >= np.finfo(np.float32).min).all():
            # A row whose output overflows downwards, or is NaN, would never be refined.
            return nothing
        wanted = max(top, self.packed.sizes.first)
        opened = self._first_clusters(wanted) if clustered else _NONE
        places = self._places(opened)
        first = self._real(places[choose_largest(self.coarse[places], wanted)]) if len(places) else _NONE
        if len(first) < wanted:
            return nothing
        refined = self._fine(first)
        threshold = np.partition(refined, -top)[-top] - self.slack
        if clustered:
            rest = self.cluster_upper.copy()
            rest[opened] = -np.inf
            opened = np.concatenate([opened, np.flatnonzero(rest >= threshold)])
            places = self._places(opened)
        rest = self.upper.copy()
        rest[first] = -np.inf
        room = max(self.packed.sizes.most - len(first), 0)
        candidates = places[rest[places] >= threshold]
        if len(candidates) <= room:
            more = candidates
        elif room:
            coarse = np.where(np.isneginf(rest), rest, self.coarse)[places]
            more = self._real(places[choose_largest(coarse, room)])
        else:
            more = _NONE
        return np.concatenate([first, more]), np.concatenate([refined, self._fine(more)]), opened

    def outputs(self, opened: Integers64) -> FloatArray:
        """Return the coarse outputs of all places: those of their clusters where these are not `opened`."""
        if not len(self.packed.order):
            return self.coarse
        starts = self.packed.starts
        sizes = np.diff(starts) * STRIP
        count = len(sizes)
        of_clusters = self.cluster_outputs[:count] - self.packed.cluster_bias[:count]
        seen = np.zeros(count, bool)
        seen[opened] = True
        return np.where(np.repeat(seen, sizes), self.coarse, np.repeat(of_clusters, sizes) + self.packed.bias)

    def off_by(self, places: Integers64) -> FloatArray:
        """Return the largest rounding error of refined outputs."""
        rows = self.order[places]
        squares = sum_block_lanes(np.square(self.packed.rows_of(rows, scaled=False)))
        off_by: FloatArray = self.rounding * (np.sqrt(squares) * self.packed.fine_scales[rows])
        return off_by

    def _first_clusters(self, top: int) -> Integers64:
        """Return the clusters with nearly the largest outputs, of at least `top` rows."""
        count, wanted = self.packed.sizes.clusters, self.packed.sizes.probes
        while True:
            opened = choose_largest(self.cluster_outputs, wanted)
            if len(opened) < wanted or len(self._real(self._places(opened))) >= top:
                return opened
            wanted = min(2 * wanted, count)

    def _places(self, opened: Integers64) -> Integers64:
        """Return the places that are looked at, in their order."""
        if not len(self.packed.order):
            return np.arange(len(self.order))
        starts = self.packed.starts
        return np.concatenate([np.arange(starts[c] * STRIP, starts[c + 1] * STRIP) for c in opened] or [_NONE])

    def _real(self, places: Integers64) -> Integers64:
        return places[self.order[places] >= 0]

    def _fine(self, places: Integers64) -> FloatArray:
        rows = self.order[places]
        outputs: FloatArray
        if self.packed.precision is Precision.INT8:
            outputs = self._products_of_codes(rows) * self.packed.fine_scales[rows] + self.packed.bias[places]
        else:
            unscaled = self.packed.rows_of(rows, scaled=False)
            outputs = multiply_rows(unscaled, self.x) * self.packed.fine_scales[rows] + self.packed.bias[places]
        return outputs

    def _products_of_codes(self, rows: Integers) -> FloatArray:
        """Multiply codes of rows with x, quantised to codes and parts of their step."""
        m, n = self.packed.shape
        codes = from_words(self.packed.fine.reshape(m, -1)[rows], Precision.INT8, padded(n, BLOCK))[:, :n]
        power = RAISING if self.step < PLAIN_LARGEST / np.float32(127) else np.float32(1)
        scaled = self.x * power * (np.float32(1) / (self.step * power) if self.step > 0 else np.float32(0))
        whole = np.rint(scaled)
        rest = np.rint((scaled - whole) * np.float32(REST_STEPS))
        # float64 sums these integers exactly.
        total = (codes.astype(np.float64) - 128) @ (REST_STEPS * whole.astype(np.float64) + rest)
        products: FloatArray = (total * (float(self.step) / REST_STEPS)).astype(np.float32)
        return products


def _multiply(codes: Codes, precision: Precision, x: Integers8, step: FloatArray, scales: FloatArray) -> FloatArray:
    """Multiply rows of codes with quantised vectors ``(batch, columns)``; ``(batch, rows)``."""
    # float64 sums these integers exactly.
    integers = x.astype(np.float64) @ (codes.astype(np.float64) - precision.zero).T
    with np.errstate(over="ignore", invalid="ignore"):
        products: FloatArray = (2 * integers).astype(np.float32) * (np.float32(0.5) * step)[:, None] * scales
    return products
