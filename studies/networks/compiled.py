"""Time of torch.compile against eager, of one layer and of two whole networks, dense and with H-matrices.

All layers are rounded to int8 (a fourth of float32's storage), activations too. Networks without gradients, one input
at a time, one thread, alternating; medians and quartiles in microseconds.

    pip install 'hmatrix[dev]'
    python studies/networks/compiled.py [--rounds 40] [--subjects layer,layers,embedding,minilm-16,minilm-128,mobilenet]
"""

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable

import timm
import torch
from minilm import States, model_folder
from torch import Tensor, nn
from transformers import AutoModel

import hmatrix as hm
import hmatrix.nn as hnn

Inputs = tuple[Tensor, ...]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", default="layer,layers,embedding,minilm-16,minilm-128,mobilenet")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    hm.set_num_threads(1)
    torch.manual_seed(0)
    subjects: dict[str, Callable[[], tuple[nn.Module, Inputs]]] = {
        "layer": lambda: (nn.Linear(1280, 1000), (torch.randn(1, 1280),)),
        "layers": lambda: (nn.Sequential(*(nn.Linear(64, 64) for _ in range(20))), (torch.randn(1, 64),)),
        "embedding": lambda: (nn.Embedding(30_522, 384), (torch.arange(1000, 1016)[None],)),
        "minilm-16": lambda: sentence(16),
        "minilm-128": lambda: sentence(128),
        "mobilenet": lambda: (timm.create_model("mobilenetv2_100"), (torch.randn(1, 3, 224, 224),)),
    }
    for name in options.subjects.split(","):
        network, inputs = subjects[name]()
        dense = network.eval()
        torch._dynamo.reset()
        calls: dict[str, Callable[..., object]] = {}
        for kind, model in (("dense", dense), ("hmatrix", rounded(dense))):
            calls[f"{kind} eager"] = model
            calls[f"{kind} compiled"] = torch.compile(copy.deepcopy(model), fullgraph=True)
        print(f"{name}: {times(calls, inputs, options.rounds)}", flush=True)


def sentence(tokens: int) -> tuple[nn.Module, Inputs]:
    """Return the sentence encoder all-MiniLM-L6-v2 and a sentence."""
    ids = torch.arange(1000, 1000 + tokens)[None]
    return States(AutoModel.from_pretrained(model_folder(), add_pooling_layer=False)), (ids, torch.ones_like(ids))


def rounded(network: nn.Module) -> nn.Module:
    """Return a network with all linear layers, embeddings and convolutions of 1 x 1 rounded to int8."""
    root = nn.ModuleList([copy.deepcopy(network)])
    for parent in list(root.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.Linear):
                setattr(parent, name, hnn.HLinear.from_linear(module, matrix(module.weight)))
            elif isinstance(module, nn.Embedding):
                setattr(parent, name, hnn.HEmbedding.from_embedding(module, matrix(module.weight)))
            elif isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1:
                setattr(parent, name, hnn.HConv2d.from_conv(module, matrix(hnn.HConv2d.matrix_of(module))))
    return root[0]


def matrix(weight: Tensor) -> hm.HMatrix:
    """Round a weight to int8."""
    return hm.quantize(weight.detach().numpy(), "int8", activations="int8")


def times(calls: dict[str, Callable[..., object]], inputs: Inputs, rounds: int) -> str:
    """Time calls in turn; short ones are repeated within a round."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    with torch.no_grad():
        for call in calls.values():
            call(*inputs)
            call(*inputs)
        start = time.perf_counter()
        calls["hmatrix eager"](*inputs)
        repeats = max(1, int(2e-3 / (time.perf_counter() - start)))
        for _ in range(rounds):
            for name, call in calls.items():
                start = time.perf_counter()
                for _ in range(repeats):
                    call(*inputs)
                taken[name].append(1e6 * (time.perf_counter() - start) / repeats)
    found = {name: statistics.quantiles(values, n=4) for name, values in taken.items()}
    return ", ".join(f"{name} {middle:.1f} ({low:.1f}-{high:.1f})" for name, (low, middle, high) in found.items())


if __name__ == "__main__":
    main()
