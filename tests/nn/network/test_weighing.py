"""A budget is shared anew by what the layers' errors do to the output."""

import copy

import pytest
import torch
from compressible import same, small, vectors
from torch import nn

import hmatrix as hm
from hmatrix.nn.compression import compress
from hmatrix.nn.network import weighing


class Pooled(nn.Module):
    """A convolution whose positions are averaged: errors that are the same at all of them are not averaged out."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(24, 48, 1)
        self.last = nn.Linear(48, 20)

    def forward(self, x):
        return self.last(self.conv(x).relu().mean(dim=(2, 3)))


def test_layers_count_by_what_their_errors_do():
    torch.manual_seed(0)
    network = Pooled().eval()
    images = [x[:, :, None, None].expand(-1, -1, 6, 6).contiguous() for x in vectors(24)]
    model, report = compress(network, hm.Budget(storage=0.15), calibration=images, progress=False)
    x = torch.cat(images[:2])
    for layer in report.layers:
        alone = copy.deepcopy(network)
        setattr(alone, layer.names[0], model.get_submodule(layer.names[0]))
        with torch.no_grad():
            wanted, given = (module(x).double().numpy() for module in (network, alone))
        effect = ((given - wanted) ** 2).mean() / ((wanted - wanted.mean(axis=0)) ** 2).mean()
        # It was measured with the H-matrix of the first sharing.
        assert layer.sensitivity == pytest.approx(effect / layer.predicted_error**2, rel=0.5)
    # With errors that are independent between 36 positions it would count a fraction of this.
    conv, last = report.layers
    assert conv.sensitivity > 0.3 * last.sensitivity


def test_shares_that_make_it_worse_are_not_kept(monkeypatch):
    network, arguments = small(32, 48, 10), {"calibration": vectors(32), "progress": False}
    monkeypatch.setattr(weighing, "measured_sensitivities", lambda *_, **__: None)
    first, _ = compress(network, hm.Budget(storage=0.2), **arguments)
    monkeypatch.setattr(weighing, "measured_sensitivities", lambda *_, **__: [1e9, 1e-9])
    second, _ = compress(network, hm.Budget(storage=0.2), **arguments)
    assert same(first.state_dict(), second.state_dict())
