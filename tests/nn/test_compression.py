import copy
import json

import pytest
import torch
from compressible import same, small, state, vectors
from torch import nn

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix.errors import ArgumentError, NetworkError
from hmatrix.nn.compression import compress


def test_a_network_keeps_its_budget_and_its_outputs(tied, tokens):
    before = state(tied)
    model, report = compress(tied, hm.Budget(storage=0.3), calibration=tokens, progress=False)
    assert same(before, tied.state_dict())
    assert type(tied.hidden) is nn.Linear
    assert report.before == sum(4 * m * n for m, n in ((60, 24), (12, 9), (48, 288), (24, 48)))
    assert report.after <= 0.3 * report.before
    assert report.after == sum(layer.after for layer in report.layers)
    with torch.no_grad():
        y, exact = model(tokens[0]), tied(tokens[0])
    assert (y - exact).norm() < 0.1 * exact.norm()


def test_bytes_of_the_report_are_those_of_the_matrices(tied, tokens):
    model, report = compress(tied, hm.Budget(storage=0.3), calibration=tokens, progress=False)
    for layer in report.layers:
        module = model.get_submodule(layer.names[0])
        if layer.measured_error is None:
            assert layer.after == layer.before
            continue
        added = sum(
            4 * layer.shape[0]
            for name in layer.names
            if getattr(model.get_submodule(name), "bias", None) is not None and tied.get_submodule(name).bias is None
        )
        assert layer.after == module.matrix.storage().total + added


def test_tied_weights_stay_tied(tied, tokens):
    model, report = compress(tied, hm.Budget(storage=0.3), calibration=tokens, progress=False)
    assert isinstance(model.embedding, hnn.HEmbedding)
    assert model.out.weight is model.embedding.weight
    assert report.layers[0].names == ("embedding", "out")
    assert not model.embedding(torch.tensor([0])).any()  # padding


def test_a_module_with_two_names_is_replaced_under_both():
    shared = nn.Linear(32, 32)
    network = nn.Sequential(shared, nn.ReLU(), shared)
    model, report = compress(network, hm.Budget(storage=0.3), calibration=vectors(32), progress=False)
    assert isinstance(model[0], hnn.HLinear)
    assert model[0] is model[2]
    assert report.layers[0].names == ("0", "2")


def test_the_network_may_be_a_layer():
    layer = nn.Linear(40, 30)
    model, report = compress(layer, hm.Budget(storage=0.4), calibration=vectors(40), progress=False)
    assert isinstance(model, hnn.HLinear)
    assert report.layers[0].names == ("",)
    with pytest.raises(ArgumentError, match="itself the layer"):
        compress(layer, hm.Budget(storage=0.4), inplace=True, progress=False)


def test_in_place():
    network = small(32, 32, 10)
    first = network[0]
    model, _ = compress(network, hm.Budget(storage=0.4), calibration=vectors(32), inplace=True, progress=False)
    assert model is network
    assert network[0] is not first


def test_a_copy_and_in_place_are_the_same():
    network = small(32, 32, 10)
    copied, _ = compress(network, hm.Budget(storage=0.4), calibration=vectors(32), progress=False)
    compress(network, hm.Budget(storage=0.4), calibration=vectors(32), inplace=True, progress=False)
    assert same(copied.state_dict(), network.state_dict())


class Reader(nn.Module):
    """Reads a layer's weight past the layer, after it was called."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(24, 24)

    def forward(self, x):
        return self.layer(x) @ self.layer.weight


@pytest.mark.parametrize("inplace", [False, True])
def test_nothing_is_changed_by_a_failure(inplace):
    network = Reader().train()
    layer, before = network.layer, state(network)
    with pytest.raises(NetworkError, match="does not run"):
        compress(network, hm.Budget(storage=0.4), calibration=vectors(24), inplace=inplace, progress=False)
    assert network.layer is layer
    assert same(before, network.state_dict())
    assert network.training
    assert not network.layer._forward_hooks
    assert not network.layer._forward_pre_hooks


def test_hooks_modes_and_gradients_go_along():
    network = small(32, 32, 10).train()
    network[2].bias.requires_grad_(False)
    calls = []
    network[0].register_forward_hook(lambda *_: calls.append(1))
    model, _ = compress(network, hm.Budget(storage=0.4), progress=False)
    model(torch.zeros(1, 32))
    assert len(calls) == 1
    assert model[0].training
    assert model[0].bias.requires_grad
    assert not model[2].bias.requires_grad


def test_the_same_call_gives_the_same_bits(tied, tokens):
    first, _ = compress(tied, hm.Budget(storage=0.3), calibration=tokens, progress=False, rows=20)
    second, _ = compress(tied, hm.Budget(storage=0.3), calibration=tokens, progress=False, rows=20)
    assert same(first.state_dict(), second.state_dict())


def test_half_precision_stays():
    network = small(32, 32, 10).bfloat16()
    model, _ = compress(network, hm.Budget(storage=0.4), progress=False)
    assert model(torch.zeros(2, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_the_report_is_a_table_and_json(tied, tokens):
    _, report = compress(tied, hm.Budget(storage=0.3), calibration=tokens, progress=False)
    text = str(report)
    assert text.splitlines()[0].split() == [
        "layer", "shape", "before", "after", "%", "ranks", "leaves", "predicted", "measured", "seconds",
    ]  # fmt: skip
    assert "embedding (+1)" in text
    content = json.loads(report.to_json())
    assert content["after"] == report.after
    assert [layer["names"] for layer in content["layers"]] == [list(layer.names) for layer in report.layers]


def test_a_deep_copy_still_computes(tied, tokens):
    model, _ = compress(tied, hm.Budget(storage=0.3), calibration=tokens, progress=False)
    again = copy.deepcopy(model)
    assert torch.equal(again(tokens[0]), model(tokens[0]))


CONVOLUTIONS = {
    "3 x 3": {"kernel_size": 3, "padding": 1},
    "5 x 3, strides": {"kernel_size": (5, 3), "stride": (1, 2)},
    "dilated": {"kernel_size": 3, "dilation": (2, 1), "padding": "same", "padding_mode": "reflect"},
    "1 x 1": {"kernel_size": 1, "stride": 2},
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("calibrated", [False, True])
def test_convolutions_of_several_channels(kind, calibrated):
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 40, **CONVOLUTIONS[kind]).eval()
    # Channels and places of the kernel differ, and are told apart by the inputs.
    scales = torch.linspace(0.1, 3, 16)[:, None, None]
    images = [scales * torch.randn(4, 16, 9, 11).cumsum(dim=3) for _ in range(3)]
    model, report = compress(
        conv, hm.Budget(storage=0.4), calibration=images if calibrated else None, activations="exact", progress=False
    )
    with torch.no_grad():
        y, exact = model(images[0]), conv(images[0])
    error = (y - exact).norm() / (exact - exact.mean(dim=(0, 2, 3), keepdim=True)).norm()
    assert error < 0.1
    if calibrated:
        assert error == pytest.approx(report.layers[0].measured_error, rel=0.5)
