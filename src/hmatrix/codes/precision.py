"""Precisions in which coefficients are stored: floating point, or integer codes with scales.

An integer leaf stores ``scale * (code - zero)``, with unsigned codes and one scale for each row of each group of
columns. A scale may be negative: int4 has eight values below zero and seven above, and the longer side goes where the
larger entries are. int2 and int1 have no zero: their values are -3/2, -1/2, 1/2 and 3/2 of the scale, which for
bell-shaped entries leave a fifth less error than -1, 0, 1; and -1/2 and 1/2. The values of lloyd4 are not evenly
spaced: they are those with the least squared error for normally distributed entries, a sixth less than int4. Those of
trellis4, trellis2 and trellis1 depend on the neighbouring codes, too (`hmatrix.codes.trellis`): they leave nearly a
half less than int4, a third less than int2 and a fifth less than int1. So do those of trellis3, and of trellis4p, which
leaves an eighth less than trellis4: their codes lie in words of two kinds, and products with them take longer.

References
----------
S. Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28 (1982),
doi:10.1109/TIT.1982.1056489; J. Max, "Quantizing for minimum distortion", IRE Transactions on Information Theory 6
(1960), doi:10.1109/TIT.1960.1057548.
"""

from enum import Enum, IntEnum
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hmatrix._support.checks import check_integer
from hmatrix._support.ranges import check_not_too_large, check_range
from hmatrix._support.typing import AnyArray, Codes, FloatArray, Floats32, Words
from hmatrix.codes.trellis import TRELLISES, Trellis, codebook
from hmatrix.errors import ArgumentError

_MOST_BFLOAT16 = (2 - 2.0**-7) * 2.0**127


