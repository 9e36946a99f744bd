"""The flat arrays of a progressive head: what the kernel reads, a file holds and a state dict holds.

The coarse part is ``U V^T`` of a low rank in int8; the fine part is the weight itself, row by row. What a row's
output can be at most is its coarse output and ``scale * |x outside the span of V| * remainder + noise * reach``.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hmatrix._validation import FloatArray
from hmatrix.errors import ArgumentError
from hmatrix.precision import Codes, Precision, from_words, to_words

Words: TypeAlias = npt.NDArray[np.uint32]
Floats32: TypeAlias = npt.NDArray[np.float32]

STRIP = 16
"""Rows of a coarse factor that are stored together."""

BLOCK = 64
"""Columns of a fine row that are stored together: words of 16 lanes, whose parts are 16 columns apart."""

MAX_COLUMNS = 1 << 15
"""Sums of products of codes stay within 32 bits."""

FINE = (Precision.FLOAT32, Precision.BFLOAT16, Precision.INT8)
"""Precisions of the fine rows."""


@dataclass(frozen=True)
class Bound:
    """How far outputs may be off.

    ``noise = quantised * step of x + relative * |x| + inner * step of t``, with ``t = V^T x``.

    Parameters
    ----------
    scale
        Of the norm of x outside the span of V, times the norm of the row's remainder; 1 is Cauchy-Schwarz.
    quantised, relative, inner
        Of the noise of the coarse outputs.
    rounding, offset
        ``rounding * |x| + offset`` is how far a refined output may be off.
    """

    scale: float
    quantised: float = 0.0
    relative: float = 0.0
    inner: float = 0.0
    rounding: float = 0.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        values = self.as_floats()
        if not all(np.isfinite(value) and value >= 0 for value in values):
            raise ArgumentError("bound", f"is {values}", "give finite numbers of at least 0")

    def as_floats(self) -> list[float]:
        """Return its numbers in the order of the kernel."""
        return [float(np.float32(getattr(self, field.name))) for field in fields(self)]


@dataclass(frozen=True, eq=False)
class PackedHead:
    """A progressive head in packed form.

    Parameters
    ----------
    sizes
        int32: rows, columns, rank, outputs that are to be the fine ones, most refined rows, precision of the fine rows.
    limits
        float32 ``(6,)``: the numbers of its `Bound`.
    basis, basis_scales
        ``V^T`` in int8: strips of words, and a scale for each row, filled up to whole strips.
    weights
        ``sum(weights * t^2)`` is at most the squared norm of the part of x in the span of V.
    factor, factor_scales
        U in int8.
    bias
        Filled up with ``-inf``.
    remainder
        Norms of the rows of the weight outside the span of V.
    reach
        Norms of what each row makes of an error of x in the span of V.
    fine, fine_scales
        The rows, each in whole blocks, and a scale for each.

    Raises
    ------
    ArgumentError
        If they do not fit together.
    """

    sizes: npt.NDArray[np.int32]
    limits: Floats32
    basis: Words
    basis_scales: Floats32
    weights: Floats32
    factor: Words
    factor_scales: Floats32
    bias: Floats32
    remainder: Floats32
    reach: Floats32
    fine: Words
    fine_scales: Floats32

    def __post_init__(self) -> None:
        for field in fields(self):
            kind = np.int32 if field.name == "sizes" else np.uint32 if field.name in WORDS else np.float32
            array = getattr(self, field.name)
            if not isinstance(array, np.ndarray) or array.dtype != kind or array.ndim != 1:
                raise ArgumentError(field.name, "has another type or dimension", f"give a vector of {kind.__name__}")
            object.__setattr__(self, field.name, np.ascontiguousarray(array))
        if self.sizes.shape != (6,) or self.limits.shape != (6,):
            raise ArgumentError("sizes, limits", "have the wrong length", "give six numbers each")
        m, n, rank, top, most, precision = self.sizes.tolist()
        if m < 1 or not 1 <= n <= MAX_COLUMNS or not 0 <= rank <= n or not 1 <= top <= most <= m:
            came = f"are {self.sizes.tolist()}"
            raise ArgumentError("sizes", came, f"give at most {MAX_COLUMNS} columns, and 1 <= top <= most <= rows")
        if precision not in FINE:
            raise ArgumentError("sizes", f"have the precision {precision}", "give float32, bfloat16 or int8")
        rows, inner = padded(m, STRIP), padded(rank, STRIP)
        lengths = {
            "basis": inner * (padded(n, 4) // 4),
            "basis_scales": inner,
            "weights": inner,
            "factor": rows * inner // 4,
            **dict.fromkeys(("factor_scales", "bias", "remainder", "reach"), rows),
            "fine": m * padded(n, BLOCK) // self.precision.per_word,
            "fine_scales": m,
        }
        for name, length in lengths.items():
            array = getattr(self, name)
            if array.shape != (length,):
                raise ArgumentError(name, f"has {len(array)} entries", f"give {length}")
            if name not in WORDS and not np.isfinite(array[:m] if name == "bias" else array).all():
                raise ArgumentError(name, "has NaN or infinity in it", "give finite numbers")
        if any((array < 0).any() for array in (self.weights, self.remainder, self.reach)):
            raise ArgumentError("weights, remainder, reach", "have negative entries", "give norms")
        if not np.isneginf(self.bias[m:]).all():
            raise ArgumentError("bias", "is not filled up with -inf", "give -inf behind the last row")
        if self.precision is not Precision.INT8 and not np.isfinite(self.rows_of(np.arange(m))).all():
            raise ArgumentError("fine", "has NaN or infinity in it", "give finite numbers")
        self.bound  # noqa: B018  (raises)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the weight."""
        return int(self.sizes[0]), int(self.sizes[1])

    @property
    def precision(self) -> Precision:
        """Precision of the fine rows."""
        return Precision(int(self.sizes[5]))

    @cached_property
    def bound(self) -> Bound:
        """How far outputs may be off."""
        return Bound(*self.limits.tolist())

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return all arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def coarse(self) -> tuple[Codes, Codes]:
        """Codes of ``V^T`` ``(rank, n)`` and of U ``(m, rank)``, both with the zeros that fill up strips and words."""
        m, n, rank = self.sizes[:3].tolist()
        return from_strips(self.basis, rank, padded(n, 4)), from_strips(self.factor, m, padded(rank, STRIP))

    def rows_of(self, rows: npt.NDArray[np.integer[Any]]) -> FloatArray:
        """Return fine rows decoded, float32 ``(rows, n)``."""
        m, n = self.shape
        return from_fine(self.fine.reshape(m, -1)[rows], self.fine_scales[rows], self.precision, n)


