import os
import sys

import pytest

from hmatrix.errors import BackendError
from hmatrix.study.bench import instructions
from hmatrix.study.bench.instructions import SUPPORTED, count_instructions

counts = pytest.mark.skipif(not SUPPORTED, reason="needs Linux on x86-64")


@counts
def test_counts_are_those_of_the_call():
    words = list(range(1000))
    short, long = count_instructions(lambda: sum(words[:100])), count_instructions(lambda: sum(words))
    assert 0 < short < long
    # One addition takes a handful of instructions.
    assert 2 * 900 < long - short < 100 * 900


@counts
def test_nothing_takes_no_instructions():
    assert abs(count_instructions(lambda: None)) < 100


@counts
def test_processors_are_given_back():
    before = os.sched_getaffinity(0)
    count_instructions(lambda: None)
    assert os.sched_getaffinity(0) == before


@counts
def test_a_call_that_fails():
    with pytest.raises(BackendError, match="the call ended with status"):
        count_instructions(lambda: 1 / 0)


def test_systems_without_ptrace(monkeypatch):
    monkeypatch.setattr(instructions, "SUPPORTED", False)
    with pytest.raises(BackendError, match=f"cannot be counted on {sys.platform}"):
        count_instructions(lambda: None)
