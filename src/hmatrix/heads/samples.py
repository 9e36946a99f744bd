"""Samples by which a progressive head is made: inputs, outputs of the dense layer, and the rows of the largest."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from hmatrix._support.typing import AnyArray, Flags, FloatArray, Floats32, Integers8, Positions
from hmatrix.heads.fine_rows import by_chunk
from hmatrix.heads.ties import sum_rounding

_CHUNK = 64
"""Samples that are looked at together."""

_HUGE = np.float32(1e18)


def largest_rows(outputs: AnyArray, top: int) -> Positions:
    """Return the rows of the `top` largest outputs ``(samples, top)``, in their order; of equal ones the first."""
    if top == 1:
        best: Positions = outputs.argmax(axis=1)[:, None]
        return best
    last = np.partition(outputs, -top, axis=1)[:, -top, None]
    above = outputs > last
    missing = top - np.count_nonzero(above, axis=1)
    equal = outputs == last
    chosen = above | (equal & (np.cumsum(equal, axis=1) <= missing[:, None]))
    return np.nonzero(chosen)[1].reshape(len(outputs), top)


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs of a layer, and its largest outputs but for rounding.

    Parameters
    ----------
    inputs, dense
        Inputs ``(samples, n)`` and outputs of the dense layer ``(samples, m)``.
    norms
        Norms of the layer's rows ``(m,)``.
    rounding
        Rounding errors of each sample's outputs, relative to the norms of the rows ``(samples,)``.
    least, most
        Range of the outputs that equal the last of the largest ``(samples,)``.
    wanted
        The rows of the `top` largest outputs ``(samples, top)``; of equal ones the first.
    tied
        Whether there are others as good ``(samples,)``.
    """

    inputs: FloatArray
    dense: FloatArray
    norms: FloatArray
    rounding: FloatArray
    least: FloatArray
    most: FloatArray
    wanted: Positions
    tied: Flags

    @classmethod
    def of(
        cls, inputs: FloatArray, weight: FloatArray, bias: FloatArray, top: int, dense: FloatArray | None = None
    ) -> Self:
        """Find the `top` largest outputs of inputs of the layer ``x A^T + b``, computed elsewhere or here."""
        if dense is None:
            dense = inputs @ weight.T + bias
        norms, sizes = _norms(weight), _norms(inputs)
        # Outputs that may overflow are never equal.
        rounding = np.where(sizes < _HUGE, sum_rounding(weight.shape[1]) * sizes, np.float32(0))
        last = _last(dense, top)
        value = np.take_along_axis(dense, last[:, None], axis=1)[:, 0]
        off_by = rounding * norms[last]
        wanted, tied = np.empty((len(inputs), top), np.intp), np.empty(len(inputs), bool)
        found = cls(inputs, dense, norms, rounding, value - off_by, value + off_by, wanted, tied)
        for start in range(0, len(inputs), _CHUNK):
            part = slice(start, start + _CHUNK)
            ranks = found[part].ranks()
            wanted[part] = largest_rows(ranks, top)
            tied[part] = np.count_nonzero(ranks > 0, axis=1) > top
        return found

    def __getitem__(self, chosen: Positions | slice) -> Self:
        return replace(
            self,
            inputs=self.inputs[chosen],
            dense=self.dense[chosen],
            rounding=self.rounding[chosen],
            least=self.least[chosen],
            most=self.most[chosen],
            wanted=self.wanted[chosen],
            tied=self.tied[chosen],
        )

    def ranks(self) -> Integers8:
        """Return 2 for rows that are among the largest, 1 for those that may be, 0 for others ``(samples, m)``."""
        off_by = self.rounding[:, None] * self.norms
        found = (self.dense + off_by >= self.least[:, None]).astype(np.int8)
        found += self.dense - off_by > self.most[:, None]
        return found

    def agree(self, rows: Positions) -> Flags:
        """Return whether rows ``(samples, top)`` are those of the largest outputs, or as good ``(samples,)``."""

        def off_by(rows: Positions) -> tuple[FloatArray, FloatArray]:
            return np.take_along_axis(self.dense, rows, axis=1), self.rounding[:, None] * self.norms[rows]

        def certain(rows: Positions) -> Positions:
            outputs, errors = off_by(rows)
            counts: Positions = np.count_nonzero(outputs - errors > self.most[:, None], axis=1)
            return counts

        outputs, errors = off_by(rows)
        among = (outputs + errors >= self.least[:, None]).all(axis=1)
        agreed: Flags = among & (certain(rows) == certain(self.wanted))
        return agreed

    def easiest(self, coarse: FloatArray, first: Positions) -> Positions:
        """Return rows as good as the wanted ones ``(samples, top)``: of equal ones those that a head finds first.

        Parameters
        ----------
        coarse
            Coarse outputs ``(samples, m)``.
        first
            Rows that are refined first ``(samples, first)``.
        """
        if not self.tied.any():
            return self.wanted
        wanted, tied = self.wanted.copy(), np.flatnonzero(self.tied)
        ranks, outputs = self[tied].ranks(), coarse[tied].astype(np.float64)
        np.put_along_axis(outputs, first[tied], np.finfo(np.float64).max, axis=1)
        preference = np.where(ranks == 1, outputs, np.where(ranks > 1, np.inf, -np.inf))
        wanted[tied] = largest_rows(preference, wanted.shape[1])
        return wanted


def _norms(rows: FloatArray) -> Floats32:
    """Return norms of rows."""
    return np.sqrt(by_chunk(rows, lambda part: np.square(part).sum(axis=1))).astype(np.float32)


def _last(outputs: FloatArray, top: int) -> Positions:
    """Return the row of the last of the `top` largest outputs ``(samples,)``."""
    rows = largest_rows(outputs, top)
    place = np.take_along_axis(outputs, rows, axis=1).argmin(axis=1)
    found: Positions = np.take_along_axis(rows, place[:, None], axis=1)[:, 0]
    return found
