"""Two whole networks compressed, saved, loaded, exported and compiled: the largest difference of their outputs.

MobileNetV2 (pointwise convolutions and head) and the sentence encoder all-MiniLM-L6-v2 (linear layers and embeddings),
to a fourth of the storage, without calibration data: what is compared is always the compressed network with itself.
With exact activations, unless asked otherwise: rounded ones turn the last bits of other operators into steps.

    pip install 'hmatrix[dev]'
    HMATRIX_DATA=FOLDER python -m studies.networks.roundtrips [--networks mobilenet,minilm] [--activations int8]

FOLDER holds models/mobilenetv2_100.safetensors; without it MobileNetV2 has the weights of chance.
"""

import argparse
import copy
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import onnxruntime
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix.nn import huggingface
from studies.networks.minilm import States, model_folder
from studies.networks.mobilenet import pointwise

Inputs = tuple[Tensor, ...]
TIMM = {"pad_type": "same"}


class CompressedNetwork(NamedTuple):
    """A compressed network, inputs, how to build the network that was compressed, and transformers' way to a folder."""

    name: str
    model: nn.Module
    inputs: Inputs
    build: Callable[[], nn.Module]
    pretrained: Callable[[Path], nn.Module]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="mobilenet,minilm")
    parser.add_argument("--storage", type=float, default=0.25)
    parser.add_argument("--activations", choices=["exact", "int8"], default="exact")
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # exporters warn of each other
    logging.disable(logging.WARNING)
    subjects = {"mobilenet": mobilenet, "minilm": minilm}
    for name in options.networks.split(","):
        subject = subjects[name](options)
        print(f"\n{subject.name}", flush=True)
        with torch.no_grad():
            expected = subject.model(*subject.inputs)
            start = time.perf_counter()
            for way, found in round_trips(subject):
                difference = float((found - expected).abs().max() / expected.abs().max())
                seconds = time.perf_counter() - start
                print(f"  {way:34} {difference:.1e} of the largest output, {seconds:.1f} s", flush=True)
                start = time.perf_counter()


def round_trips(subject: CompressedNetwork) -> Iterator[tuple[str, Tensor]]:
    """Return the outputs of the network after each way there and back."""
    model, inputs = subject.model, subject.inputs
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        hnn.save(model, folder / "network.safetensors")
        yield "hmatrix.nn.save, load", hnn.load(folder / "network.safetensors", subject.build())(*inputs)
        yield "save_pretrained, from_pretrained", subject.pretrained(folder / "pretrained")(*inputs)
        torch.export.save(torch.export.export(model, inputs), folder / "program.pt2")
        yield "torch.export, saved and loaded", torch.export.load(folder / "program.pt2").module()(*inputs)
        names = [f"x{number}" for number in range(len(inputs))]
        for dynamo in (False, True):
            path = folder / f"network{dynamo}.onnx"
            torch.onnx.export(model, inputs, path, dynamo=dynamo, input_names=names, verbose=False)
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            arrays = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
            exporter = "torch.export" if dynamo else "TorchScript"
            yield f"ONNX Runtime, by {exporter}", torch.from_numpy(session.run(None, arrays)[0])
        yield "torch.compile without a break", torch.compile(model, fullgraph=True)(*inputs)


def mobilenet(options: argparse.Namespace) -> CompressedNetwork:
    """Return MobileNetV2 and one image of chance."""
    network = timm.create_model("mobilenetv2_100", **TIMM).eval()
    if folder := os.environ.get("HMATRIX_DATA"):
        network.load_state_dict(load_file(Path(folder) / "models" / "mobilenetv2_100.safetensors"))
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 4 - 2
    model = compressed(network, options, pointwise)

    def pretrained(folder: Path) -> nn.Module:
        config = TimmWrapperConfig(architecture="mobilenetv2_100", model_args=TIMM, num_labels=1000)
        wrapped = TimmWrapperForImageClassification(config)
        wrapped.timm_model = model
        huggingface.carry(wrapped)
        wrapped.save_pretrained(folder)
        return AutoModelForImageClassification.from_pretrained(folder).timm_model

    return CompressedNetwork(
        "MobileNetV2", model, (x,), lambda: timm.create_model("mobilenetv2_100", **TIMM), pretrained
    )


def minilm(options: argparse.Namespace) -> CompressedNetwork:
    """Return the sentence encoder and one sentence of 32 tokens."""
    encoder = AutoModel.from_pretrained(model_folder(), add_pooling_layer=False).eval()
    ids = torch.arange(1000, 1032)[None]
    # An exporter puts all modules back into the mode of the outermost one.
    model = States(compressed(encoder, options, lambda *_: True)).eval()

    def pretrained(folder: Path) -> nn.Module:
        model.model.save_pretrained(folder)
        return States(AutoModel.from_pretrained(folder))

    inputs = (ids, torch.ones_like(ids))
    return CompressedNetwork("all-MiniLM-L6-v2", model, inputs, lambda: States(copy.deepcopy(encoder)), pretrained)


def compressed(network: nn.Module, options: argparse.Namespace, select: Callable[[str, nn.Module], bool]) -> nn.Module:
    """Compress a network and tell its storage."""
    model, report = hnn.compress(
        network, hm.Budget(storage=options.storage), select=select, activations=options.activations, cache=options.cache
    )
    print(f"storage of the layers: {report.ratio:.1%}, {report.seconds:.0f} s")
    return model.eval()


if __name__ == "__main__":
    main()
