"""Forward-mode differentiation of layers."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.autograd import forward_ad  # noqa: E402

import hmatrix as hm  # noqa: E402
import hmatrix.nn as hnn  # noqa: E402

M, N = 5, 4

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")


@pytest.fixture
def weight():
    return torch.from_numpy(np.random.default_rng(0).standard_normal((M, N)).astype(np.float32))


@pytest.fixture
def layer(weight):
    return hnn.HLinear(hm.quantize(weight.numpy(), "float32"), torch.randn(M))


@pytest.mark.parametrize("grad", [True, False])
def test_tangents_are_mapped(layer, weight, grad):
    x, tangent = torch.randn(3, N), torch.randn(3, N)
    with torch.set_grad_enabled(grad), forward_ad.dual_level():
        y = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, tangent)))
        torch.testing.assert_close(y.primal, x @ weight.T + layer.bias)
        torch.testing.assert_close(y.tangent, tangent @ weight.T)
        assert forward_ad.unpack_dual(layer(x)).tangent is None


def test_transforms_differentiate_forward(layer, weight):
    x, tangent = torch.randn(3, N), torch.randn(3, N)
    torch.testing.assert_close(torch.func.jvp(layer, (x,), (tangent,))[1], tangent @ weight.T)
    torch.testing.assert_close(torch.func.jacfwd(layer)(x[0]), weight)


def test_a_bias_has_a_tangent_too(layer, weight):
    x, tangent, added = torch.randn(3, N), torch.randn(3, N), torch.randn(M)
    of_bias = torch.func.jvp(lambda b: layer.weight.multiply(x, b), (layer.bias.detach(),), (added,))[1]
    torch.testing.assert_close(of_bias, added.expand(3, M))
    of_both = torch.func.jvp(layer.weight.multiply, (x, layer.bias.detach()), (tangent, added))[1]
    torch.testing.assert_close(of_both, tangent @ weight.T + added)
