"""How coefficients are stored: floating point, or integer codes with scales.

An integer leaf stores ``scale * (code - zero)``, with unsigned codes and one scale for each row of
each group of columns. A scale may be negative: int4 has eight values below zero and seven above, and
the longer side goes where the larger entries are. int2 and int1 have no zero: their values are
-3/2, -1/2, 1/2 and 3/2 of the scale, which for bell-shaped entries leave a fifth less error than
-1, 0, 1; and -1/2 and 1/2. The values of lloyd4 are not evenly spaced: they are those that leave
normally distributed entries the least squared error, a sixth less than int4.

References
----------
S. Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28 (1982),
doi:10.1109/TIT.1982.1056489; J. Max, "Quantizing for minimum distortion", IRE Transactions on Information Theory 6
(1960), doi:10.1109/TIT.1960.1057548.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hmatrix._validation import FloatArray, check_integer
from hmatrix.errors import ArgumentError

Codes: TypeAlias = npt.NDArray[np.uint8]
Floats32: TypeAlias = npt.NDArray[np.float32]

_ENTRIES = 1 << 15
"""Of the rows whose scales are searched together."""

_SEARCH = np.concatenate([np.linspace(0.25, 1.0, 31), [1.05, 1.1]])
"""Clipping ranges that are tried, as fractions of the largest magnitude."""


LLOYD4 = np.array([-127, -96, -75, -58, -44, -31, -18, -6, 6, 18, 31, 44, 58, 75, 96, 127], np.float32)
"""Values of the codes of lloyd4: levels of the quantiser, of which the largest is 127, rounded to bytes."""

LLOYD4_BOUNDS = (LLOYD4[1:] + LLOYD4[:-1]) / 2
"""Between each value and the next, ``(15,)``."""


class Precision(IntEnum):
    """The precision of a leaf; the number stands in the table of leaves."""

    FLOAT64 = 0
    FLOAT32 = 1
    BFLOAT16 = 2
    INT8 = 3
    INT4 = 4
    INT2 = 5
    INT1 = 6
    LLOYD4 = 7

    @classmethod
    def of(cls, name: "Precision | npt.DTypeLike") -> "Precision":
        """Return the precision of a name (``"int8"``, ``"bfloat16"``, ...) or of a NumPy floating-point type.

        Raises
        ------
        ArgumentError
            If there is none.
        """
        if isinstance(name, Precision):
            return name
        try:
            text = name if isinstance(name, str) else np.dtype(name).name
        except TypeError:
            text = repr(name)
        if name is None or text.upper() not in cls.__members__:
            known = ", ".join(member.name.lower() for member in cls)
            raise ArgumentError("precision", f"got {text!r}", f"give one of {known}")
        return cls[text.upper()]

    @property
    def bits(self) -> int:
        """Bits of one coefficient."""
        return (64, 32, 16, 8, 4, 2, 1, 4)[self]

    @property
    def is_integer(self) -> bool:
        """Whether coefficients are codes with scales."""
        return self >= Precision.INT8

    @property
    def zero(self) -> float:
        """The code that stands for zero; of int2, int1 and lloyd4 it lies between two codes."""
        return (128.0, 8.0, 1.5, 0.5, 7.5)[self - Precision.INT8]

    def values(self, codes: Codes) -> Floats32:
        """Return what integer codes stand for, in units of the scale, in the shape of the codes."""
        if self is Precision.LLOYD4:
            return LLOYD4[codes]
        values: Floats32 = codes.astype(np.float32) - np.float32(self.zero)
        return values

    def group(self, columns: object) -> int:
        """Return how many columns share a scale where a user asks for `columns`: 0, for all, without scales.

        Raises
        ------
        ArgumentError
            If it is no integer of at least 0.
        """
        checked = check_integer("group", columns, at_least=0)
        return min(checked, np.iinfo(np.int32).max) if self.is_integer else 0

    @property
    def per_word(self) -> int:
        """Neighbouring columns that share a word: of 32 bits, or of 64 for float64."""
        return max(32 // self.bits, 1)


class Activations(Enum):
    """How the product treats its input where it meets integer codes."""

    EXACT = "exact"
    """Codes are converted to float32, and multiplied with float32."""

    INT8 = "int8"
    """The input is quantised to int8, symmetrically, each vector and each segment of columns by itself."""

    @classmethod
    def of(cls, name: "Activations | str") -> "Activations":
        """Return the member of a name.

        Raises
        ------
        ArgumentError
            If there is none.
        """
        if isinstance(name, Activations):
            return name
        if name not in [member.value for member in cls]:
            raise ArgumentError("activations", f"got {name!r}", "give 'exact' or 'int8'")
        return cls(name)


@dataclass(frozen=True, eq=False)
class Encoded:
    """Integer codes and their scales.

    Parameters
    ----------
    codes
        uint8 ``(m, n)``, one code an entry, not packed.
    scales
        float32 ``(m, groups)``.
    group
        Columns that share a scale; the last group may be shorter.
    precision
        Of the codes.
    """

    codes: Codes
    scales: Floats32
    group: int
    precision: Precision

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the block."""
        return self.codes.shape[0], self.codes.shape[1]


