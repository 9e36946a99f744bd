"""HLinear among other modules: devices, modes, hooks, workers, files."""

import copy
import io
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from matrices import permutation, random_leaves

import hmatrix as hm
from hmatrix.errors import ArgumentError, NetworkError

torch = pytest.importorskip("torch")
HLinear = pytest.importorskip("hmatrix.nn").HLinear

m, n = 40, 30


def matrix(precision="float32", activations="exact", seed=0):
    leaves = random_leaves((m, n), seed=seed, ranks=(None, 0, 1, 3))
    H = hm.HMatrix.from_leaves((m, n), leaves, permutation(m, seed), permutation(n, seed))
    return H.astype(precision, activations=activations)


def network(seed=0, precision="int8"):
    torch.manual_seed(seed)
    layer = HLinear(matrix(precision, seed=seed), torch.randn(m))
    return torch.nn.Sequential(layer, torch.nn.GELU(), torch.nn.Linear(m, 3))


def batch(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


# The meta device.


def test_moved_to_the_meta_device_and_back():
    net, x = network(), batch(2, n)
    state, expected = net.state_dict(), net(x)
    net = net.to("meta")
    assert all(tensor.is_meta for tensor in net.state_dict().values())
    assert net(x.to("meta")).shape == (2, 3)
    assert "on the meta device" in repr(net)
    with pytest.raises(NetworkError, match="HWeight: is on the meta device; load a state dict first"):
        _ = net[0].matrix
    net.load_state_dict(state, assign=True)
    assert net[0].weight.words is state["0.weight.words"]
    assert torch.equal(net(x), expected)


def test_made_on_the_meta_device():
    net, x = network(), batch(2, n)
    with torch.device("meta"):
        other = torch.nn.Sequential(HLinear.skeleton(n, m), torch.nn.GELU(), torch.nn.Linear(m, 3))
    assert all(tensor.is_meta for tensor in (*other.parameters(), *other.buffers()))
    with pytest.raises(RuntimeError, match=r"weight: weight: is on the meta device; load with assign=True"):
        HLinear.skeleton(n, m, bias=False).load_state_dict(HLinear(net[0].weight).state_dict())
    other.load_state_dict(net.state_dict(), assign=True)
    assert torch.equal(other(x), net(x))


@pytest.mark.parametrize("bias", [False, True])
def test_a_skeleton_on_the_cpu_is_zero(bias):
    layer = HLinear.skeleton(n, m, bias=bias, device="cpu")
    assert torch.equal(layer(batch(2, n)), torch.zeros(2, m))
    assert layer.matrix.storage().far_field == layer.matrix.storage().near_field == 0
    assert (layer.bias is not None) is bias


def test_memory_that_holds_nothing_yet():
    """`to_empty` leaves anything in the buffers; it is checked before it is used."""
    net, x = network(), batch(2, n)
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    expected = net(x)
    net.to("meta").to_empty(device="cpu")
    net[0].weight.leaves.fill_(-5)
    with pytest.raises(ArgumentError, match=r"data|leaves"):
        net(x)
    net.load_state_dict(state)
    assert torch.equal(net(x), expected)


def test_buffers_set_one_by_one():
    """As loaders of large models do."""
    net, other, x = network(), network(1), batch(2, n)
    for name, tensor in other[0].weight.named_buffers():
        setattr(net[0].weight, name, tensor)
    net[0].bias = other[0].bias
    assert torch.equal(net[0](x), other[0](x))


def test_shared_memory():
    net, x = network(), batch(2, n)
    expected = net(x)
    assert torch.equal(net.share_memory()(x), expected)
    assert net[0].weight.words.is_shared()
    assert net[0].weight.words.data_ptr() == net[0].matrix.pack().data.ctypes.data


# Modes.


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("grad", [False, True])
def test_autocast_gives_the_types_of_a_linear_layer(dtype, grad):
    net, x = network(), batch(2, n)
    linear = torch.nn.Linear(n, m)
    with torch.autocast("cpu", dtype), torch.set_grad_enabled(grad):
        assert net[0](x).dtype == linear(x).dtype == dtype
        assert net[0](x.double()).dtype == torch.float64
        assert net(x).dtype == dtype
        assert torch.equal(net[0](x), HLinear(net[0].matrix, net[0].bias).float().forward(x))
        with torch.autocast("cpu", enabled=False):
            exact = net[0](x)
        assert torch.equal(net[0](x), exact.to(dtype))


def test_hooks():
    net, x = network(), batch(2, n)
    expected, seen = net[0](x), []
    layer = net[0]
    layer.register_forward_pre_hook(lambda _, inputs: (2 * inputs[0],))
    layer.register_forward_hook(lambda _, __, output: seen.append(output) or output + 1)
    layer.register_full_backward_hook(lambda _, given, __: seen.append(given[0]))
    result = layer(x.requires_grad_())
    torch.testing.assert_close(result - layer.bias - 1, 2 * (expected - layer.bias))
    result.sum().backward()
    assert [tensor.shape for tensor in seen] == [(2, m), (2, n)]


def test_inference_mode_leaves_nothing_behind():
    layer, x = network()[0], batch(2, n)
    with torch.inference_mode():
        inside = layer(x)
        made = HLinear(matrix())
        assert inside.is_inference()
    for module in (layer, made):
        y = module(x.clone().requires_grad_())
        y.sum().backward()
    assert torch.equal(layer(x), inside)


def test_negated_views():
    """Their memory holds the numbers of the other sign."""
    layer, x = HLinear(matrix()), batch(2, n)
    negated = torch.complex(torch.zeros(2, n), -x).conj().imag
    assert negated.is_neg()
    with torch.inference_mode():
        torch.testing.assert_close(layer(negated.contiguous()), layer(x))
        torch.testing.assert_close(layer(negated), layer(x))
    dense = torch._neg_view(-x)
    assert dense.is_neg()
    assert dense.is_contiguous()
    torch.testing.assert_close(layer(dense), layer(x))


@pytest.mark.parametrize("change", [torch.Tensor.double, lambda b: b.repeat(2)[::2], lambda b: b[:-1]])
def test_a_bias_that_was_changed(change):
    layer, x = HLinear(matrix(), torch.randn(m)), batch(2, n)
    without = HLinear(layer.matrix)
    with torch.no_grad():
        bias = change(layer.bias.detach())
        layer.bias.data = bias
        if len(bias) == m:
            torch.testing.assert_close(layer(x), without(x) + bias)
        else:
            with pytest.raises(RuntimeError, match="must match the size"):
                layer(x)


KERNEL = """
import torch
import hmatrix as hm
from hmatrix.nn import HLinear
from test_linear_module import batch, m, matrix, n
layer, x = HLinear(matrix("int8", "int8"), torch.ones(m)), batch(2, n)
assert hm.backend().name == "numpy"
with torch.inference_mode():
    print((layer(x) - layer.matrix.apply(x.numpy()) - 1).abs().max().item())
"""


def test_the_kernel_of_the_environment_runs():
    """The reference takes arrays, not addresses."""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "HMATRIX_KERNEL": "numpy", "PYTHONPATH": paths}
    ended = subprocess.run([sys.executable, "-c", KERNEL], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < 1e-5


# Copies, workers, files.


class Products(torch.utils.data.Dataset):
    """Rows that a layer has multiplied in a worker."""

    def __init__(self, layer, x):
        self.layer, self.x = layer, x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        with torch.inference_mode():
            return self.layer(self.x[index]).clone()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_workers():
    layer, x = network()[0], batch(8, n)
    expected = layer(x).detach()
    loader = torch.utils.data.DataLoader(
        Products(layer, x), batch_size=4, num_workers=2, multiprocessing_context="fork"
    )
    torch.testing.assert_close(torch.cat(list(loader)), expected)


def test_copies_share_nothing():
    net, x = network(precision="float32"), batch(2, n)
    expected = net(x)
    other = copy.deepcopy(net)
    assert torch.equal(other(x), expected)
    other[0].weight.words.zero_()
    other[0].weight.row_permutation.copy_(torch.arange(m))
    assert torch.equal(net(x), expected)
    assert torch.equal(other[0](x), other[0].bias.expand(2, m))


@pytest.mark.parametrize("weights_only", [False, True])
def test_pickles(weights_only):
    """They hold tensors, which are checked when they are read."""
    net, x = network(), batch(2, n)
    file = io.BytesIO()
    torch.save(net, file)
    if weights_only:
        trusted = [*{type(module) for module in net.modules()}, set]
        with torch.serialization.safe_globals(trusted):
            other = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    else:
        other = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    assert torch.equal(other(x), net(x))


def test_safetensors(tmp_path):
    from safetensors.torch import load_model, save_model

    net, other, x = network(), network(1), batch(2, n)
    save_model(net, str(tmp_path / "net.safetensors"))
    assert load_model(other, str(tmp_path / "net.safetensors")) == (set(), [])
    assert torch.equal(other(x), net(x))


def test_layers_share_a_weight(tmp_path):
    from safetensors.torch import load_model, save_model

    def tied(seed):
        first = HLinear(matrix(seed=seed), torch.randn(m))
        return torch.nn.ModuleDict({"a": first, "b": HLinear(first.weight)})

    net, other, x = tied(0), tied(1), batch(2, n)
    for change in (lambda net: net, copy.deepcopy, lambda net: net.double().float(), lambda net: net.to("cpu")):
        changed = change(net)
        assert changed["a"].weight is changed["b"].weight
        assert torch.equal(changed["b"](x) + changed["a"].bias, changed["a"](x))
    save_model(net, str(tmp_path / "net.safetensors"))
    load_model(other, str(tmp_path / "net.safetensors"))
    assert torch.equal(other["b"](x), net["b"](x))


@pytest.mark.parametrize("strict", [False, True])
def test_hooks_of_loading_run(strict):
    layer, seen = network()[0], []
    layer.weight.register_load_state_dict_pre_hook(lambda *_: seen.append("pre"))
    layer.weight.register_load_state_dict_post_hook(lambda *_: seen.append("post"))
    layer.load_state_dict(layer.state_dict(), strict=strict)
    assert seen == ["pre", "post"]
