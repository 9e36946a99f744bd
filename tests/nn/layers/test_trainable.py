"""Coefficients as parameters, and packed again."""

import copy

import numpy as np
import pytest
from marks import slow
from matrices import leaf, stored
from trained import batch, both_activations, every_kind, layer_of, matrix, n, same_bits

import hmatrix as hm
from hmatrix.codes.precision import Precision
from hmatrix.errors import ArgumentError, NetworkError
from hmatrix.packed.packing import pack

torch = pytest.importorskip("torch")
hnn = pytest.importorskip("hmatrix.nn")


@every_kind
@both_activations
@pytest.mark.parametrize("group", [0, 7])
@pytest.mark.parametrize("seed", [1, 2])
def test_packed_again_without_training(kind, quantized, group, seed):
    H = matrix(kind, quantized, group, seed)
    layer = hnn.trainable(layer_of(H))
    assert isinstance(layer.weight, hnn.TrainableWeight)
    same_bits(layer.matrix, H)
    hnn.freeze(layer)
    assert isinstance(layer.weight, hnn.HWeight)
    same_bits(layer.matrix, H)


@every_kind
@both_activations
@pytest.mark.parametrize("leading", [(), (4,), (2, 0), (2, 3)], ids=str)
def test_the_forward_pass_is_that_of_deployment(kind, quantized, leading):
    H = matrix(kind, quantized)
    layer = layer_of(H)
    x = batch(*leading, n, dtype=layer.weight.dtype)
    expected = layer(x)
    actual = hnn.trainable(layer)(x)
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    # With int8 activations an entry of t may lie between two codes: one step of 1 / 127.
    bound = (0.01 if quantized else 3e-6) * expected.abs().max() if expected.numel() else 0
    assert ((actual - expected).abs() <= bound).all()


@every_kind
@both_activations
def test_what_training_changes_is_what_is_deployed(kind, quantized):
    layer, x = hnn.trainable(layer_of(matrix(kind, quantized))), batch(8, n)
    before = layer(x.to(layer.weight.dtype)).detach()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3)
    layer(x.to(layer.weight.dtype)).square().mean().backward()
    optimizer.step()
    after = layer(x.to(layer.weight.dtype)).detach()
    assert not torch.equal(after, before)
    assert after.square().mean() < before.square().mean()
    frozen = hnn.freeze(copy.deepcopy(layer))
    bound = (0.02 if quantized else 1e-5) * after.abs().max()
    assert ((frozen(x.to(layer.weight.dtype)) - after).abs() <= bound).all()
    assert not list(frozen.weight.parameters())


@every_kind
@pytest.mark.parametrize("leading", [(), (4,), (2, 0), (2, 3)], ids=str)
def test_products_with_the_decoded_matrix(kind, leading):
    layer = layer_of(matrix(kind))
    x = batch(*leading, n, dtype=layer.weight.dtype)
    expected = layer(x)
    hnn.trainable(layer, dense=True)
    np.testing.assert_allclose(layer.weight.to_dense().detach(), matrix(kind).to_dense(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_a_matrix_of_rank_zero_is_decoded():
    H = hm.HMatrix(pack((9, 11), stored([leaf((0, 9), (0, 11), 0, np.random.default_rng(0))], [Precision.INT8], (0,))))
    assert not hnn.trainable(hnn.HWeight(H), dense=True).multiply(batch(2, 11)).any()


def test_shared_weights_stay_shared():
    first = layer_of(matrix("int8"))
    network = torch.nn.ModuleList([first, torch.nn.Sequential(hnn.HLinear(first.weight))])
    assert hnn.trainable(network) is network
    assert isinstance(first.weight, hnn.TrainableWeight)
    assert network[1][0].weight is first.weight
    hnn.freeze(network)
    assert network[1][0].weight is first.weight
    assert isinstance(first.weight, hnn.HWeight)


def test_a_weight_alone():
    weight = hnn.HWeight(matrix("int8"))
    other = hnn.trainable(weight)
    assert isinstance(other, hnn.TrainableWeight)
    same_bits(hnn.freeze(other).matrix, weight.matrix)
    other.factors[0][0].latent.data.zero_()
    same_bits(weight.matrix, matrix("int8"))


def test_nothing_to_do():
    for function, name in ((hnn.trainable, "HWeight"), (hnn.freeze, "TrainableWeight")):
        with pytest.raises(ArgumentError, match=f"module: has no {name} in it"):
            function(torch.nn.Linear(2, 2))


def test_errors():
    layer = layer_of(matrix("int8"))
    with pytest.raises(NetworkError, match="is on the meta device"):
        hnn.trainable(copy.deepcopy(layer).to("meta"))
    hnn.trainable(layer)
    with pytest.raises(ArgumentError, match=r"^x: has the shape"):
        layer(batch(2, n + 1))
    factor = layer.weight.factors[0][0]
    latent = factor.latent.detach().clone()
    factor.latent.data[0] = float("inf")
    with pytest.raises(ArgumentError, match="latent: holds NaN or infinity"):
        hnn.freeze(layer)
    factor.latent.data = latent
    factor.gains.data.fill_(float("nan"))
    with pytest.raises(ArgumentError, match="data: have NaN"):
        hnn.freeze(layer)
    assert isinstance(layer.weight, hnn.TrainableWeight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(dtype):
    layer, x = hnn.trainable(layer_of(matrix("int4"))), batch(3, n)
    expected = layer(x)
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(layer(x), expected)
    assert torch.equal(layer(x.to(dtype)), layer(x.to(dtype).float()).to(dtype))
    assert layer.to(dtype)(x.to(dtype)).dtype == dtype
    layer.float()
    assert layer(x).dtype == torch.float32


def test_state_dict_of_training():
    layer, other = (hnn.trainable(layer_of(matrix("mixed"))) for _ in range(2))
    for parameter in layer.parameters():
        parameter.data.mul_(1.1)
    other.load_state_dict(layer.state_dict())
    x = batch(3, n)
    assert torch.equal(other(x), layer(x))
    same_bits(other.matrix, layer.matrix)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        slow("int4", "inductor"),
        ("trellis2", "aot_eager"),
        pytest.param("trellis2", "inductor", marks=pytest.mark.nightly),
    ],
)
def test_compiled(kind, backend):
    torch._dynamo.reset()
    layer, x = hnn.trainable(layer_of(matrix(kind, quantized=True))), batch(3, n)
    torch.testing.assert_close(torch.compile(layer, backend=backend)(x), layer(x))
