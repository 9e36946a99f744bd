"""Trellis-coded quantisation: entries whose values depend on their own bits and on their neighbours'.

A word of 32 bits holds 8, 16 or 32 neighbouring entries of a row, at 4, 2 or 1 bits each. It is read as a ring, in
visits: the value of visit m is looked up by the six bits from bit ``m * bits`` on, so that each entry chooses between
a few values, which depend on the entries after it. The path with the least error is found by the Viterbi algorithm.
Of the bits of trellis3 one lies in such a ring, and of those of trellis4p two: a window holds five bits of the ring.
The two others, their *parallel* bits, are the entry's alone, and lie in words of their own behind the ring's. Of
normally distributed entries 0.292, 0.082, 0.0203 and 0.0065 of the square is left at 1 to 4 bits, and 0.0057 by
trellis4p, where the best values without a trellis leave 0.363, 0.118, 0.0345 and 0.0095, and no code of any length less
than 0.25, 0.0625, 0.0156 and 0.0039. The values are those that Lloyd's iteration ends at, from quantiles of the normal
distribution in an order that is among the best after a few steps (``studies/allocator/trellis_values.py``).

References
----------
M. W. Marcellin and T. R. Fischer, "Trellis coded quantization of memoryless and Gauss-Markov sources", IEEE
Transactions on Communications 38 (1990), doi:10.1109/26.46532; A. Tseng, Q. Sun, D. Hou and C. De Sa, "QTIP", NeurIPS
2024, arXiv:2406.11235 (the window that moves along the bits, and a ring); G. Ungerboeck, "Channel coding with
multilevel/phase signals", IEEE Transactions on Information Theory 28 (1982), doi:10.1109/TIT.1982.1056454 (parallel
transitions).
"""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from hmatrix import _core
from hmatrix._support.typing import AnyArray, Codes, Flags, Floats32, IndexArray

_WORD = 32

TRIES = 8
"""States in which a word may begin that are tried: more of them gain next to nothing."""

ALL_TRIES = 32
"""All of them. In a word that is not filled, the most promising ones are unknown."""


@cache
def codebook(precision: int) -> Floats32:
    """Return the value of each window of a precision, in units of the scale, ``(windows,)``: integers to 127."""
    return np.array(_core.codebook(precision), np.float32)


