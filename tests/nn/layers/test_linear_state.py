"""State dicts, copies and conversions of `HLinear`."""

import copy
import io

import numpy as np
import pytest
from matrices import with_entry

import hmatrix as hm

torch = pytest.importorskip("torch")
from hlinear import PARTS, TYPES, m, make, n, random_tensor, state_of  # noqa: E402

from hmatrix.nn import HLinear  # noqa: E402


def test_state_dict_is_the_packed_form():
    H, _ = make()
    layer = HLinear.from_matrix(H, torch.zeros(m))
    state, packed = layer.state_dict(), H.pack()
    assert set(state) == {"bias", *(f"weight.{part}" for part in PARTS)}
    state = {name.removeprefix("weight."): tensor for name, tensor in state.items()}
    np.testing.assert_array_equal(state["words"], packed.data)
    assert not state["quantized"]
    np.testing.assert_array_equal(state["leaves"], packed.leaves)
    np.testing.assert_array_equal(state["row_permutation"], packed.row_permutation)
    assert state["words"].data_ptr() == packed.data.ctypes.data


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("before", [False, True], ids=["to unpermuted", "to permuted"])
@pytest.mark.parametrize("after", [False, True], ids=["from unpermuted", "from permuted"])
@pytest.mark.parametrize("assign", [False, True])
def test_state_dict_round_trip(seed, before, after, assign):
    layer = HLinear.from_matrix(make(permuted=before)[0], torch.zeros(m))
    H, weight = make(seed=seed, permuted=after)
    bias = random_tensor(m)
    state = HLinear.from_matrix(H, bias).state_dict()
    assert layer.load_state_dict(state, assign=assign).missing_keys == []
    x = random_tensor(3, n)
    torch.testing.assert_close(layer(x), x @ weight.T + bias)
    torch.testing.assert_close(torch.from_numpy(layer.matrix.to_dense()), weight)
    for name, tensor in state.items():
        assert torch.equal(layer.state_dict()[name], tensor)


def test_state_dict_of_a_network():
    network = torch.nn.Sequential(torch.nn.ReLU(), HLinear.from_matrix(make()[0], torch.zeros(m)))
    H, weight = make(seed=1)
    other = torch.nn.Sequential(torch.nn.ReLU(), HLinear.from_matrix(H, random_tensor(m)))
    network.load_state_dict(other.state_dict())
    x = random_tensor(3, n)
    torch.testing.assert_close(network(x), other(x))
    torch.testing.assert_close(network(x), x.relu() @ weight.T + random_tensor(m))


@pytest.mark.parametrize("before", ["float64", "float32", "int4"])
@pytest.mark.parametrize("after", ["float64", "float32", "bfloat16", "int8", "int2"])
@pytest.mark.parametrize("assign", [False, True])
def test_a_state_of_another_precision(before, after, assign):
    layer = HLinear.from_matrix(make()[0].astype(before))
    H = make(seed=1)[0].astype(after, activations="int8")
    assert layer.load_state_dict(HLinear.from_matrix(H).state_dict(), assign=assign).missing_keys == []
    assert layer.matrix.dtype == H.dtype
    assert layer.matrix.activations is hm.Activations.INT8
    assert layer.weight.words.data_ptr() == layer.matrix.pack().data.ctypes.data
    x = random_tensor(3, n, dtype=torch.float32)
    assert torch.equal(layer(x), torch.from_numpy(H.apply(x.numpy())))


def test_what_is_loaded_is_a_copy():
    H, weight = make()
    layer = HLinear.from_matrix(H)
    state = layer.state_dict()
    layer.load_state_dict(state_of(seed=1))
    torch.testing.assert_close(torch.from_numpy(H.to_dense()), weight)
    assert torch.equal(state["weight.leaves"], torch.from_numpy(H.pack().leaves))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("leaves", with_entry((0, 0), 7), "data|leaves"),
        ("leaves", torch.Tensor.long, r"leaves: got torch.int64 on cpu; give a tensor of torch.int32"),
        ("leaves", lambda t: t[:, :5].clone(), "leaves: have the shape"),
        ("leaves", lambda t: t[:-1].clone(), "data|leaves"),
        ("words", with_entry(0, torch.nan), "words: have NaN"),
        ("words", lambda t: t[:-1].clone(), r"words: are .*of shape .*; give"),
        ("words", lambda t: t[:, None], r"words: are .*of shape"),
        ("words", torch.Tensor.int, r"words: are uint32 of shape .*; give float64"),
        (
            "words",
            torch.Tensor.float,
            r"words: got torch.float32 on cpu; give a tensor of torch.int32 or torch.float64",
        ),
        ("words", torch.Tensor.bfloat16, "words: got torch.bfloat16"),
        ("words", lambda t: t.to(torch.complex64), "words: got torch.complex64"),
        ("words", lambda t: t.to("meta"), "words: got torch.float64 on meta"),
        ("words", lambda t: t.numpy(), "words: got ndarray"),
        ("quantized", lambda t: t.repeat(2), r"quantized: has the shape \(2,\)"),
        ("quantized", torch.Tensor.int, "quantized: got torch.int32"),
        ("row_permutation", with_entry(0, 2**31 - 1), "row_permutation: is no permutation"),
        ("column_permutation", lambda t: t[:-1].clone(), "column_permutation: is int32"),
    ],
)
def test_bad_states(name, change, message):
    H, weight = make()
    network = torch.nn.Sequential(HLinear.from_matrix(H, torch.zeros(m)))
    state = state_of(bias=torch.ones(m))
    state[f"weight.{name}"] = change(state[f"weight.{name}"])
    with pytest.raises(RuntimeError, match=rf"\b0.weight: ({message})"):
        network.load_state_dict({f"0.{key}": tensor for key, tensor in state.items()})
    x = random_tensor(3, n)
    torch.testing.assert_close(network(x) - network[0].bias, x @ weight.T)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "keys",
    [["row_permutation"], ["words"], ["leaves", "column_permutation"], ["leaves", "words"], []],
    ids=str,
)
def test_a_part_of_a_weight_changes_nothing(strict, keys):
    H, weight = make()
    layer = HLinear.from_matrix(H)
    keys = {f"weight.{key}" for key in keys}
    state = {name: tensor + 1 for name, tensor in state_of().items() if name in keys}
    missing = {"weight.leaves", "weight.words", "weight.quantized"} - keys
    if strict:
        with pytest.raises(RuntimeError, match="Missing key") as caught:
            layer.load_state_dict(state)
        assert all(f'"{name}"' in str(caught.value) for name in missing)
    else:
        assert missing <= set(layer.load_state_dict(state, strict=False).missing_keys)
    x = random_tensor(3, n)
    torch.testing.assert_close(layer(x), x @ weight.T)
    torch.testing.assert_close(torch.from_numpy(H.to_dense()), weight)


