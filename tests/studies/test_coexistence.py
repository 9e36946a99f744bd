import re

import pytest

from hmatrix._support import clock
from hmatrix.errors import ArgumentError
from studies import coexistence
from studies.coexistence import TimedProduct


@pytest.fixture
def now(monkeypatch):
    """A clock that products move."""
    moved = [0.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: moved[0])
    return moved


def test_a_product_is_compared_in_turns_with_a_reading_and_with_the_other(monkeypatch, now):
    made = []

    def product(name):
        def call():
            # Dearer after the other product than after a reading.
            now[0] += 1.0 if not made or made[-1] in ("r", name) else 3.0
            made.append(name)

        return call

    monkeypatch.setattr(coexistence, "read_words", lambda _: made.append("r"))
    products = (TimedProduct("a", product("a"), 400), TimedProduct("b", product("b"), 800))
    found = coexistence.measure(products, rounds=2, calls=5)
    assert "".join(made) == ("ar" * 5 + "br" * 5 + "ab" * 5) * 2
    assert found == {"a": (1.0, 3.0), "b": (1.0, 3.0)}


def test_a_reading_is_of_the_other_matrix(monkeypatch):
    read = []
    monkeypatch.setattr(coexistence, "read_words", lambda words: read.append(words.nbytes))
    coexistence.measure((TimedProduct("a", lambda: None, 400), TimedProduct("b", lambda: None, 800)), rounds=1, calls=1)
    assert read == [800, 400]


def test_the_command_prints_both(monkeypatch, capsys):
    monkeypatch.setattr(coexistence, "ROWS", 64)
    monkeypatch.setattr(coexistence, "COLUMNS", 32)
    assert coexistence.main(["--threads", "2", "--rounds", "1"]) == 0
    rows = re.findall(r"^\| (.+?) \| \d+ \| \d+ \| \d+\.\d\d \|$", capsys.readouterr().out, re.MULTILINE)
    assert rows == ["hmatrix int8", "torch float32"]


def test_no_rounds():
    with pytest.raises(ArgumentError, match="rounds"):
        coexistence.main(["--rounds", "0"])
