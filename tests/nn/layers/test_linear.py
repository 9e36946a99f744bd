import numpy as np
import pytest

from hmatrix.errors import ArgumentError

torch = pytest.importorskip("torch")
from hlinear import TYPES, linear_of, m, make, n, random_tensor  # noqa: E402

from hmatrix.nn import HLinear  # noqa: E402


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


@pytest.mark.parametrize("make_layer", [HLinear, HLinear.from_matrix])
@pytest.mark.parametrize("dtype", TYPES)
def test_the_weight_may_be_a_transpose(make_layer, dtype):
    H, weight = make(TYPES[dtype])
    layer, x = make_layer(H.T), random_tensor(5, m, dtype=dtype)
    assert (layer.out_features, layer.in_features) == (n, m)
    torch.testing.assert_close(layer(x), x @ weight)
    again = HLinear.skeleton(m, n, bias=False, device="cpu")
    again.load_state_dict(layer.state_dict())
    torch.testing.assert_close(again(x), layer(x), rtol=0, atol=0)
    linear = torch.nn.Linear(m, n, bias=False, dtype=dtype)
    torch.testing.assert_close(HLinear.from_linear(linear, H.T)(x), layer(x), rtol=0, atol=0)


@pytest.mark.parametrize("weight", [torch.ones(3, 4), np.ones((3, 4)), "H", None])
def test_a_weight_that_is_no_h_matrix(weight):
    with pytest.raises(ArgumentError, match=r"matrix: is a .*; give an H-matrix"):
        HLinear(weight)


def test_a_weight_that_is_the_transpose_of_codes():
    with pytest.raises(ArgumentError, match=r"matrix: is the transpose of int8 codes.*; give H\.astype"):
        HLinear(make(np.float32)[0].astype("int8").T)


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
