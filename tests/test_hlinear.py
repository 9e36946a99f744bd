import copy
import io

import numpy as np
import pytest
from matrices import assembled, permutation, random_leaves

import hmatrix as hm
from hmatrix.errors import ArgumentError

torch = pytest.importorskip("torch")
HLinear = pytest.importorskip("hmatrix.nn").HLinear

SHAPE = m, n = 40, 30


def make(dtype=np.float64, seed=0, permuted=True):
    """A random H-matrix and the same as a tensor."""
    leaves = random_leaves(SHAPE, dtype=dtype, seed=seed, ranks=(None, 0, 1, 3))
    permutations = [permutation(size, seed=seed) for size in SHAPE] if permuted else [None, None]
    H = hm.HMatrix.from_leaves(SHAPE, leaves, *permutations)
    return H, torch.from_numpy(assembled(SHAPE, leaves, *permutations).astype(dtype))


def random_tensor(*shape, dtype=torch.float64, seed=0, grad=False):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_(grad)


def linear_of(weight, bias):
    linear = torch.nn.Linear(n, m, bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
    return linear


TYPES = {torch.float32: np.float32, torch.float64: np.float64}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("leading", [(), (1,), (5,), (0,), (2, 3), (2, 0, 3), (2, 1, 3, 2)], ids=str)
@pytest.mark.parametrize("grad", [False, True])
def test_it_is_a_linear_layer(dtype, bias, leading, grad):
    H, weight = make(TYPES[dtype])
    linear = linear_of(weight, random_tensor(m, dtype=dtype, seed=1) if bias else None)
    layer = HLinear.from_linear(linear, H)
    x = random_tensor(*leading, n, dtype=dtype, grad=grad)
    y = layer(x)
    assert (y.shape, y.dtype, y.requires_grad) == ((*leading, m), dtype, grad or bias)
    torch.testing.assert_close(y, linear(x))


@pytest.mark.parametrize("batch", [1, 7])
def test_gradients_are_those_of_a_linear_layer(batch):
    H, weight = make()
    linear = linear_of(weight, random_tensor(m))
    layer = HLinear.from_linear(linear, H)
    gradients = []
    for module in (linear, layer):
        x = random_tensor(batch, n, grad=True)
        module(x).square().sum().backward()
        gradients.append((x.grad, module.bias.grad))
    for expected, actual in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("of", TYPES)
def test_gradients_have_the_type_of_the_input(dtype, of):
    x = random_tensor(3, n, dtype=dtype, grad=True)
    layer = HLinear.from_matrix(make(TYPES[of])[0])
    layer(x).sum().backward()
    assert x.grad.dtype == dtype
    torch.testing.assert_close(x.grad.double(), make()[1].sum(dim=0).expand(3, n), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("leading", [(), (3,), (2, 2)], ids=str)
def test_gradcheck(leading):
    layer = HLinear.from_matrix(make()[0], random_tensor(m))
    x = random_tensor(*leading, n, grad=True)
    assert torch.autograd.gradcheck(lambda x, _: layer(x), (x, layer.bias))


def test_gradients_of_gradients():
    layer = HLinear.from_matrix(make()[0])
    x = random_tensor(2, n, grad=True)
    assert torch.autograd.gradgradcheck(lambda x: layer(x) ** 3, (x,))


def test_the_weight_has_no_gradient():
    layer = HLinear.from_matrix(make()[0], random_tensor(m))
    layer(random_tensor(3, n, grad=True)).sum().backward()
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    assert all(not buffer.requires_grad for buffer in layer.buffers())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode):
    H, weight = make()
    layer = HLinear.from_matrix(H, random_tensor(m))
    x = random_tensor(3, n, grad=True)
    with mode():
        y = layer(x)
    assert not y.requires_grad
    torch.testing.assert_close(y, x.detach() @ weight.T + layer.bias.detach())


@pytest.mark.parametrize(
    "view",
    [lambda x: x[::2], lambda x: x.T.contiguous().T, lambda x: x.flip(0), lambda x: x[:1].expand(5, n)],
    ids=["steps", "Fortran", "backwards", "expanded"],
)
def test_layouts_of_the_input(view):
    H, weight = make()
    x = view(random_tensor(6, n))
    before = x.clone()
    torch.testing.assert_close(HLinear.from_matrix(H)(x), x @ weight.T)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("given", "rounding"), [(torch.float16, 2**-11), (torch.bfloat16, 2**-8), (torch.float32, 0), (torch.float64, 0)]
)
def test_types_of_the_input(given, rounding):
    H, weight = make(np.float32)
    x = random_tensor(3, n, dtype=given)
    y = HLinear.from_matrix(H)(x)
    assert y.dtype == given
    torch.testing.assert_close(y.double(), x.double() @ weight.T.double(), rtol=1e-4 + rounding, atol=1e-4)


