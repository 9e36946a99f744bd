"""Strips of a large matrix, so that no second array of its size is needed."""

from collections.abc import Iterator

_WIDTH = 256


def strips(length: int, width: int = _WIDTH) -> Iterator[slice]:
    """Iterate over ranges of `width` rows, or columns, that cover `length` of them; the last may end beyond."""
    return (slice(start, start + width) for start in range(0, length, width))
