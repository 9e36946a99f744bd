"""Export to ONNX, run by ONNX Runtime."""

import warnings

import numpy as np
import pytest
from marks import slow
from matrices import random_leaves

import hmatrix as hm
from hmatrix.errors import NetworkError

torch = pytest.importorskip("torch")
HLinear = pytest.importorskip("hmatrix.nn").HLinear
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def export(module, x, path, dynamo):
    batch = {0: torch.export.Dim("batch")} if dynamo else {"x": {0: "batch"}}
    named = {"dynamic_shapes": (batch,), "verbose": False} if dynamo else {"dynamic_axes": batch}
    with warnings.catch_warnings():
        # The exporters warn of each other and of themselves.
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), path, dynamo=dynamo, input_names=["x"], **named)


def run(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def assert_same(actual, expected):
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


CODES = [precision.name.lower() for precision in hm.Precision if precision.is_integer]
KINDS = [
    (True, "float32", "exact"),
    (True, "trellis4p", "int8"),
    (False, "int4", "exact"),
    *(slow(True, precision, "exact") for precision in ("bfloat16", *CODES)),
    *(slow(True, precision, "int8") for precision in CODES if precision != "trellis4p"),
    *(slow(False, precision, "exact") for precision in ("float32", "bfloat16", "trellis2", "trellis3")),
    *(slow(False, precision, "int8") for precision in ("int8", "trellis1")),
]


def layer_of(shape, precision, activations, bias):
    H = hm.HMatrix.from_leaves(shape, random_leaves(shape, ranks=(None, 1, 4), dtype=np.float32, most=4))
    return HLinear(H.astype(precision, activations=activations), bias)


def check_export(network, folder, dynamo):
    x = torch.randn(5, 40)
    export(network.eval(), x, folder / "network.onnx", dynamo)
    model = onnx.load(folder / "network.onnx")
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert not model.functions
    with torch.no_grad():
        for size in (5, 2):
            assert_same(run(folder / "network.onnx", x[:size]), network(x[:size]))


@pytest.mark.parametrize(("dynamo", "precision", "activations"), KINDS)
def test_a_layer_in_standard_operators(tmp_path, dynamo, precision, activations):
    torch.manual_seed(0)
    check_export(layer_of((60, 40), precision, activations, torch.randn(60)), tmp_path, dynamo)


@pytest.mark.parametrize("dynamo", [False, True])
def test_a_network_in_standard_operators(tmp_path, dynamo):
    torch.manual_seed(0)
    first = layer_of((60, 40), "trellis4", "int8", torch.randn(60))
    second = layer_of((20, 60), "int4", "exact", None)
    check_export(torch.nn.Sequential(first, torch.nn.ReLU(), second), tmp_path, dynamo)


@pytest.mark.parametrize(
    ("precision", "most"),
    [
        slow("float32", 1.01),
        slow("bfloat16", 1.01),
        slow("int8", 1.02),
        ("int4", 1.03),
        slow("int2", 1.05),
        slow("trellis2", 1.05),
    ],
)
def test_the_file_is_as_small_as_the_matrix(tmp_path, precision, most):
    H = hm.quantize(np.random.default_rng(0).standard_normal((1000, 1280)), precision)
    layer, x = HLinear(H), torch.randn(3, 1280)
    export(layer, x, tmp_path / "layer.onnx", dynamo=True)
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert size <= most * H.storage().total + 10_000
    assert_same(run(tmp_path / "layer.onnx", x), layer(x))


def test_a_weight_that_was_never_prepared(tmp_path):
    layer = HLinear(hm.quantize(np.eye(4), "float32"))
    layer.weight._known = None
    with pytest.raises(Exception, match="call the network once, then export it") as caught:
        export(layer, torch.ones(1, 4), tmp_path / "layer.onnx", dynamo=False)
    assert isinstance(caught.value, NetworkError)