@pytest.mark.parametrize("shape", [(), (n - 1,), (3, n + 1), (n, 3), (3, 0)])
def test_wrong_shapes(shape):
    with pytest.raises(ArgumentError, match=rf"^x: has the shape .*; give \(\.\.\., {n}\)"):
        HLinear.from_matrix(make()[0])(torch.zeros(shape))


def test_complex_input():
    with pytest.raises(ArgumentError, match=r"^x: has the type complex64"):
        HLinear.from_matrix(make()[0])(torch.zeros(3, n, dtype=torch.complex64))


@pytest.mark.parametrize("shape", [(n,), (m, 1), (1, m), ()])
def test_a_bias_that_does_not_fit(shape):
    with pytest.raises(ArgumentError, match=rf"bias: has the shape .*give \({m},\)"):
        HLinear(make()[0], torch.zeros(shape))


@pytest.mark.parametrize("shape", [(n, m), (m, n + 1), (m + 1, n)])
def test_a_linear_layer_that_does_not_fit(shape):
    with pytest.raises(ArgumentError, match=rf"matrix: has the shape \({m}, {n}\); give"):
        HLinear.from_linear(torch.nn.Linear(shape[1], shape[0]), make()[0])


def test_the_bias_is_a_copy_in_the_type_of_the_matrix():
    linear = torch.nn.Linear(n, m)
    layer = HLinear.from_linear(linear, make(np.float64)[0])
    assert layer.bias.dtype == torch.float64
    with torch.no_grad():
        linear.bias.fill_(7)
        layer.bias.fill_(3)
    assert not torch.equal(layer(torch.zeros(n)).float(), linear(torch.zeros(n)))
    assert torch.equal(layer(torch.zeros(n, dtype=torch.float64)), torch.full((m,), 3.0, dtype=torch.float64))


@pytest.mark.parametrize("training", [False, True])
def test_mode_of_training_is_kept(training):
    layer = HLinear.from_linear(torch.nn.Linear(n, m).train(training), make()[0])
    assert layer.training is training
    assert layer.eval().training is False


def test_matrix_and_description():
    H, _ = make()
    layer = HLinear.from_matrix(H, torch.zeros(m))
    assert layer.matrix is H
    for part in (f"in_features={n}", f"out_features={m}", "bias=True", f"storage={H.storage().ratio:.1%}"):
        assert part in repr(layer)


# State.


def state_of(seed=0, dtype=np.float64, permuted=True, bias=None):
    layer = HLinear.from_matrix(make(dtype, seed, permuted)[0], bias)
    return {name: tensor.clone() for name, tensor in layer.state_dict().items()}


PARTS = {"leaves", "words", "quantized", "row_permutation", "column_permutation"}


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


def with_entry(index, value):
    def change(tensor):
        tensor = tensor.clone()
        tensor[index] = value
        return tensor

    return change


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


# Copies and conversions.


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


# Other precisions.

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
