"""Seconds of calls: of one alone, and of several that take turns, so that a slower machine slows all of them."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count


def mean_seconds(
    call: Callable[[], object], calls: int = 1, *, before: int = 0, between: Callable[[], object] | None = None
) -> float:
    """Return the mean seconds of some calls.

    Parameters
    ----------
    call
        Call that is timed.
    calls
        The number of calls that are timed.
    before
        The number of calls that go before them and are not timed.
    between
        Call that is made before each of them, not timed either; without it, they are timed as one.
    """
    for _ in range(before):
        call()
    if between is None:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls
    seconds = 0.0
    for _ in range(calls):
        between()
        start = time.perf_counter()
        call()
        seconds += time.perf_counter() - start
    return seconds / calls


def in_turns(contenders: Sequence[Callable[[], float]], *, turning: bool = False) -> Iterator[list[float]]:
    """Let contenders take turns, round after round without end, and yield the results of each round.

    Parameters
    ----------
    contenders
        Functions that return seconds, as `mean_seconds` does.
    turning
        Whether each round begins with the contender after the one that began the last, so that all have each place
        equally often; otherwise each always comes after the same other one.
    """
    for done in count():
        seconds = [0.0] * len(contenders)
        first = done % len(contenders) if turning else 0
        for number in (*range(first, len(contenders)), *range(first)):
            seconds[number] = contenders[number]()
        yield seconds