class Precision(IntEnum):
    """The precision of a leaf; the number stands in the table of leaves.

    Examples
    --------
    >>> precision = hm.Precision.of("int4")
    >>> precision.bits, precision.is_integer
    (4, True)
    >>> hm.Precision.of(np.float32)
    <Precision.FLOAT32: 1>
    """

    FLOAT64 = 0
    FLOAT32 = 1
    BFLOAT16 = 2
    INT8 = 3
    INT4 = 4
    INT2 = 5
    INT1 = 6
    LLOYD4 = 7
    TRELLIS4 = 8
    TRELLIS2 = 9
    TRELLIS1 = 10
    TRELLIS3 = 11
    TRELLIS4P = 12

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
        # torch.compile of torch 2.13 recurses without end where a tuple is indexed by a member of an enumeration.
        return (64, 32, 16, 8, 4, 2, 1, 4, 4, 2, 1, 3, 4)[int(self)]

    @property
    def is_integer(self) -> bool:
        """Whether coefficients are codes with scales."""
        return self >= Precision.INT8

    @property
    def zero(self) -> float:
        """The code of zero where values are evenly spaced; in int2 and int1 zero lies between two codes."""
        return (128.0, 8.0, 1.5, 0.5)[self - Precision.INT8]

    @property
    def lowest(self) -> int:
        """The lowest code of evenly spaced values; int8 leaves out one, so that it is symmetric."""
        return 1 if self is Precision.INT8 else 0

    @property
    def highest(self) -> int:
        """The highest code."""
        return (1 << self.bits) - 1

    @property
    def filling(self) -> int:
        """The code of the entries that fill up a word."""
        return int(self.zero) if Precision.INT8 <= self < Precision.LLOYD4 else 0

    @property
    def trellis(self) -> Trellis | None:
        """The trellis by which words are read, if values depend on neighbouring codes, else ``None``."""
        return TRELLISES.get(int(self))

    def values(self, codes: Codes) -> Floats32:
        """Return the values of integer codes, in units of the scale, in the shape of the codes.

        Parameters
        ----------
        codes
            ``(m, n)``, the first column at the beginning of a word; of any shape where there is no trellis.
        """
        if self.trellis is not None:
            return self.trellis.read(codes)
        if self is Precision.LLOYD4:
            return lloyd4()[codes]
        values: Floats32 = codes.astype(np.float32) - np.float32(self.zero)
        return values

    def group(self, columns: object) -> int:
        """Return the number of columns that share a scale where a user asks for `columns`; 0 without scales.

        Raises
        ------
        ArgumentError
            If it is no integer of at least 0.
        """
        checked = check_integer("group", columns, at_least=0)
        return min(checked, np.iinfo(np.int32).max) if self.is_integer else 0

    @property
    def per_word(self) -> int:
        """Neighbouring columns that share a word of 32 bits (64 for float64), or a block of words."""
        return self.trellis.visits if self.trellis else max(32 // self.bits, 1)

    def check_holds(self, name: str, largest: float) -> None:
        """Check that numbers up to a magnitude can be stored, in codes or as they are.

        Raises
        ------
        ArgumentError
            With this name, if they are too large, or all of them so small that next to nothing is left of them.
        """
        if self is Precision.BFLOAT16:
            check_not_too_large(name, largest, _MOST_BFLOAT16, "bfloat16 holds")
        if self is not Precision.FLOAT64:
            check_range(name, largest)

    def words(self, columns: Any) -> Any:
        """Return the words that a row of so many columns fills, for a number or for each of an array."""
        return -(-columns // self.per_word) * (1 if self.trellis is None else 1 + self.trellis.parallel_words)


def lloyd4() -> Floats32:
    """Return the values of the codes of lloyd4 ``(16,)``: levels of the quantiser, the largest 127, rounded."""
    return codebook(Precision.LLOYD4)[:16]


class Activations(Enum):
    """Treatment of a product's input where it meets integer codes.

    Examples
    --------
    >>> weight = np.random.default_rng(0).standard_normal((64, 64))
    >>> hm.quantize(weight, "int8", activations="int8").activations
    <Activations.INT8: 'int8'>
    >>> hm.Activations.of("exact")
    <Activations.EXACT: 'exact'>
    """

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


def to_words(values: AnyArray, precision: Precision) -> AnyArray:
    """Pack columns into words, filling the last word of each row with the code of zero, or next to it.

    Parameters
    ----------
    values
        ``(m, n)``: codes for integer precisions, else floating-point numbers.
    precision
        Precision of the words.

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
    filled = np.full((m, -(-n // precision.per_word) * precision.per_word), precision.filling, np.uint32)
    filled[:, :n] = units
    return _whole_words(filled, precision)


@cache
def padding(precision: Precision, n: int) -> tuple[Words, Words] | None:
    """Return the mask of the bits that fill up the last words of rows of n columns, and these bits, ``(words,)`` each.

    ``None`` where nothing is filled up. The words are those of one block: one, but for a trellis with parallel bits.
    """
    count = precision.per_word
    if n % count == 0:
        return None
    is_filling = np.arange(count)[None] >= n % count
    mask, bits = (
        _whole_words(np.where(is_filling, np.uint32(unit), np.uint32(0)), precision)[0]
        for unit in ((1 << precision.bits) - 1, precision.filling)
    )
    return mask, bits


def _whole_words(units: Words, precision: Precision) -> Words:
    """Pack codes, or bfloat16 numbers, that fill whole words."""
    trellis = precision.trellis
    if trellis is None or not trellis.parallel:
        return _packed(units, precision.bits)
    ring = _packed(units >> np.uint32(trellis.parallel), trellis.ring)
    parallel = _packed(units & np.uint32(2**trellis.parallel - 1), trellis.parallel)
    blocks = np.concatenate([ring[:, :, None], parallel.reshape(*ring.shape, trellis.parallel_words)], axis=2)
    return blocks.reshape(len(units), precision.words(units.shape[1]))


def from_words(words: AnyArray, precision: Precision, n: int) -> AnyArray:
    """Return the numbers that `to_words` packed: codes uint8 ``(m, n)``, or floating-point numbers.

    Parameters
    ----------
    words
        ``(m, words)``.
    precision
        Precision of the words.
    n
        Columns.
    """
    if precision is Precision.FLOAT64:
        return words
    if precision is Precision.FLOAT32:
        return np.ascontiguousarray(words).view(np.float32)
    trellis = precision.trellis
    if trellis is None or not trellis.parallel:
        columns = _unpacked(words, precision.bits)[:, :n]
    else:
        m, count = len(words), -(-n // precision.per_word)
        blocks = words.reshape(m, count, 1 + trellis.parallel_words)
        ring = _unpacked(blocks[:, :, 0], trellis.ring) << np.uint32(trellis.parallel)
        parallel = _unpacked(blocks[:, :, 1:].reshape(m, count * trellis.parallel_words), trellis.parallel)
        columns = (ring | parallel)[:, :n]
    if precision is Precision.BFLOAT16:
        return (columns << np.uint32(16)).view(np.float32)
    return columns.astype(np.uint8)


def _packed(units: Words, bits: int) -> Words:
    """Pack columns that fill words, of so many bits each."""
    m, columns = units.shape
    words: Words = np.bitwise_or.reduce(units.reshape(m, columns * bits // 32, 32 // bits) << _shifts(bits), axis=2)
    return words


def _unpacked(words: AnyArray, bits: int) -> Words:
    """Return the columns that `_packed` packed."""
    units = (words[:, :, None] >> _shifts(bits)) & np.uint32(2**bits - 1)
    return units.reshape(len(words), words.shape[1] * (32 // bits)).astype(np.uint32, copy=False)


def _shifts(bits: int) -> Words:
    """Return the place of each column in a word of so many bits an entry.

    int8 codes lie in the order of the bytes. Of fewer bits, each byte holds columns that are four
    apart, so that four bytes of one shift meet four neighbouring entries of the source.
    """
    columns = np.arange(32 // bits)
    return (8 * (columns % 4) + bits * (columns // 4) if bits <= 8 else bits * columns).astype(np.uint32)


def _to_bfloat16(values: FloatArray) -> Words:
    """Round finite values to bfloat16, to nearest even: the upper halves of float32 words."""
    words = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded: Words = (words + np.uint32(0x7FFF) + ((words >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return rounded
