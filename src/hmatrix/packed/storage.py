"""Bytes of a matrix, or of a head, by part."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Storage:
    """Bytes of a matrix by part.

    Parameters
    ----------
    near_field, far_field
        Bytes of the dense leaves, and of the factors of the low-rank ones, with their scales.
    index
        Bytes of everything else that the product needs: the table of leaves, the schedule, permutations.
    uncompressed
        Bytes of the dense matrix in float64, for one with coefficients of float64, else in float32.

    Examples
    --------
    >>> storage = hm.quantize(np.random.default_rng(0).standard_normal((256, 256)), "int8").storage()
    >>> storage.uncompressed, storage.total < 0.26 * storage.uncompressed
    (262144, True)
    """

    near_field: int
    far_field: int
    index: int
    uncompressed: int

    @property
    def total(self) -> int:
        """All bytes that the product needs."""
        return self.near_field + self.far_field + self.index

    @property
    def ratio(self) -> float:
        """`total` as a fraction of `uncompressed`."""
        return self.total / self.uncompressed
