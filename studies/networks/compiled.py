"""Time of torch.compile against eager, of one layer and of two whole networks, dense and with H-matrices.

All layers are rounded to int8 (a fourth of float32's storage), activations too. Networks without gradients, one input
at a time, one thread, alternating; medians and quartiles in microseconds.

    pip install 'hmatrix[dev]'
    python -m studies.networks.compiled [--rounds 40] [--subjects layer,layers,embedding,minilm-16,minilm-128,mobilenet]
"""

import argparse
import copy
import warnings
from collections.abc import Callable
from functools import partial

import timm
import torch
from torch import Tensor, nn
from transformers import AutoModel

import hmatrix as hm
from hmatrix._support.clock import mean_seconds
from hmatrix._support.machine import threads
from hmatrix.nn.layers.weight import HWeight
from hmatrix.nn.network.kinds import kind_of, matrix_of
from hmatrix.nn.network.replacing import Successors, replaced
from studies.networks.minilm import States, model_folder
from studies.networks.mobilenet import pointwise
from studies.networks.turns import rounds, times

Inputs = tuple[Tensor, ...]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", default="layer,layers,embedding,minilm-16,minilm-128,mobilenet")
    parser.add_argument("--rounds", type=rounds, default=40)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    subjects: dict[str, Callable[[], tuple[nn.Module, Inputs]]] = {
        "layer": lambda: (nn.Linear(1280, 1000), (torch.randn(1, 1280),)),
        "layers": lambda: (nn.Sequential(*(nn.Linear(64, 64) for _ in range(20))), (torch.randn(1, 64),)),
        "embedding": lambda: (nn.Embedding(30_522, 384), (torch.arange(1000, 1016)[None],)),
        "minilm-16": lambda: sentence(16),
        "minilm-128": lambda: sentence(128),
        "mobilenet": lambda: (timm.create_model("mobilenetv2_100"), (torch.randn(1, 3, 224, 224),)),
    }
    with threads(1):
        for name in options.subjects.split(","):
            network, inputs = subjects[name]()
            dense = network.eval()
            torch._dynamo.reset()
            calls: dict[str, Callable[..., object]] = {}
            for kind, model in (("dense", dense), ("hmatrix", rounded(dense))):
                calls[f"{kind} eager"] = model
                calls[f"{kind} compiled"] = torch.compile(copy.deepcopy(model), fullgraph=True)
            print(f"{name}: {measured(calls, inputs, options.rounds)}", flush=True)


def sentence(tokens: int) -> tuple[nn.Module, Inputs]:
    """Return the sentence encoder all-MiniLM-L6-v2 and a sentence."""
    ids = torch.arange(1000, 1000 + tokens)[None]
    return States(AutoModel.from_pretrained(model_folder(), add_pooling_layer=False)), (ids, torch.ones_like(ids))


def measured(models: dict[str, Callable[..., object]], inputs: Inputs, count: int) -> str:
    """Time models in turn; short ones are repeated within a round."""
    calls = {name: partial(model, *inputs) for name, model in models.items()}
    with torch.no_grad():
        for call in calls.values():
            call()
        repeats = max(1, int(2e-3 / mean_seconds(calls["hmatrix eager"])))
        return times(calls, count, unit=1e-6, repeats=repeats)


def rounded(network: nn.Module) -> nn.Module:
    """Return a network with all linear layers, embeddings and convolutions of 1 x 1 rounded to int8."""
    made: Successors = {}
    for name, module in network.named_modules():
        if (kind := kind_of(module)) is not None and pointwise(name, module):
            weight = hm.quantize(matrix_of(module).numpy(), "int8", activations="int8")
            made[module] = kind.successor(module, HWeight(weight)).eval()
    return replaced(network, made)


if __name__ == "__main__":
    main()