def test_the_bias_alone():
    layer = HLinear.from_matrix(make()[0], torch.zeros(m))
    missing = layer.load_state_dict({"bias": torch.ones(m)}, strict=False).missing_keys
    assert set(missing) == {f"weight.{part}" for part in PARTS}
    assert torch.equal(layer.bias, torch.ones(m, dtype=torch.float64))


def test_a_missing_bias():
    layer = HLinear.from_matrix(make()[0], torch.zeros(m))
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "bias"\.'):
        layer.load_state_dict(state_of(permuted=False))


def test_unexpected_keys():
    layer = HLinear.from_matrix(make()[0])
    with pytest.raises(RuntimeError, match=r"Unexpected key.*weight"):
        layer.load_state_dict(state_of() | {"weight": torch.zeros(m, n)})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*bias"):
        layer.load_state_dict(state_of(bias=torch.zeros(m)))


@pytest.mark.parametrize("used", [False, True])
def test_deepcopy(used):
    H, weight = make()
    layer = HLinear.from_matrix(H, random_tensor(m))
    x = random_tensor(3, n)
    if used:
        layer(x)
    other = copy.deepcopy(layer)
    torch.testing.assert_close(other(x), layer(x))
    other.load_state_dict(state_of(seed=1, bias=torch.zeros(m)))
    torch.testing.assert_close(other(x), x @ make(seed=1)[1].T)
    torch.testing.assert_close(layer(x), x @ weight.T + random_tensor(m))


def test_pickle():
    H, weight = make()
    layer = HLinear.from_matrix(H, random_tensor(m))
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    other = torch.load(file, weights_only=False)
    x = random_tensor(3, n)
    torch.testing.assert_close(other(x), x @ weight.T + random_tensor(m))
    other.load_state_dict(state_of(seed=1, bias=torch.zeros(m)))
    torch.testing.assert_close(other(x), x @ make(seed=1)[1].T)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: layer.double().float()])
def test_coefficients_are_held_once(duplicate):
    layer = duplicate(HLinear.from_matrix(make(np.float32)[0]))
    assert layer.weight.words.data_ptr() == layer.matrix.pack().data.ctypes.data


@pytest.mark.parametrize("convert", [lambda layer: layer.double(), lambda layer: layer.to(torch.float64)])
def test_double(convert):
    H, weight = make(np.float32)
    layer = HLinear.from_matrix(H, torch.ones(m))
    assert convert(layer) is layer
    assert (layer.matrix.dtype, layer.weight.words.dtype, layer.bias.dtype) == (np.float64, *[torch.float64] * 2)
    assert layer.weight.leaves.dtype == layer.weight.row_permutation.dtype == torch.int32
    x = random_tensor(3, n)
    torch.testing.assert_close(layer(x), x @ weight.T.double() + 1, rtol=1e-5, atol=1e-5)
    assert H.dtype == np.float32


@pytest.mark.parametrize("given", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("of", TYPES)
def test_a_network_of_half_precision(given, of):
    """The bias is rounded, the weight is not."""
    H, weight = make(TYPES[of])
    network = torch.nn.Sequential(HLinear.from_matrix(H, random_tensor(m)), torch.nn.Linear(m, 2)).to(given)
    layer = network[0]
    assert (layer.bias.dtype, layer.matrix.dtype) == (given, np.float32)
    x = random_tensor(3, n, dtype=given)
    y = layer(x)
    assert (y.dtype, network(x).dtype) == (given, given)
    expected = x.float() @ weight.T.float() + layer.bias.detach().float()
    torch.testing.assert_close(y.float(), expected, rtol=2 * torch.finfo(given).eps, atol=1e-4)
    torch.testing.assert_close(torch.from_numpy(layer.float().matrix.to_dense()), weight.float())


def test_a_layer_of_what_was_read_from_a_file(tmp_path):
    H, weight = make()
    hm.save(H, tmp_path / "matrix")
    layer = HLinear.from_matrix(hm.load(tmp_path / "matrix"))
    torch.testing.assert_close(layer(torch.ones(n, dtype=torch.float64)), weight.sum(dim=1))
