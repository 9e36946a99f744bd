"""Times of calls that take turns."""

import statistics
from collections.abc import Callable
from functools import partial
from itertools import islice

from hmatrix._support.clock import in_turns, mean_seconds
from hmatrix.cli.arguments import at_least

rounds = at_least(2, "rounds")
"""Rounds of a command line: fewer of them have no quartiles."""


def times(
    calls: dict[str, Callable[[], object]], count: int, *, unit: float = 1e-3, digits: int = 1, repeats: int = 1
) -> str:
    """Return medians and quartiles of calls that take turns, in units of so many seconds.

    Each is called once before, and as often as `repeats` in each of `count` rounds.
    """
    for call in calls.values():
        call()
    taken = list(islice(in_turns([partial(mean_seconds, call, repeats) for call in calls.values()]), count))
    found = [[value / unit for value in statistics.quantiles(values, n=4)] for values in zip(*taken, strict=True)]
    return ", ".join(
        f"{name} {middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"
        for name, (low, middle, high) in zip(calls, found, strict=True)
    )
