"""A user's budget."""

from dataclasses import dataclass, fields

from hmatrix._support.checks import check_integer, check_number
from hmatrix.errors import ArgumentError


@dataclass(frozen=True)
class Budget:
    """The largest cost that a matrix may have; everything else follows from it.

    One of these is given, or `time` with `storage` or `bytes`: then both are kept.

    Parameters
    ----------
    storage
        Bytes of everything that the product needs, as a fraction of the dense matrix in float32.
    bytes
        The same in bytes.
    time
        Seconds of a product with one vector on one thread, as a fraction of those of the fastest dense
        float32 product, both by a model of this machine.
    max_drop
        Largest drop of a score below that of the dense matrix, in the units of the score: points of top-1 accuracy,
        mostly.

    Raises
    ------
    ArgumentError
        If none of them is given, two that do not go together, or one that is out of range.

    Examples
    --------
    >>> hm.Budget(storage=0.25)
    Budget(storage=0.25, bytes=None, time=None, max_drop=None)
    >>> hm.Budget(storage=0.25, time=0.5).bounds_bytes
    True
    """

    storage: float | None = None
    bytes: int | None = None
    time: float | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        given = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        if len(given) != 1 and given not in (["storage", "time"], ["bytes", "time"]):
            came = f"has {' and '.join(given)}" if given else "is empty"
            mend = "give one of storage, bytes, time and max_drop, or time with storage or bytes"
            raise ArgumentError("budget", came, mend)
        if self.storage is not None:
            check_number("storage", self.storage, above=0.0)
        if self.bytes is not None:
            check_integer("bytes", self.bytes, at_least=1)
        if self.time is not None:
            check_number("time", self.time, above=0.0)
        if self.max_drop is not None:
            check_number("max_drop", self.max_drop, at_least=0.0)

    @property
    def bounds_bytes(self) -> bool:
        """Whether it bounds the bytes."""
        return self.storage is not None or self.bytes is not None
