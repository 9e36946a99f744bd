"""Convolutions against torch's."""

import copy

import numpy as np
import pytest

import hmatrix as hm
from hmatrix.errors import ArgumentError, NetworkError

torch = pytest.importorskip("torch")
hnn = pytest.importorskip("hmatrix.nn")


def pair(*, bias=True, precision="float64", **settings):
    """A convolution of torch's, and the same as an H-matrix with several leaves."""
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(4, 6, bias=bias, dtype=torch.float64, **settings)
    weight = hnn.HConv2d.matrix_of(conv).numpy()
    H = hm.build(weight, splitter=hm.Cardinality(leaf_size=3), truncation=hm.Truncation(rtol=1e-14))
    return conv, hnn.HConv2d.from_conv(conv, H.astype(precision))


SETTINGS = [
    {"kernel_size": 1},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 1, "padding": 1},
    {"kernel_size": 3},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 2), "padding": (0, 2), "stride": (2, 1)},
    {"kernel_size": 3, "stride": 2, "padding": 2, "dilation": 2},
    {"kernel_size": (1, 3), "dilation": (3, 2)},
    {"kernel_size": (4, 3), "padding": "same"},
    {"kernel_size": (4, 3), "padding": "same", "dilation": (1, 2)},
    {"kernel_size": 3, "padding": "valid"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": (1, 2), "padding_mode": "circular"},
    {"kernel_size": 2, "padding": 1, "padding_mode": "replicate", "stride": 3},
]


def images(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_it_is_the_convolution(settings, bias):
    conv, layer = pair(bias=bias, **settings)
    for shape in ((2, 4, 9, 8), (1, 4, 7, 7), (0, 4, 9, 8), (4, 9, 8)):
        x = images(*shape)
        torch.testing.assert_close(layer(x), conv(x))
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(layer(x), conv(x))
            torch.testing.assert_close(layer(x[..., ::2, :]), conv(x[..., ::2, :]))


@pytest.mark.parametrize("settings", SETTINGS[:7], ids=str)
def test_the_format_is_kept(settings):
    _, layer = pair(**settings)
    x = images(2, 4, 9, 8)
    assert layer(x).is_contiguous()
    last = layer(x.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, layer(x))


@pytest.mark.parametrize("settings", [SETTINGS[0], SETTINGS[6]], ids=str)
def test_gradients(settings):
    conv, layer = pair(**settings)
    gradients = []
    for module in (conv, layer):
        x = images(2, 4, 9, 8).requires_grad_()
        module(x).pow(2).sum().backward()
        gradients.append((x.grad, module.bias.grad))
    for expected, actual in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected)


def test_compiled_exported_copied_and_loaded():
    torch._dynamo.reset()
    _, layer = pair(kernel_size=3, padding=1, precision="int8")
    x = images(2, 4, 9, 8).float()
    expected = layer(x)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x), expected)
    torch.testing.assert_close(torch.export.export(layer, (x,)).module()(x), expected)
    other = copy.deepcopy(layer)
    torch.testing.assert_close(other(x), expected)
    _, other = pair(kernel_size=3, padding=1, precision="float32")
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other.float()(x), expected)
    assert layer.to("meta")(x.to("meta")).shape == expected.shape


def test_trained():
    _, layer = pair(kernel_size=3, padding=1, precision="int8")
    x = images(2, 4, 9, 8).float()
    expected = layer(x)
    torch.testing.assert_close(hnn.trainable(layer)(x), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(hnn.freeze(layer)(x), expected)


def test_groups_are_refused():
    conv = torch.nn.Conv2d(4, 6, 3, groups=2)
    with pytest.raises(NetworkError, match="convolution: has 2 groups; choose one with groups=1"):
        hnn.HConv2d.from_conv(conv, hm.quantize(np.ones((6, 18)), "float32"))


def test_another_shape_is_refused():
    with pytest.raises(ArgumentError, match=r"matrix: has the shape \(6, 4\); give \(6, 36\)"):
        hnn.HConv2d.from_conv(torch.nn.Conv2d(4, 6, 3), hm.quantize(np.ones((6, 4)), "float32"))


@pytest.mark.parametrize("shape", [(4, 9), (2, 5, 9, 8), (1, 2, 4, 9, 8)])
def test_wrong_inputs(shape):
    with pytest.raises(ArgumentError, match=r"x: has the shape .*; give \(batch, 4, height, width\)"):
        pair(kernel_size=3)[1](torch.zeros(shape))


def test_too_few_pixels():
    with pytest.raises(ArgumentError, match="x: has 4 x 8 pixels with its padding; give 5 x 5 at least"):
        pair(kernel_size=3, dilation=2)[1](torch.zeros(1, 4, 4, 8))


def test_description():
    text = repr(pair(kernel_size=3, padding=1)[1])
    for part in ("4, 6", "kernel_size=(3, 3)", "padding=(1, 1)", "bias=True", "shape=(6, 36)"):
        assert part in text
