import copy

import pytest
import torch
from torch import nn

from hmatrix.errors import NetworkError
from hmatrix.nn.network.probing import Probes
from hmatrix.nn.network.running import run_batch
from hmatrix.nn.network.sensitivity import change


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8 * 36, 24)
    ).eval()


def test_an_effect_is_that_of_the_layer_alone():
    model = network()
    x = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    name, layer = next((name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear))
    other = nn.Linear(layer.in_features, layer.out_features)
    probes = Probes.of(model, [x], run_batch)
    reference = model(x).detach()
    found = probes.effect(model, {layer: other})
    assert model.get_submodule(name) is layer
    changed = copy.deepcopy(model)
    parent, _, key = name.rpartition(".")
    setattr(changed.get_submodule(parent), key, other)
    assert found == pytest.approx(change([reference], [changed(x).detach()]))
    broken = nn.Linear(1, 1)
    with pytest.raises(RuntimeError):
        probes.effect(model, {layer: broken})
    assert model.get_submodule(name) is layer


def test_without_batches_nothing_has_changed():
    assert Probes.of(network(), [], run_batch).change(network()) is None


def test_a_compressed_network_that_does_not_run_is_told():
    x = torch.randn(2, 3, 8, 8)
    probes = Probes.of(network(), [x], run_batch)
    assert probes.change(network()) == 0
    with pytest.raises(NetworkError, match="the compressed network does not run"):
        probes.change(nn.Linear(1, 1))


def test_a_compressed_network_that_gives_nan_is_told():
    probes = Probes.of(network(), [torch.randn(2, 3, 8, 8)], run_batch)
    broken = network()
    broken[3].bias.data[0] = torch.nan
    with pytest.raises(NetworkError, match="output holds NaN or infinity"):
        probes.change(broken)
