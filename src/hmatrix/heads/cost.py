"""The cost of an operating point, and conservative quantiles of the needs of samples."""

from dataclasses import dataclass

import numpy as np

from hmatrix._support.typing import FloatArray

_TAIL = 0.1
"""Part of the samples that the tail of their distribution is fitted to."""


_OUTPUT_BYTES = 24
"""Bytes of a coarse output besides its coefficients: scale, bias, two norms, the output and its bound."""


@dataclass(frozen=True)
class Cost:
    """Seconds of one product, as measured on one core of a Zen 4 with AVX-512.

    Parameters
    ----------
    call
        Seconds of a call that does nothing else.
    coarse, far
        Seconds of a byte of the coarse part where that fits into the second cache, and where it does not.
    codes
        Least seconds of an entry of the coarse part: in int4 this counts, not the bytes.
    cache
        Bytes of the second cache.
    jump
        Seconds of a strip of rows that are looked at and do not follow those before.
    row
        Seconds of a row that is refined, whatever its bytes.
    fine
        Seconds of a byte of a refined row.

    Examples
    --------
    >>> hm.Cost(cache=1 << 21).cache
    2097152
    """

    call: float = 1.8e-6
    coarse: float = 1.03e-11
    far: float = 3.0e-11
    codes: float = 7.0e-12
    cache: int = 1 << 20
    jump: float = 5.0e-8
    row: float = 1.4e-8
    fine: float = 2.8e-11

    def seconds(
        self,
        columns: int,
        rank: int,
        clusters: int,
        places: int,
        looked: float,
        refined: float,
        bits: int,
        coarse_bits: int = 8,
        stored: int = 0,
    ) -> float:
        """Return the seconds of one product.

        Parameters
        ----------
        columns, rank
            Columns of the weight, and rank of its coarse part.
        clusters, places
            Clusters and places that have coarse outputs.
        looked, refined
            Places that are looked at, and rows that are refined.
        bits
            Bits of an entry of a fine row.
        coarse_bits
            Bits of an entry of the coarse part.
        stored
            Bytes of an H-matrix that is the coarse part; its rank is 0 then.
        """
        size = coarse_bits / 8
        output = rank * size + _OUTPUT_BYTES
        fits = stored + rank * columns * size + output * (clusters + places) <= self.cache

        def read_in(byte: float, entries: float, outputs: float) -> float:
            return max(byte * size, self.codes) * entries + byte * _OUTPUT_BYTES * outputs

        read = read_in(self.coarse, rank * (columns + clusters), clusters)
        read += read_in(self.coarse if fits else self.far, rank * looked, looked)
        read += (self.coarse if fits else self.far) * stored
        jumps = self.jump * looked / 16 if clusters else 0.0
        return self.call + read + jumps + refined * (self.row + self.fine * columns * bits / 8)


def conservative_quantile(values: FloatArray, level: float) -> float:
    """Return a value that another sample exceeds with a probability of at most ``1 - level``, about.

    This is the order statistic of split conformal prediction, ``ceil((samples + 1) level)``, whose probability is
    guaranteed for exchangeable samples [1]_. Where the samples are too few for it, it is the largest value, or the
    quantile of an exponential tail fitted to the largest tenth, if that is larger.

    Parameters
    ----------
    values
        Need of each sample ``(samples,)``, at least 0.
    level
        Between 0 and 1.

    References
    ----------
    .. [1] V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World", Springer 2005,
       doi:10.1007/b106715.
    """
    ordered = np.sort(values)
    place = int(np.ceil((len(ordered) + 1) * level))
    if place <= len(ordered):
        return float(ordered[place - 1])
    start = float(np.quantile(ordered, 1 - _TAIL))
    excess = ordered[ordered > start] - start
    if not len(excess):
        return float(ordered[-1])
    extrapolated = start + float(excess.mean()) * np.log(len(excess) / len(ordered) / (1 - level))
    return max(float(ordered[-1]), float(extrapolated))
