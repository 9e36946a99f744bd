"""Every public object has examples in its docstring, and they give what they say."""

import pytest
from documented import examples_of, failures_of

import hmatrix as hm


@pytest.mark.parametrize("name", hm.__all__)
def test_examples_give_what_they_say(name, tmp_path, monkeypatch, threads):  # noqa: ARG001
    monkeypatch.chdir(tmp_path)
    assert examples_of(name, getattr(hm, name)), f"{name} has no examples"
    assert failures_of(name, getattr(hm, name)) == ""


def test_a_wrong_example_and_a_missing_one_are_found():
    def wrong():
        """Return a sum.

        >>> 1 + 1
        3
        """

    assert "Expected:\n    3\nGot:\n    2" in failures_of("wrong", wrong)
    assert examples_of("bare", lambda: None) == []
