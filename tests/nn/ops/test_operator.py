"""The product as an operator of torch: compiled, exported, traced, mapped, and on other devices."""

import copy

import numpy as np
import pytest

from hmatrix.errors import ArgumentError

torch = pytest.importorskip("torch")
HLinear = pytest.importorskip("hmatrix.nn").HLinear
from operands import batch, dense, m, matrix, n  # noqa: E402

from hmatrix.nn.ops.operator import linear, product  # noqa: E402
from hmatrix.nn.ops.prepared import PackedTensors  # noqa: E402


def network(precision="float32", activations="exact"):
    """Two layers with a nonlinearity between them."""
    torch.manual_seed(0)
    first = HLinear(matrix(precision, activations), torch.randn(m))
    return torch.nn.Sequential(
        first, torch.nn.GELU(), HLinear(matrix(precision, activations, 1, (20, m)), torch.randn(20))
    ).eval()


every_kind = pytest.mark.parametrize(
    ("precision", "activations"), [("float32", "exact"), ("bfloat16", "exact"), ("int8", "exact"), ("int4", "int8")]
)


@pytest.fixture(autouse=True)
def fresh():
    """Compilers count how often one function was compiled."""
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("precision", ["float64", "float32", "int8"])
def test_torch_checks_the_operator(precision, transposed):
    """Schema, autograd, shapes without data, and compilation with symbolic shapes."""
    H = matrix(precision)
    dtype = torch.float64 if precision == "float64" else torch.float32
    x = batch(3, m if transposed else n).to(dtype).requires_grad_()
    torch.library.opcheck(linear, (x, None, transposed, *PackedTensors.of(H), m, n))
    bias = batch(n if transposed else m).to(dtype).requires_grad_()
    torch.library.opcheck(linear, (x, bias, transposed, *PackedTensors.of(H), m, n))


@every_kind
@pytest.mark.parametrize("leading", [(), (5,), (2, 0), (2, 3)], ids=str)
def test_the_operator_is_the_product(precision, activations, leading):
    H = matrix(precision, activations)
    tensors = PackedTensors.of(H)
    x = batch(*leading, n)
    y = linear(x, None, False, *tensors, m, n)
    assert y.shape == (*leading, m)
    np.testing.assert_array_equal(y.reshape(-1, m), H.apply(x.reshape(-1, n).numpy()))
    for bias in (batch(m), batch(m).half(), batch(m).double(), batch(2 * m)[::2]):
        added = linear(x, bias, False, *tensors, m, n)
        assert torch.equal(added, y + bias)
        assert added.dtype == torch.promote_types(y.dtype, bias.dtype)
    back = linear(y, None, True, *tensors, m, n)
    np.testing.assert_array_equal(back.reshape(-1, n), H.T.apply(y.reshape(-1, m).numpy()))


@pytest.mark.parametrize("transposed", [False, True])
def test_derivatives_of_any_order(transposed):
    tensors = PackedTensors.of(matrix("float64"))
    x = batch(2, m if transposed else n).double().requires_grad_()
    bias = batch(n if transposed else m).double().requires_grad_()

    def product(x, bias):
        return linear(x, bias, transposed, *tensors, m, n)

    assert torch.autograd.gradcheck(product, (x, bias))
    assert torch.autograd.gradgradcheck(lambda x, bias: product(x, bias) ** 3, (x, bias))


@every_kind
def test_compiled_without_graph_break(precision, activations):
    net, x = network(precision, activations), batch(5, n)
    compiled = torch.compile(net, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), net(x))
    with torch.inference_mode():
        torch.testing.assert_close(compiled(x), net(x))


def test_what_a_compiled_network_computes_with():
    """Without gradients the product alone; the words tell the rest, whatever becomes of it."""
    layer, x = HLinear(matrix(), batch(m)), batch(2, n)
    graphs = []

    def backend(graph, inputs):
        graphs.append((graph.code, len(inputs)))
        return graph

    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    with torch.no_grad():
        assert torch.equal(compiled(x), layer(x))
        assert "hmatrix.product" in graphs[0][0]
        assert graphs[0][1] == 3
        permutation = layer.weight.row_permutation
        permutation.copy_(permutation.roll(1))
        torch.testing.assert_close(compiled(x), x @ dense(layer).T + layer.bias)
        other = copy.deepcopy(layer)
        other.weight.words.view(torch.float32).mul_(2)
        layer.load_state_dict(other.state_dict())
        torch.testing.assert_close(compiled(x), x @ dense(layer).T + layer.bias)
        layer.weight.leaves[0] = 99
        with pytest.raises(ArgumentError, match=r"data|leaves"):
            compiled(x)
    assert len(graphs) == 1


