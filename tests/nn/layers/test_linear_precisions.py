"""`HLinear` in precisions other than float32 and float64."""

import copy

import numpy as np
import pytest

import hmatrix as hm

torch = pytest.importorskip("torch")
from hlinear import SHAPE, linear_of, m, make, n, random_tensor, state_of  # noqa: E402

from hmatrix.nn import HLinear  # noqa: E402

PRECISIONS = ["bfloat16", "int8", "int4", "int2"]


def quantized_layer(precision, activations, group=0):
    """A layer whose matrix was converted to another precision, the H-matrix before and after, and the bias."""
    H, _ = make(np.float32)
    other = H.astype(precision, activations=activations, group=group)
    bias = random_tensor(m, dtype=torch.float32, seed=1)
    return HLinear.from_matrix(other, bias), H, other, bias


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("activations", ["exact", "int8"])
@pytest.mark.parametrize("batch", [1, 9])
def test_products_in_other_precisions(precision, activations, batch):
    layer, _, other, bias = quantized_layer(precision, activations, group=8)
    x = random_tensor(batch, n, dtype=torch.float32)
    y = layer(x)
    assert y.dtype == torch.float32
    assert torch.equal(y, torch.from_numpy(other.apply(x.numpy())) + bias)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("activations", ["exact", "int8"])
@pytest.mark.parametrize("group", [0, 8])
def test_errors_stay_within_the_bound_of_quantisation(precision, activations, group):
    """Against a dense layer of torch: half a step of the weights, and half a step of the activations."""
    weight = random_tensor(m, n, dtype=torch.float32)
    linear = linear_of(weight, random_tensor(m, dtype=torch.float32, seed=1))
    matrix = hm.quantize(weight.numpy(), precision, activations=activations, group=group)
    x = random_tensor(9, n, dtype=torch.float32, seed=2)
    error = (HLinear.from_linear(linear, matrix)(x) - linear(x)).double()
    stored = torch.from_numpy(matrix.to_dense()).double()
    bound = x.abs().double() @ (stored - weight).abs().T
    if activations == "int8" and precision != "bfloat16":
        steps = x.abs().amax(dim=1, keepdim=True).double() / 127
        bound = bound + steps / 2 * stored.abs().sum(dim=1)
    assert (error.abs() <= 1.001 * bound + 1e-4).all()
    # The weights themselves, relative to the dense layer's.
    largest = {"bfloat16": 2.0**-8, "int8": 0.01, "int4": 0.15, "int2": 0.45}[precision]
    assert (stored - weight).norm() <= largest * weight.double().norm()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("activations", ["exact", "int8"])
def test_state_dict_through_safetensors(tmp_path, precision, activations):
    safetensors = pytest.importorskip("safetensors.torch")
    layer, _, other, _ = quantized_layer(precision, activations)
    safetensors.save_file(layer.state_dict(), tmp_path / "layer")
    empty = HLinear.from_matrix(hm.quantize(np.zeros(SHAPE), "float64"), torch.zeros(m)).float()
    empty.load_state_dict(safetensors.load_file(tmp_path / "layer"))
    x = random_tensor(5, n, dtype=torch.float32)
    assert torch.equal(empty(x), layer(x))
    assert empty.matrix.activations is other.activations
    assert {leaf.precision for leaf in empty.matrix.leaves()} == {hm.Precision.of(precision)}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_copies_in_other_precisions(precision):
    layer, *_ = quantized_layer(precision, "int8")
    x = random_tensor(5, n, dtype=torch.float32)
    expected = layer(x)
    other = copy.deepcopy(layer)
    assert torch.equal(other(x), expected)
    other.load_state_dict(state_of(seed=1, dtype=np.float32, bias=torch.zeros(m)))
    assert not torch.equal(other(x), expected)
    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("precision", ["float32", *PRECISIONS])
@pytest.mark.parametrize("activations", ["exact", "int8"])
@pytest.mark.parametrize("given", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("grad", [False, True])
def test_inputs_of_half_precision_are_computed_in_float32(precision, activations, given, grad):
    layer, *_ = quantized_layer(precision, activations)
    x = random_tensor(3, n, dtype=given, grad=grad)
    y = layer(x)
    assert torch.equal(y, layer(x.float()).to(given))
    if grad:
        y.sum().backward()
        assert x.grad.dtype == given


@pytest.mark.parametrize("precision", PRECISIONS)
def test_gradients_in_other_precisions_are_those_of_exact_activations(precision):
    gradients = []
    for activations in ("exact", "int8"):
        layer, _, other, _ = quantized_layer(precision, activations)
        x = random_tensor(3, n, dtype=torch.float32, grad=True)
        layer(x).sum().backward()
        gradients.append(x.grad)
        expected = torch.from_numpy(other.to_dense()).sum(dim=0).expand(3, n)
        torch.testing.assert_close(x.grad, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_conversions_leave_other_precisions_alone(precision):
    layer, _, other, _ = quantized_layer(precision, "int8")
    words = other.pack().data.ctypes.data
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        layer.to(dtype)
        assert (layer.bias.dtype, layer.weight.words.dtype) == (dtype, torch.int32)
        assert layer.weight.words.data_ptr() == words