def encode(block: FloatArray, precision: Precision, group: int = 0) -> Encoded:
    """Encode a block, searching the clipping range of each row and group for the least squared error.

    Parameters
    ----------
    block
        ``(m, n)``.
    precision
        An integer precision.
    group
        Columns that share a scale; 0 is all of them.
    """
    m, n = block.shape
    group = max(min(group or n, n), 1)
    codes = np.empty((m, n), np.uint8)
    scales = np.empty((m, -(-n // group)), np.float32)
    # As many rows at a time as stay in the cache.
    height = max(1, _ENTRIES // group)
    for number, start in enumerate(range(0, n, group)):
        columns = slice(start, start + group)
        for first in range(0, m, height):
            rows = slice(first, first + height)
            part = block[rows, columns].astype(np.float64)
            codes[rows, columns], scales[rows, number] = _encode_rows(part, precision)
    return Encoded(codes, scales, group, precision)


def decode(encoded: Encoded) -> Floats32:
    """Return the block ``(m, n)`` that the codes stand for."""
    scales = np.repeat(encoded.scales, encoded.group, axis=1)[:, : encoded.codes.shape[1]]
    values: Floats32 = encoded.precision.values(encoded.codes) * scales
    return values


def _encode_rows(rows: npt.NDArray[np.float64], precision: Precision) -> tuple[Codes, Floats32]:
    """Encode rows that have one scale each."""
    low, high = -rows.min(axis=1), rows.max(axis=1)
    sign = np.where(low >= high, 1.0, -1.0) if precision is Precision.INT4 else np.ones(len(rows))
    reach = _reach(precision) / np.maximum(low, high).clip(min=1e-300)
    best = np.full(len(rows), np.inf)
    scales = np.zeros(len(rows), np.float32)
    for fraction in _SEARCH:
        scale = (sign * fraction / reach).astype(np.float32)
        for _ in range(2):
            values = _nearest(rows, scale, precision)
            error = np.square(rows - values * scale[:, None]).sum(axis=1)
            better = error < best
            best[better], scales[better] = error[better], scale[better]
            # The best scale for these codes, for which some codes may then be better.
            scale = ((rows * values).sum(axis=1) / np.square(values).sum(axis=1).clip(min=1e-300)).astype(np.float32)
    values = _nearest(rows, scales, precision)
    codes = np.searchsorted(LLOYD4, values) if precision is Precision.LLOYD4 else values + precision.zero
    return codes.astype(np.uint8), scales


def _reach(precision: Precision) -> float:
    """Return the largest magnitude of a value, in units of the scale."""
    if precision is Precision.LLOYD4:
        return float(LLOYD4[-1])
    # int8 leaves out its lowest code, so that it is symmetric.
    return precision.zero if precision is Precision.INT4 else 2**precision.bits - 1 - precision.zero


def _nearest(
    rows: npt.NDArray[np.float64], scale: npt.NDArray[np.floating[Any]], precision: Precision
) -> npt.NDArray[np.float64]:
    """Return the values nearest to `rows`, in units of the scale; those of a row with scale 0 do not matter."""
    scaled = rows / np.where(scale == 0, 1.0, scale.astype(np.float64))[:, None]
    values: npt.NDArray[np.float64]
    if precision is Precision.LLOYD4:
        values = LLOYD4[np.searchsorted(LLOYD4_BOUNDS, scaled)].astype(np.float64)
        return values
    zero, lowest = precision.zero, 1 if precision is Precision.INT8 else 0
    values = np.clip(np.rint(scaled + zero), lowest, 2**precision.bits - 1) - zero
    return values


def to_words(values: npt.NDArray[Any], precision: Precision) -> npt.NDArray[Any]:
    """Pack columns into words, filling the last word of each row with what counts as zero, or next to it.

    Parameters
    ----------
    values
        ``(m, n)``: codes for integer precisions, else floating-point numbers.
    precision
        Whose words.

    Returns
    -------
    ndarray
        uint32 ``(m, words)``; float64 for float64.
    """
    if precision is Precision.FLOAT64:
        return values.astype(np.float64)
    if precision is Precision.FLOAT32:
        return np.ascontiguousarray(values, np.float32).view(np.uint32)
    units = _to_bfloat16(values) if precision is Precision.BFLOAT16 else values
    m, n = units.shape
    words = -(-n // precision.per_word)
    filled = np.full(
        (m, words * precision.per_word), 0 if precision is Precision.BFLOAT16 else int(precision.zero), np.uint32
    )
    filled[:, :n] = units
    shifts = _shifts(precision)
    packed: npt.NDArray[np.uint32] = np.bitwise_or.reduce(
        filled.reshape(m, words, precision.per_word) << shifts, axis=2
    )
    return packed


def from_words(words: npt.NDArray[Any], precision: Precision, n: int) -> npt.NDArray[Any]:
    """Return what `to_words` packed: codes uint8 ``(m, n)``, or floating-point numbers.

    Parameters
    ----------
    words
        ``(m, words)``.
    precision
        Whose words.
    n
        Columns.
    """
    if precision is Precision.FLOAT64:
        return words
    if precision is Precision.FLOAT32:
        return np.ascontiguousarray(words).view(np.float32)
    units = (words[:, :, None] >> _shifts(precision)) & np.uint32(2**precision.bits - 1)
    columns = units.reshape(len(words), words.shape[1] * precision.per_word)[:, :n]
    if precision is Precision.BFLOAT16:
        return (columns.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return columns.astype(np.uint8)


def _shifts(precision: Precision) -> npt.NDArray[np.uint32]:
    """Return the place of each column in its word.

    int8 codes lie in the order of the bytes. Of fewer bits, each byte holds columns that are four
    apart, so that four bytes of one shift meet four neighbouring entries of the source.
    """
    columns = np.arange(precision.per_word)
    if precision is Precision.BFLOAT16:
        return (16 * columns).astype(np.uint32)
    return (8 * (columns % 4) + precision.bits * (columns // 4)).astype(np.uint32)


def _to_bfloat16(values: FloatArray) -> npt.NDArray[np.uint32]:
    """Round finite values to bfloat16, to nearest even: the upper halves of float32 words."""
    words = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded: npt.NDArray[np.uint32] = (
        words + np.uint32(0x7FFF) + ((words >> np.uint32(16)) & np.uint32(1))
    ) >> np.uint32(16)
    return rounded
