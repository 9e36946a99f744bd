"""The shortest way from tensors to the kernel: taken where it may be, and nowhere else."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.nn.utils import parametrize, prune  # noqa: E402

import hmatrix as hm  # noqa: E402
import hmatrix.nn as hnn  # noqa: E402
from hmatrix.errors import ArgumentError  # noqa: E402
from hmatrix.nn.ops import shortcut  # noqa: E402

M, N = 12, 7

pytestmark = pytest.mark.skipif(shortcut._EXCHANGE is None, reason="this release of torch offers no exchange in C")


@pytest.fixture
def layer():
    weight = np.random.default_rng(0).standard_normal((M, N)).astype(np.float32)
    return hnn.HLinear(hm.quantize(weight, "float32"), torch.arange(M).float()).eval()


def short(layer, x, bias=None):
    """What the shortest way gives."""
    weight = layer.weight
    way = weight.prepared().shortcut
    return way(x, layer.bias if bias is None else bias, weight._buffers)


@pytest.mark.parametrize("leading", [(), (1,), (5,), (0,), (2, 0), (2, 3), (1, 2, 1, 3)])
def test_it_is_the_product(layer, leading):
    x = torch.randn(*leading, N)
    with torch.no_grad():
        y = short(layer, x)
        expected = x.double() @ torch.from_numpy(layer.matrix.to_dense()).double().T + layer.bias
    assert type(y) is torch.Tensor
    assert y.shape == (*leading, M)
    assert y.is_contiguous()
    torch.testing.assert_close(y, expected.float())
    y += 1  # its memory is its own
    torch.testing.assert_close(y, expected.float() + 1)


def test_no_bias(layer):
    bare = hnn.HLinear(layer.matrix)
    x = torch.randn(3, N)
    with torch.no_grad():
        torch.testing.assert_close(short(bare, x), layer(x) - layer.bias)


def test_results_outlive_the_layer():
    weight = np.eye(M, N, dtype=np.float32)
    x = torch.randn(1000, N)
    with torch.inference_mode():
        results = [hnn.HLinear(hm.quantize(weight, "float32"))(x) for _ in range(20)]
    for y in results:
        assert y.is_inference()
        torch.testing.assert_close(y[:, :N], x)


INPUTS = {
    "wrong width": lambda: torch.randn(3, N + 1),
    "float64": lambda: torch.randn(3, N, dtype=torch.float64),
    "float16": lambda: torch.randn(3, N, dtype=torch.float16),
    "integers": lambda: torch.randint(3, (3, N)),
    "transposed": lambda: torch.randn(N, 3).T,
    "every other row": lambda: torch.randn(6, N)[::2],
    "negated": lambda: torch._neg_view(torch.randn(3, N)),
    "meta": lambda: torch.randn(3, N, device="meta"),
    "sparse": lambda: torch.randn(3, N).to_sparse(),
    "to be differentiated": lambda: torch.randn(3, N, requires_grad=True),
    "a number": lambda: torch.tensor(1.0),
    "fake": lambda: FakeTensorMode().from_tensor(torch.randn(3, N)),
    "NumPy": lambda: np.ones((3, N), np.float32),
    "nothing": lambda: None,
}


@pytest.mark.parametrize("x", INPUTS)
def test_other_inputs_take_another_way(layer, x):
    layer.bias.requires_grad_(False)
    assert short(layer, INPUTS[x]()) is None


BIASES = {
    "wrong length": lambda: torch.randn(M + 1),
    "float64": lambda: torch.randn(M, dtype=torch.float64),
    "every other entry": lambda: torch.randn(2 * M)[::2],
    "negated": lambda: torch._neg_view(torch.randn(M)),
    "to be differentiated": lambda: torch.randn(M, requires_grad=True),
    "meta": lambda: torch.randn(M, device="meta"),
}


@pytest.mark.parametrize("bias", BIASES)
def test_other_biases_take_another_way(layer, bias):
    assert short(layer, torch.randn(3, N), BIASES[bias]()) is None


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_whoever_watches_torch_sees_an_operator(layer):
    layer.bias.requires_grad_(False)
    x = torch.randn(3, N)
    seen = []

    def look(x):
        seen.append(short(layer, x))
        return x

    plain = torch.randn(3, N)
    torch.vmap(lambda row: row + look(plain).sum())(x)
    torch.func.grad(lambda x: look(x).sum())(x)
    torch.jit.trace(look, x, check_trace=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        look(x)
    with FakeTensorMode(allow_non_fake_inputs=True):
        look(x)
    assert seen == [None] * 5
    assert short(layer, x) is not None


@pytest.mark.parametrize("name", ["words", "leaves", "quantized"])
def test_other_buffers_take_another_way(layer, name):
    x = torch.randn(3, N)
    way = layer.weight.prepared().shortcut
    buffers = layer.weight._buffers
    with torch.no_grad():
        assert way(x, None, buffers) is not None
        for other in ({**buffers, name: buffers[name].clone()}, {**buffers, name: None}, {}):
            assert way(x, None, other) is None
        if name != "words":
            buffers[name].copy_(buffers[name])
            assert way(x, None, buffers) is None


def test_a_bias_that_is_no_parameter(layer):
    x = torch.randn(3, N)
    bias = layer.bias.detach().clone()
    with torch.no_grad():
        expected = layer(x)
        parametrize.register_parametrization(layer, "bias", torch.nn.ReLU())
        torch.testing.assert_close(layer(x), expected - bias + bias.relu())
        parametrize.remove_parametrizations(layer, "bias")
        prune.l1_unstructured(layer, "bias", amount=M)
        torch.testing.assert_close(layer(x), expected - bias)


def test_releases_of_torch_without_it(layer, monkeypatch):
    x = torch.randn(3, N)
    with torch.no_grad():
        expected = layer(x)
        monkeypatch.setattr(shortcut, "_EXCHANGE", None)
        other = hnn.HLinear(layer.matrix, layer.bias.detach())
        assert other.weight.prepared().shortcut is None
        assert torch.equal(other(x), expected)


def test_no_exchange_of_another_kind(layer, monkeypatch):
    plan = layer.weight.prepared()._native
    monkeypatch.setattr(shortcut, "_EXCHANGE", object())
    with pytest.raises((TypeError, ValueError)):
        shortcut.shortcut_of(plan, 0, [])


@pytest.mark.parametrize("part", ["x", "bias"])
def test_tensors_whose_memory_is_gone_take_another_way(layer, part):
    x, bias = torch.randn(3, N), torch.randn(M)
    (x if part == "x" else bias).untyped_storage().resize_(0)
    assert short(layer, x, bias) is None
    with torch.no_grad(), pytest.raises(ArgumentError, match=f"{part}: has no memory"):
        layer.weight.multiply(x, bias)


def test_words_at_the_same_place_in_other_strides_are_others(layer):
    weight = layer.weight
    way, buffers = weight.prepared().shortcut, weight._buffers
    words = torch.zeros(2 * len(weight.words), dtype=torch.int32)
    words[::2] = weight.words
    with torch.no_grad():
        assert way(torch.randn(3, N), None, {**buffers, "words": words[::2]}) is None
        storage = words.new_empty(0).set_(weight.words.untyped_storage())
        strided = storage.as_strided((len(weight.words) // 2, 2), (1, 1))
        assert way(torch.randn(3, N), None, {**buffers, "words": strided}) is None