def test_words_are_known_by_their_memory():
    layer, x = HLinear(matrix()), batch(2, n)
    words = layer.weight.words
    assert torch.equal(product(x, None, words.detach(), m, n), layer(x))
    with pytest.raises(ArgumentError, match="words: are a copy"):
        product(x, None, words.clone(), m, n)
    with pytest.raises(ArgumentError, match="x: has the shape"):
        product(x[:, 1:], None, words, m, n)


def test_compiled_with_frozen_weights():
    net, x = network("int8"), batch(5, n)
    with torch.no_grad(), torch._inductor.config.patch(freezing=True):
        torch.testing.assert_close(torch.compile(net, fullgraph=True)(x), net(x))


def test_compiled_and_mapped():
    layer, x = HLinear(matrix("float64"), batch(m)), batch(4, 3, n).double()
    for mode in (torch.no_grad, torch.enable_grad):
        with mode():
            mapped = torch.func.vmap(lambda x: layer(x), in_dims=1)
            torch.testing.assert_close(torch.compile(mapped, backend="aot_eager", fullgraph=True)(x), mapped(x))


@pytest.mark.parametrize("wanted", [False, True])
def test_compiled_with_gradients_of_the_input_alone(wanted):
    layer, x = HLinear(matrix("float64")), batch(4, n).double().requires_grad_(wanted)
    y = torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(y, layer(x))
    assert y.requires_grad is wanted
    if wanted:
        y.sum().backward()
        torch.testing.assert_close(x.grad, dense(layer).sum(dim=0).expand(4, n))


def test_gradients_of_the_compiled_network():
    net = network("int8")
    gradients = []
    for module in (net, torch.compile(net, fullgraph=True)):
        net.zero_grad()
        x = batch(5, n).requires_grad_()
        module(x).square().sum().backward()
        gradients.append((x.grad, *(parameter.grad for parameter in net.parameters())))
    for expected, actual in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@every_kind
@pytest.mark.parametrize("strict", [False, True])
def test_exported_and_loaded_again(precision, activations, strict, tmp_path):
    net, x = network(precision, activations), batch(5, n)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=strict)
    assert {"0.weight.words", "2.weight.leaves"} <= program.state_dict.keys()
    torch.export.save(program, tmp_path / "program.pt2")
    loaded = torch.export.load(tmp_path / "program.pt2").module()
    for size in (5, 3):
        torch.testing.assert_close(loaded(x[:size]), net(x[:size]))


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_traced():
    net, x = network("int8"), batch(5, n)
    traced = torch.jit.trace(net, x)
    assert "hmatrix::linear" in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x[:2]), net(x[:2]))


def test_traced_by_make_fx():
    from torch.fx.experimental.proxy_tensor import make_fx

    net, x = network(), batch(5, n)
    graph = make_fx(net, tracing_mode="real")(x)
    assert "hmatrix.linear" in graph.code
    torch.testing.assert_close(graph(2 * x), net(2 * x))


def test_mapped():
    layer = HLinear(matrix("float64"), batch(m))
    x = batch(4, 3, n).double()
    for dim in (0, 1):
        torch.testing.assert_close(torch.func.vmap(layer, in_dims=dim)(x), layer(x.movedim(dim, 0)))
    words, rest = torch.stack([layer.weight.words] * 4), PackedTensors.of(layer.matrix)[1:]
    with pytest.raises(ArgumentError, match="vmap: goes over the packed matrix"):
        torch.func.vmap(lambda x, words: linear(x, None, False, words, *rest, m, n))(x[:, 0], words)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(), (m + n,), (3, m + n)], ids=str)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_wrong_shapes(transposed, shape, device):
    tensors = [None if t is None else t.to(device) for t in PackedTensors.of(matrix())]
    with pytest.raises(ArgumentError, match=rf"^x: has the shape .*; give \(\.\.\., {m if transposed else n}\)"):
        linear(torch.zeros(shape, device=device), None, transposed, *tensors, m, n)


def test_functional_call():
    layer, other = HLinear(matrix("int8", seed=0)), HLinear(matrix("int8", seed=3))
    x = batch(2, n)
    torch.testing.assert_close(torch.func.functional_call(layer, other.state_dict(), x), other(x))
    torch.testing.assert_close(layer(x), HLinear(matrix("int8"))(x))


def test_shapes_without_data():
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        y = HLinear(matrix())(torch.empty(5, 7, n))
        assert (y.shape, type(y).__name__) == ((5, 7, m), "FakeTensor")
    assert HLinear(matrix("float64")).to("meta")(torch.empty(2, n, device="meta")).dtype == torch.float64
