"""Gradients of coefficients, and what they learn."""

import copy

import numpy as np
import pytest
from matrices import leaf, stored
from trained import INTEGERS, batch, every_kind, layer_of, m, matrix, n, same_bits

import hmatrix as hm
from hmatrix.codes.precision import Precision
from hmatrix.packed.packing import pack

torch = pytest.importorskip("torch")
hnn = pytest.importorskip("hmatrix.nn")


def test_gradients_where_all_is_smooth():
    """float64 leaves against finite differences: input, bias, blocks and factors."""
    layer = hnn.trainable(layer_of(matrix("float64")))
    names, parameters = zip(*layer.named_parameters(), strict=True)
    assert {name.split(".")[-1] for name in names} == {"bias", "latent"}

    def product(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), x)

    x = batch(2, n, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(product, (x, *parameters))


def all_values(precision):
    """What a code may stand for, next to whatever codes, in order."""
    codes = np.arange(2**precision.bits, dtype=np.uint8)
    return np.unique(precision.values(codes) if precision.trellis is None else precision.trellis.values)


def nearest(columns, wanted):
    """Of everything that the codes of each run may stand for, what is nearest."""
    held = torch.empty_like(wanted)
    for run, _ in columns.runs():
        # Without a trellis every entry stands alone.
        alone = columns.precision.trellis is None
        count = 1 if alone else run.stop - run.start
        codes = np.indices((2**columns.precision.bits,) * count, np.uint8).reshape(count, -1).T
        values = torch.from_numpy(columns.precision.values(codes)).double()
        part = wanted[..., run]
        rows = part.reshape(-1, count)
        found = torch.stack([values[(row - values).square().sum(dim=1).argmin()] for row in rows])
        held[..., run] = found.reshape(part.shape)
    return held


@pytest.mark.parametrize("precision", INTEGERS)
@pytest.mark.parametrize("rank", [None, 3])
def test_gradients_of_codes_and_scales(precision, rank):
    """Against finite differences of what they are derivatives of: rounding moves each code by a constant."""
    precision = Precision.of(precision)
    rng = np.random.default_rng(0)
    leaves = stored([leaf((0, 9), (0, 11), rank, rng)], [precision], (4,))
    weight = hnn.trainable(hnn.HWeight(hm.HMatrix(pack((9, 11), leaves)))).double()
    factors, x = weight.factors[0], batch(1, 3, 11, dtype=torch.float64)
    for factor in factors:
        factor.latent.data += 0.3 * batch(*factor.latent.shape) * factor.steps()

    values = all_values(precision)
    # Half a step beyond the first and the last value.
    first, last = 1.5 * values[0] - 0.5 * values[1], 1.5 * values[-1] - 0.5 * values[-2]

    def scaled(factor, latent):
        return (latent / factor.columns.by_column(factor.scales)).clamp(first, last)

    moved = [(nearest(f.columns, wanted) - wanted).detach() for f in factors for wanted in [scaled(f, f.latent)]]

    def smooth(*parameters):
        part = x
        for factor, move, latent, gains in zip(factors, moved, parameters[::2], parameters[1::2], strict=True):
            held = scaled(factor, latent) + move
            part = part @ (factor.columns.by_column(factor.scales * gains) * held).mT
        return part

    parameters = [parameter for factor in factors for parameter in (factor.latent, factor.gains)]
    assert torch.autograd.gradcheck(smooth, parameters)
    torch.testing.assert_close(weight.multiply(x[0]), smooth(*parameters)[0], rtol=1e-4, atol=1e-4)
    expected = torch.autograd.grad(smooth(*parameters).pow(3).sum(), parameters)
    part = x
    for factor in factors:
        part = factor.multiply(part)
    for actual, wanted in zip(torch.autograd.grad(part.pow(3).sum(), parameters), expected, strict=True):
        torch.testing.assert_close(actual, wanted)


@pytest.mark.parametrize(
    ("precision", "first", "last"),
    [
        ("int4", -8.5, 7.5),
        ("lloyd4", -142.5, 142.5),
        ("trellis4", -139.0, 139.0),
        ("trellis2", -141.0, 141.0),
        ("trellis1", -138.5, 138.5),
        ("trellis3", -138.5, 138.5),
        ("trellis4p", -137.5, 137.5),
    ],
)
def test_gradients_pass_straight_through(precision, first, last):
    """As if latent coefficients were the stored ones: those of a dense layer of torch."""
    rng = np.random.default_rng(0)
    H = hm.HMatrix(pack((9, 11), stored([leaf((0, 9), (0, 11), None, rng)], [Precision.of(precision)], (0,))))
    layer = hnn.trainable(hnn.HLinear(H))
    dense = torch.nn.Linear(11, 9, bias=False)
    dense.weight.data = torch.from_numpy(H.to_dense())
    x = batch(4, 11)
    for module in (layer, dense):
        module(x).pow(3).sum().backward()
    factor = layer.weight.factors[0][0]
    torch.testing.assert_close(factor.latent.grad[0], dense.weight.grad, rtol=1e-4, atol=1e-4)
    # Outside the range of the codes nothing comes through.
    layer.zero_grad()
    with torch.no_grad():
        factor.latent.mul_(3)
    layer(x).sum().backward()
    values = (factor.latent / factor.scales).detach()
    outside = (values < first) | (values > last)
    assert outside.any()
    assert (factor.latent.grad[outside] == 0).all()
    assert (factor.latent.grad[~outside] != 0).all()


@pytest.mark.parametrize("precision", ["int2", "trellis2", "trellis1"])
def test_a_network_learns_what_was_lost(precision):
    torch.manual_seed(0)
    dense = torch.nn.Sequential(torch.nn.Linear(n, m), torch.nn.ReLU(), torch.nn.Linear(m, 5))
    network = copy.deepcopy(dense)
    for number in (0, 2):
        weight = dense[number].weight.detach().numpy()
        network[number] = hnn.HLinear.from_linear(dense[number], hm.quantize(weight, precision, activations="int8"))
    x = batch(256, n)
    target = dense(x).detach()
    hnn.trainable(network)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)

    def loss():
        return (network(x) - target).square().mean()

    first = loss().item()
    for _ in range(200):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    hnn.freeze(network)
    assert loss().item() < 0.5 * first
    assert all(leaf.precision is Precision.of(precision) for leaf in network[0].matrix.leaves())


