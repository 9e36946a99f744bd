"""Progress bars, where tqdm is installed."""

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def shown(items: Iterable[T], what: str, *, enabled: bool, total: int | None = None) -> Iterable[T]:
    """Iterate with a progress bar, if one is wanted and tqdm is installed."""
    if not enabled:
        return items
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return items
    bar: Iterable[T] = tqdm(items, desc=what, total=total, delay=1)
    return bar
