"""Times of calls that take turns."""

import statistics
import time
from collections.abc import Callable

from hmatrix.cli.arguments import at_least

rounds = at_least(2, "rounds")
"""Of a command line: of fewer there are no quartiles."""


def times(
    calls: dict[str, Callable[[], object]], count: int, *, unit: float = 1e-3, digits: int = 1, repeats: int = 1
) -> str:
    """Return medians and quartiles of calls that take turns, in units of so many seconds.

    Each is called once before, and as often as `repeats` in each of `count` rounds.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(count):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            taken[name].append((time.perf_counter() - start) / (repeats * unit))
    found = {name: statistics.quantiles(values, n=4) for name, values in taken.items()}
    return ", ".join(
        f"{name} {middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"
        for name, (low, middle, high) in found.items()
    )
