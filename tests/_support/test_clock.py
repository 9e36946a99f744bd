from itertools import islice

import pytest

from hmatrix._support import clock
from hmatrix._support.clock import in_turns, mean_seconds


@pytest.fixture
def now(monkeypatch):
    """A clock that calls move."""
    moved = [0.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: moved[0])
    return moved


def moving(now, made, name, *seconds):
    """A call that takes so many seconds, the last ones ever after."""
    left = list(seconds)

    def call():
        made.append(name)
        now[0] += left.pop(0) if len(left) > 1 else left[0]

    return call


def test_the_mean_is_of_the_calls_that_are_timed(now):
    made = []
    assert mean_seconds(moving(now, made, "a", 9.0, 9.0, 1.0, 3.0), 2, before=2) == 2.0
    assert made == ["a"] * 4


def test_what_is_called_between_is_not_timed(now):
    made = []
    between = moving(now, made, "b", 5.0)
    assert mean_seconds(moving(now, made, "a", 1.0, 3.0), 2, between=between) == 2.0
    assert "".join(made) == "baba"


@pytest.mark.parametrize(("turning", "order"), [(False, "abcabcabc"), (True, "abcbcacab")])
def test_contenders_take_turns(turning, order):
    made = []
    contenders = [lambda number=number: made.append("abc"[number]) or float(number) for number in range(3)]
    assert list(islice(in_turns(contenders, turning=turning), 3)) == [[0.0, 1.0, 2.0]] * 3
    assert "".join(made) == order
