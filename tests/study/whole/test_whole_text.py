"""How the lines of a text are divided; the library of encoders is not needed for that."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from hmatrix.errors import DataError
from hmatrix.study.whole.whole_text import open_encoder


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(200, 4)

    def forward(self, input_ids, attention_mask):  # noqa: ARG002
        return SimpleNamespace(last_hidden_state=self.embedding(input_ids))


class Tokenizer:
    """A line ``line 17`` is the token 17."""

    def __call__(self, texts, **_):
        tokens = torch.tensor([[int(text.split()[1])] for text in texts])
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


@pytest.fixture(autouse=True)
def library(monkeypatch):
    module = ModuleType("transformers")
    module.AutoModel = SimpleNamespace(from_pretrained=lambda _: Encoder())
    module.AutoTokenizer = SimpleNamespace(from_pretrained=lambda _: Tokenizer())
    monkeypatch.setitem(sys.modules, "transformers", module)


def lines(batches):
    return torch.cat([batch["input_ids"].flatten() for batch in batches]).tolist()


def test_lines_calibrate_train_and_judge(tmp_path):
    (tmp_path / "text").write_text("\n\n".join(f"line {number}" for number in range(100)))
    whole = open_encoder(tmp_path, tmp_path / "text")
    even = list(range(0, 100, 2))
    assert lines(whole.calibration) == even
    held_out, first, second = lines(whole.held_out), lines(whole.training), lines(whole.training)
    assert len(held_out) == 6
    assert sorted(held_out + first) == even
    assert sorted(first) == sorted(second)
    assert first != second
    assert whole.judge.name == "100 cosine on 50 lines"
    assert (whole.judge.scores(whole.module) > 99.99).all()


def test_without_a_text_nothing_is_divided(tmp_path):
    whole = open_encoder(tmp_path, None)
    assert whole.calibration is whole.training is whole.held_out is whole.judge is None


def test_a_text_has_two_lines(tmp_path):
    (tmp_path / "text").write_text("one line\n")
    with pytest.raises(DataError, match="has 1 lines with text"):
        open_encoder(tmp_path, tmp_path / "text")
