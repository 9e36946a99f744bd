"""Encoders of text in Hugging Face folders as whole networks: half of the lines calibrate, the other half judge."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hmatrix.errors import DataError, NetworkError
from hmatrix.study.whole import Judge, Scores, Whole

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
        return Whole(module, architecture, None, None, encode)
    batches = _read(folder, data)
    return Whole(module, architecture, batches[0], _judge(module, batches[1]), encode)


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


def _read(folder: Path, data: Path) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    from transformers import AutoTokenizer

    try:
        lines = [line for line in data.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data {data}", f"cannot be read ({error})", "name a text with a sentence a line") from error
    if len(lines) < 2:
        raise DataError(f"data {data}", f"has {len(lines)} lines with text", "give at least two")
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def batches(texts: list[str]) -> list[dict[str, Tensor]]:
        parts = (texts[first : first + _BATCH] for first in range(0, len(texts), _BATCH))
        return [
            dict(tokenizer(part, padding=True, truncation=True, max_length=_TOKENS, return_tensors="pt"))
            for part in parts
        ]

    return batches(lines[::2]), batches(lines[1::2])


def _judge(original: nn.Module, batches: list[dict[str, Tensor]]) -> Judge:
    def encoded(model: nn.Module) -> Tensor:
        with torch.inference_mode():
            return torch.cat([encode(model, batch) for batch in batches])

    reference = encoded(original)

    def scores(model: nn.Module) -> Scores:
        cosines = nn.functional.cosine_similarity(reference, encoded(model))
        return 100.0 * cosines.double().numpy().astype(np.float64)

    return Judge(f"100 cosine on {len(reference)} lines", scores)