WORDS = ("basis", "factor", "fine")
"""Arrays of words."""


def padded(size: int, unit: int) -> int:
    """Return the least multiple of `unit` that is at least `size`."""
    return -(-size // unit) * unit


def filled(values: FloatArray, size: int, fill: float = 0.0) -> Floats32:
    """Return a vector in float32, filled up."""
    result = np.full(size, fill, np.float32)
    result[: len(values)] = values
    return result


def symmetric(rows: FloatArray) -> tuple[Codes, Floats32]:
    """Encode rows in int8, each with a scale of its own: codes and scales; the largest entry gets the largest code."""
    scales = (np.abs(rows).max(axis=1, initial=0.0) / 127).astype(np.float32)
    divisors = np.where(scales > 0, scales, np.float32(1))
    codes = np.clip(np.rint(rows / divisors[:, None]), -127, 127) + Precision.INT8.zero
    return codes.astype(np.uint8), scales


def to_strips(codes: Codes) -> Words:
    """Pack codes ``(rows, columns)`` of int8 into strips."""
    rows = padded(len(codes), STRIP)
    whole = np.full((rows, codes.shape[1]), int(Precision.INT8.zero), np.uint8)
    whole[: len(codes)] = codes
    words = to_words(whole, Precision.INT8)
    strips = words.reshape(rows // STRIP, STRIP, words.shape[1])
    return np.ascontiguousarray(strips.transpose(0, 2, 1)).ravel()


def from_strips(words: Words, rows: int, columns: int) -> Codes:
    """Return what `to_strips` packed, with the rows and columns that fill it up."""
    strips = words.reshape(padded(rows, STRIP) // STRIP, columns // 4, STRIP).transpose(0, 2, 1)
    codes: Codes = from_words(strips.reshape(padded(rows, STRIP), columns // 4), Precision.INT8, columns)
    return codes


def to_fine(weight: FloatArray, precision: Precision) -> tuple[Words, Floats32]:
    """Pack the rows of a weight ``(m, n)``; words and scales."""
    m, n = weight.shape
    scales = np.ones(m, np.float32)
    values: npt.NDArray[Any] = weight.astype(np.float32, copy=False)
    if precision is Precision.INT8:
        values, scales = symmetric(weight)
    zero = int(precision.zero) if precision is Precision.INT8 else 0
    whole = np.full((m, padded(n, BLOCK)), zero, values.dtype)
    whole[:, :n] = values
    return to_words(whole[:, _order(n, precision)], precision).ravel(), scales


def from_fine(words: Words, scales: Floats32, precision: Precision, n: int) -> Floats32:
    """Return the rows ``(rows, n)`` that `to_fine` packed into words ``(rows, words)``, decoded."""
    values = from_words(words, precision, padded(n, BLOCK))
    if precision is Precision.INT8:
        values = values.astype(np.float32) - np.float32(precision.zero)
    decoded: Floats32 = values[:, np.argsort(_order(n, precision))[:n]] * scales[:, None]
    return decoded


def _order(n: int, precision: Precision) -> npt.NDArray[np.intp]:
    """Return the column of each place of a fine row."""
    places = np.arange(padded(n, BLOCK)).reshape(-1, precision.per_word, 16)
    return places.transpose(0, 2, 1).ravel()