@every_kind
def test_gradients_of_products_with_the_decoded_matrix(kind):
    x = batch(8, n)
    gradients = []
    for dense in (False, True):
        layer = hnn.trainable(layer_of(matrix(kind)), dense=dense)
        layer(x.to(layer.weight.dtype)).square().mean().backward()
        gradients.append([parameter.grad for parameter in layer.parameters()])
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)


def test_scales_learn_from_the_start():
    """The gradient of a scale that has just been unpacked is that of the product, not zero."""
    layer, x = hnn.trainable(layer_of(matrix("int4"))), batch(8, n)
    layer(x).square().mean().backward()
    assert (layer.weight.factors[0][0].gains.grad != 0).all()


@pytest.mark.parametrize("kind", INTEGERS)
def test_codes_that_are_kept(kind):
    H, x = matrix(kind), batch(8, n)
    layer, usual = (hnn.trainable(layer_of(H)) for _ in range(2))
    factors = [factor for group in layer.weight.factors for factor in group]
    for factor in factors:
        factor.keep_codes()
    torch.testing.assert_close(layer(x), usual(x))
    layer(x).square().mean().backward()
    usual(x).square().mean().backward()
    for factor, other in zip(factors, (factor for group in usual.weight.factors for factor in group), strict=True):
        assert factor.latent.grad is None
        torch.testing.assert_close(factor.gains.grad, other.gains.grad)
    with torch.no_grad():
        for factor in (*factors, *(factor for group in usual.weight.factors for factor in group)):
            factor.gains.mul_(2)
    same_bits(layer.matrix, usual.matrix)
    same_bits(copy.deepcopy(layer).matrix, layer.matrix)
