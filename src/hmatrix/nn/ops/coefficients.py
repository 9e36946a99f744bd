"""The coefficients of factors of equal shape as tensors, in the precision in which they are stored."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hmatrix.codes.precision import Precision
from hmatrix.codes.trellis import codebook

UNITS = {
    Precision.FLOAT64: torch.float64,
    Precision.FLOAT32: torch.float32,
    Precision.BFLOAT16: torch.bfloat16,
    Precision.INT8: torch.uint8,
    Precision.INT4: torch.uint8,
    Precision.INT2: torch.uint8,
    Precision.INT1: torch.uint8,
    Precision.LLOYD4: torch.uint8,
    Precision.TRELLIS4: torch.uint8,
    Precision.TRELLIS2: torch.uint8,
    Precision.TRELLIS1: torch.uint8,
    Precision.TRELLIS3: torch.uint8,
    Precision.TRELLIS4P: torch.uint8,
}
"""Types that words are viewed as; little-endian, as all devices are that torch runs on."""

TABLES: dict[Precision, list[float]] = {
    precision: codebook(precision).tolist() for precision in Precision if precision >= Precision.LLOYD4
}
"""Values of each window, in units of the scale, for precisions whose values are not evenly spaced."""


@dataclass(frozen=True)
class Columns:
    """The columns of a factor, cut into runs, the same for all factors of a stack.

    Parameters
    ----------
    precision
        Precision of the coefficients.
    lengths
        Columns of each run. Activations are quantised run by run.
    groups
        Number of the group, of common scales, that each run belongs to.
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
        """Return the columns of words that hold coefficients, and those that hold scales."""
        codes: list[int] = []
        scales: list[int] = []
        at = 0
        for number, (length, group) in enumerate(zip(self.lengths, self.groups, strict=True)):
            if self.precision.is_integer and (number == 0 or group != self.groups[number - 1]):
                scales.append(at)
                at += 1
            codes += range(at, at + self.precision.words(length))
            at = codes[-1] + 1
        return codes, scales

    def by_column(self, of_group: Tensor) -> Tensor:
        """Repeat numbers that groups have ``(..., groups)`` for each of their columns ``(..., columns)``."""
        return _repeated(of_group, self.groups, self.lengths)

    def by_run(self, of_run: Tensor) -> Tensor:
        """Repeat numbers that runs have ``(..., runs)`` for each of their columns ``(..., columns)``."""
        return _repeated(of_run, tuple(range(len(self.lengths))), self.lengths)


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
        filling = precision.filling
        runs = [values[..., run].to(UNITS[precision]) for run, _ in columns.runs()]
        units = torch.cat([nn.functional.pad(run, (0, -run.shape[2] % per_word), value=filling) for run in runs], dim=2)
        trellis = precision.trellis
        if trellis is not None and trellis.parallel:
            parallel = _packed(units & (1 << trellis.parallel) - 1, trellis.parallel)
            ring = _packed(units >> trellis.parallel, trellis.ring)
            blocks = [
                torch.unflatten(words, 2, (-1, count, 4))
                for words, count in ((ring, 1), (parallel, trellis.parallel_words))
            ]
            units = torch.cat(blocks, dim=3).flatten(2)
        elif precision.bits < 8:
            units = _packed(units, precision.bits)
        return cls(columns, units.contiguous(), scales)

    def rows(self, leaf: Tensor, row: Tensor) -> "Coefficients":
        """Return the coefficients of some rows, the shape of `leaf` and `row` in the place of leaves and rows."""
        scales = None if self.scales is None else self.scales[leaf, row]
        return Coefficients(self.columns, self.units[leaf, row], scales)

    def integers(self) -> Tensor:
        """Return the values of codes, in units of the scale, ``(leaves, rows, columns)``, float32.

        They are halves in int2 and int1, else integers.
        """
        precision = self.columns.precision
        table = TABLES.get(precision)
        trellis = precision.trellis
        codes = self.units.float()
        if trellis is not None:
            assert table is not None
            blocks = torch.unflatten(codes, 2, (-1, 1 + trellis.parallel_words, 4))
            choices = 2**trellis.parallel
            codes = _read(blocks[:, :, :, :1].flatten(2), trellis.ring, len(table) // choices, ring=True)
            if trellis.parallel:
                codes = choices * codes + _read(blocks[:, :, :, 1:].flatten(2), trellis.parallel, choices)
        elif precision.bits < 8:
            codes = _read(codes, precision.bits, 2**precision.bits)
        codes = self._unpadded(codes)
        return codes - precision.zero if table is None else torch.tensor(table, device=codes.device)[codes.long()]

    def values(self) -> Tensor:
        """Return the coefficients ``(leaves, rows, columns)`` in float32, or float64 for float64."""
        if self.scales is not None:
            return self.integers() * self.columns.by_column(self.scales)
        units = self._unpadded(self.units)
        return units.float() if units.dtype == torch.bfloat16 else units

    def _unpadded(self, units: Tensor) -> Tensor:
        """Leave out the columns that fill the last word of each run."""
        per_word = self.columns.precision.per_word
        pieces = []
        first = 0
        for length in self.columns.lengths:
            pieces.append(units.narrow(2, first, length))
            first += -(-length // per_word) * per_word
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)


def _packed(codes: Tensor, bits: int) -> Tensor:
    """Return codes ``(leaves, rows, columns)`` in bytes; those of a byte are four columns apart."""
    by_byte = torch.unflatten(codes, 2, (-1, 8 // bits, 4))
    shifted = [by_byte[:, :, :, number] << (bits * number) for number in range(by_byte.shape[3])]
    return torch.stack(shifted).sum(dim=0, dtype=torch.uint8).flatten(2)


def _read(words: Tensor, bits: int, base: int, *, ring: bool = False) -> Tensor:
    """Return the number at each column of words, modulo a base, ``(leaves, rows, columns)``.

    Parameters
    ----------
    words
        Their bytes as floating-point numbers, ``(leaves, rows, bytes)``: exporters confuse the types of shifts.
    bits
        Bits of a column.
    base
        A power of two.
    ring
        Whether it may go on in the next byte of the word; the first follows the last.
    """
    bytes_ = torch.unflatten(words, 2, (-1, 1, 4))
    if ring:
        bytes_ = bytes_ + 256 * bytes_.roll(-1, dims=4)
    places = torch.tensor([2.0**shift for shift in range(0, 8, bits)], device=words.device)
    above = torch.floor(bytes_ / places[:, None])
    return (above - base * torch.floor(above / base)).flatten(2)


def _repeated(numbers: Tensor, chosen: tuple[int, ...], lengths: tuple[int, ...]) -> Tensor:
    if len(lengths) == 1:
        return numbers
    pieces = [
        numbers.narrow(-1, number, 1).expand(*numbers.shape[:-1], length)
        for number, length in zip(chosen, lengths, strict=True)
    ]
    return torch.cat(pieces, dim=-1)
