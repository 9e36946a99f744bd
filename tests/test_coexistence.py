import re

import pytest

from hmatrix.errors import ArgumentError
from hmatrix.study import coexistence


def test_every_call_is_counted_in_its_own_way(monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(coexistence.time, "perf_counter", lambda: next(clock))
    made = []
    found = coexistence.measure({"a": lambda: made.append("a"), "b": lambda: made.append("b")}, rounds=2, calls=3)
    assert "".join(made) == "aaabbbababab" * 2
    assert found == {"a": (1.0, 1.0), "b": (1.0, 1.0)}


def test_slow_turns_are_told_apart(monkeypatch):
    now = 0.0
    last = None

    def product(name):
        def call():
            nonlocal now, last
            now += 1.0 if name == last else 2.0  # dearer after the other
            last = name

        return call

    monkeypatch.setattr(coexistence.time, "perf_counter", lambda: now)
    found = coexistence.measure({"a": product("a"), "b": product("b")}, rounds=3, calls=5)
    assert found == {"a": (1.0, 2.0), "b": (1.0, 2.0)}


def test_the_command_prints_both(monkeypatch, capsys):
    monkeypatch.setattr(coexistence, "ROWS", 64)
    monkeypatch.setattr(coexistence, "COLUMNS", 32)
    assert coexistence.main(["--threads", "2", "--rounds", "1"]) == 0
    rows = re.findall(r"^\| (.+?) \| \d+ \| \d+ \| \d+\.\d\d \|$", capsys.readouterr().out, re.MULTILINE)
    assert rows == ["hmatrix int8", "torch float32"]


def test_no_rounds():
    with pytest.raises(ArgumentError, match="rounds"):
        coexistence.main(["--rounds", "0"])