@dataclass(frozen=True)
class Trellis:
    """A trellis, by which the words of a precision are read and written.

    Parameters
    ----------
    precision
        Number of the precision.
    ring
        Bits of an entry in the word that is read as a ring.
    parallel
        Bits of an entry that no other entry's value depends on: the lowest of its code.
    largest
        The entry of the largest value, 127, where entries have the variance 1.
    """

    precision: int
    ring: int
    parallel: int
    largest: float

    @property
    def bits(self) -> int:
        """Bits of an entry."""
        return self.ring + self.parallel

    @property
    def visits(self) -> int:
        """Entries of a word that is read as a ring."""
        return _WORD // self.ring

    @property
    def parallel_words(self) -> int:
        """Words behind it, with the parallel bits of its entries."""
        return self.visits * self.parallel // _WORD

    @cached_property
    def columns(self) -> IndexArray:
        """The column of each visit, ``(visits,)``: four neighbouring columns lie in four bytes."""
        per_byte = self.visits // 4
        numbers = np.arange(self.visits)
        return (4 * (numbers % per_byte) + numbers // per_byte).astype(np.int32)

    @property
    def values(self) -> Floats32:
        """Value of each window, in units of the scale."""
        return codebook(self.precision)

    @property
    def unit(self) -> float:
        """The scale that suits normally distributed entries of variance 1."""
        return self.largest / 127

    def read(self, codes: Codes) -> Floats32:
        """Return the values of codes, in units of the scale.

        Parameters
        ----------
        codes
            ``(m, n)``; the first column begins a word, and columns that fill up the last one have the code 0.
        """
        visits = self._by_word(codes).astype(np.uint32)
        ringed = visits >> np.uint32(self.parallel)
        windows = visits & np.uint32((1 << self.parallel) - 1)
        length = len(self.values).bit_length() - 1 - self.parallel
        for place in range(-(-length // self.ring)):
            windows |= np.roll(ringed, -place, axis=2) << np.uint32(self.ring * place + self.parallel)
        return self._by_column(self.values[windows & np.uint32(len(self.values) - 1)], codes.shape[1])

    def nearest(self, rows: Floats32, tries: int = TRIES) -> Codes:
        """Return the codes ``(m, n)`` whose values are nearest to rows ``(m, n)``, in units of the scale."""
        m, n = rows.shape
        target = self._by_word(rows)
        codes = np.empty(target.shape, np.uint8)
        full, rest = divmod(n, self.visits)
        for part, present, most in ((slice(0, full), self.visits, tries), (slice(full, None), rest, ALL_TRIES)):
            words = np.ascontiguousarray(target[:, part]).reshape(-1, self.visits)
            windows = self.encode(words, self.present(present), tries=most)
            codes[:, part] = self.codes(windows).reshape(m, -1, self.visits)
        return self._by_column(codes, n)

    def present(self, columns: int) -> Flags:
        """Return whether each visit is of the first so many columns of a word, ``(visits,)``."""
        return self.columns < columns

    def encode(
        self,
        target: Floats32,
        present: Flags,
        owed: Floats32 | None = None,
        root: Floats32 | None = None,
        *,
        tries: int = TRIES,
        instruction_set: str | None = None,
    ) -> Codes:
        """Return the windows of words, ``(words, visits)``; those of visits that are not present do not matter.

        Parameters
        ----------
        target
            Value that each visit should have, in units of the scale, ``(words, visits)``.
        present
            Visits that count; the others have the code 0.
        owed, root
            Errors ``(words, visits)`` that are carried to the visits, and their coupling ``(visits, visits)``, upper
            triangular: with e the target less the values, the square of ``owed + e @ root`` is to be least. Without
            them it is that of e.
        tries
            States in which a word may begin that are tried.
        instruction_set
            Instruction set of the kernel; ``None`` is the best. All return the same.
        """
        windows = np.empty(target.shape, np.uint8)
        _core.encode_words(
            instruction_set or _core.instruction_sets()[0],
            self.precision,
            np.ascontiguousarray(target, np.float32),
            None if owed is None else np.ascontiguousarray(owed, np.float32),
            None if root is None else np.ascontiguousarray(root, np.float32),
            present.astype(np.uint8),
            tries,
            windows,
        )
        return windows

    def codes(self, windows: Codes) -> Codes:
        """Return the codes at the beginning of windows."""
        return windows & np.uint8((1 << self.bits) - 1)

    def _by_word(self, columns: AnyArray) -> AnyArray:
        """Return columns ``(m, n)`` in order of their visits, ``(m, words, visits)``, filled up with zeros."""
        m, n = columns.shape
        words = -(-n // self.visits)
        filled = np.zeros((m, words * self.visits), columns.dtype)
        filled[:, :n] = columns
        return filled.reshape(m, words, self.visits)[:, :, self.columns]

    def _by_column(self, visits: AnyArray, n: int) -> AnyArray:
        """Return the numbers of visits ``(m, words, visits)`` column by column, ``(m, n)``."""
        columns = np.empty_like(visits)
        columns[:, :, self.columns] = visits
        return columns.reshape(len(visits), visits.shape[1] * self.visits)[:, :n]


TRELLISES = {
    trellis.precision: trellis
    for trellis in (
        Trellis(8, 4, 0, 3.126),
        Trellis(9, 2, 0, 2.619),
        Trellis(10, 1, 0, 1.944),
        Trellis(11, 1, 2, 3.141),
        Trellis(12, 2, 2, 3.273),
    )
}
"""Trellises by the numbers of their precisions."""
