"""Encoders of text in Hugging Face folders as whole networks: half of the lines calibrate, the other half judge."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hmatrix._support.typing import Scores
from hmatrix.errors import DataError, NetworkError
from hmatrix.study.whole.judged import HELD_OUT, Judge, Whole

_BATCH = 16
_TOKENS = 128


def is_encoder(model: str) -> bool:
    """Return whether a name is that of a Hugging Face folder."""
    return (Path(model) / "config.json").is_file()


def open_encoder(folder: Path, data: Path | None) -> Whole:
    """Load an encoder, and split the lines of a text: even ones calibrate, odd ones judge.

    The score is 100 times the cosine of the mean state of a line with that of the original network.

    Raises
    ------
    NetworkError
        If the folder cannot be loaded.
    DataError
        If the text cannot be read, or has fewer than two lines.
    """
    from transformers import AutoModel

    try:
        module = AutoModel.from_pretrained(folder).float().eval()
    except Exception as error:  # anything that the library may raise
        raise NetworkError(f"model {folder}", f"cannot be loaded ({error})", "name a folder of transformers") from error
    architecture = {"transformers": str(folder)}
    if data is None:
        return Whole(module, architecture, None, None, None, None, encode)
    text = _read(folder, data)
    lines = [line for number, line in enumerate(text.even) if number % HELD_OUT != HELD_OUT // 2]
    return Whole(
        module,
        architecture,
        text.batches(text.even),
        _ShuffledLines(text, lines),
        text.batches(text.even[HELD_OUT // 2 :: HELD_OUT]),
        _judge(module, text.batches(text.odd)),
        encode,
    )


def bare_encoder(architecture: Mapping[str, Any]) -> nn.Module:
    """Build the network of a folder, its weights as the constructor makes them."""
    from transformers import AutoConfig, AutoModel

    folder = architecture["transformers"]
    try:
        config = AutoConfig.from_pretrained(folder)
    except Exception as error:  # anything that the library may raise
        raise NetworkError(f"model {folder}", f"cannot be loaded ({error})", "put the folder back") from error
    module: nn.Module = AutoModel.from_config(config)
    return module


def encode(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the mean of the tokens' last states, of length 1, ``(lines, dimension)``."""
    states: Tensor = model(**batch).last_hidden_state
    mask = batch["attention_mask"][:, :, None]
    return nn.functional.normalize((states * mask).sum(dim=1) / mask.sum(dim=1))


@dataclass(frozen=True)
class _Text:
    """Lines, and their tokenizer."""

    even: list[str]
    odd: list[str]
    tokenizer: Any

    def batches(self, lines: list[str]) -> list[dict[str, Tensor]]:
        parts = (lines[first : first + _BATCH] for first in range(0, len(lines), _BATCH))
        return [
            dict(self.tokenizer(part, padding=True, truncation=True, max_length=_TOKENS, return_tensors="pt"))
            for part in parts
        ]


@dataclass(frozen=True)
class _ShuffledLines:
    """Batches of lines, in a new order each time."""

    text: _Text
    lines: list[str]
    _rng: random.Random = field(default_factory=lambda: random.Random(0), init=False)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return iter(self.text.batches(self._rng.sample(self.lines, len(self.lines))))


def _read(folder: Path, data: Path) -> _Text:
    from transformers import AutoTokenizer

    try:
        lines = [line for line in data.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data {data}", f"cannot be read ({error})", "name a text with a sentence a line") from error
    if len(lines) < 2:
        raise DataError(f"data {data}", f"has {len(lines)} lines with text", "give at least two")
    return _Text(lines[::2], lines[1::2], AutoTokenizer.from_pretrained(folder))


def _judge(original: nn.Module, batches: list[dict[str, Tensor]]) -> Judge:
    def encoded(model: nn.Module) -> Tensor:
        with torch.inference_mode():
            return torch.cat([encode(model, batch) for batch in batches])

    reference = encoded(original)

    def scores(model: nn.Module) -> Scores:
        cosines = nn.functional.cosine_similarity(reference, encoded(model))
        return 100.0 * cosines.double().numpy().astype(np.float64)

    return Judge(f"100 cosine on {len(reference)} lines", scores)
