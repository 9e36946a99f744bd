"""Every public object of `hmatrix.nn` has examples in its docstring, and they give what they say."""

import pytest
import torch
from documented import examples_of, failures_of

import hmatrix.nn as hnn


def check(name, public):
    torch.manual_seed(0)
    assert examples_of(name, public), f"{name} has no examples"
    assert failures_of(name, public, torch=torch, hnn=hnn) == ""


@pytest.mark.parametrize("name", hnn.__all__)
def test_examples_give_what_they_say(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(name, getattr(hnn, name))


@pytest.mark.parametrize("name", ["HMatrixConfig", "HMatrixQuantizer", "carry"])
def test_examples_for_transformers_give_what_they_say(name):
    pytest.importorskip("transformers")
    from hmatrix.nn import huggingface

    assert name in huggingface.__all__
    check(name, getattr(huggingface, name))
