"""Which layers of a network are compressed, and on what data."""

import pytest
import torch
from compressible import small, vectors
from matrices import slopes
from torch import nn

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix.errors import ArgumentError, DataError, NetworkError
from hmatrix.nn.compression import compress


def test_overrides():
    network = small(32, 32, 32, 10)
    budget = hm.Budget(storage=0.4)
    overrides = {"0": None, "re:[24]": hm.Budget(storage=0.6)}
    model, report = compress(network, budget, overrides=overrides, calibration=vectors(32), progress=False)
    assert type(model[0]) is nn.Linear
    assert [layer.names for layer in report.layers] == [("2",), ("4",)]
    assert all(0.4 < layer.after / layer.before <= 0.6 for layer in report.layers)
    settings = hnn.LayerSettings(activations=hm.Activations.EXACT)
    model, _ = compress(network, budget, overrides={"2": settings}, progress=False)
    assert model[2].matrix.activations is hm.Activations.EXACT
    assert model[0].matrix.activations is hm.Activations.INT8


def test_outputs_keep_their_size_unless_told_otherwise(tmp_path):
    network, batches = small(64, 32), vectors(64, batches=40)
    gains = []
    for settings in (hnn.LayerSettings(), hnn.LayerSettings(unbiased=False)):
        model, _ = compress(
            network,
            hm.Budget(storage=0.08),
            overrides={"0": settings},
            calibration=batches,
            # What was kept for other settings is not taken for these.
            cache=tmp_path,
            progress=False,
        )
        weight, found = network[0].weight.detach().numpy(), model[0].matrix.to_dense()
        gains.append(slopes(weight, found, torch.cat(batches).numpy()).mean())
    assert abs(gains[0] - 1) < 0.5 * (1 - gains[1])


def test_select():
    network = small(32, 32, 10)
    model, _ = compress(network, hm.Budget(storage=0.6), select=hnn.last_linear(network), progress=False)
    assert [type(module) for module in model] == [nn.Linear, nn.ReLU, hnn.HLinear]
    model, _ = compress(network, hm.Budget(storage=0.6), select=hnn.matching("0"), progress=False)
    assert [type(module) for module in model] == [hnn.HLinear, nn.ReLU, nn.Linear]


def test_layers_that_are_not_called_or_change_nothing_stay():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused, self.idle = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32)

        def forward(self, x):
            return self.used(x), self.idle(x)

    model, report = compress(Branches(), hm.Budget(storage=0.4), calibration=vectors(32), progress=False)
    assert isinstance(model.used, hnn.HLinear)
    assert type(model.unused) is type(model.idle) is nn.Linear
    notes = {layer.names[0]: layer.note for layer in report.layers}
    assert notes == {"used": "", "unused": "never called", "idle": "changes nothing"}


def test_a_layer_for_which_nothing_pays_stays_and_counts():
    network = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 1))
    model, report = compress(network, hm.Budget(storage=0.5), calibration=vectors(64), progress=False)
    assert type(model[1]) is nn.Linear or report.layers[1].after < report.layers[1].before
    assert report.before == 4 * 65 * 64
    assert report.after <= 0.5 * report.before


def test_rules_that_cannot_be_kept():
    network, budget = small(32, 32, 10), hm.Budget(storage=0.4)
    for arguments, error, message in [
        ({"overrides": {"nowhere": None}}, ArgumentError, "fits no layer"),
        ({"overrides": {"0": 3}}, ArgumentError, "give a Budget"),
        ({"overrides": {"re:(": None}}, ArgumentError, "no regular expression"),
        ({"select": lambda *_: False}, NetworkError, "no layer"),
        ({"calibration": []}, DataError, "no batches"),
        ({"calibration": [()]}, DataError, "empty batch"),
        ({"calibration": [torch.full((4, 32), torch.nan)]}, DataError, "NaN"),
        ({"evaluate": lambda _: 0.0}, ArgumentError, "no max_drop"),
        ({"rows": 1}, ArgumentError, "rows"),
        ({"evaluations": 0}, ArgumentError, "evaluations"),
    ]:
        with pytest.raises(error, match=message):
            compress(network, budget, progress=False, **arguments)
    with pytest.raises(ArgumentError, match="without evaluate"):
        compress(network, hm.Budget(max_drop=1.0), progress=False)
    with pytest.raises(ArgumentError, match=r"give \d+ to \d+ bytes"):
        compress(network, hm.Budget(bytes=8), progress=False)
    with pytest.raises(ArgumentError, match="whole network"):
        hnn.LayerSettings(hm.Budget(max_drop=1.0))
    with pytest.raises(NetworkError, match=r"no nn\.Linear"):
        hnn.last_linear(nn.ReLU())


def test_a_part_of_a_tie_cannot_be_chosen(tied):
    with pytest.raises(ArgumentError, match="share a weight"):
        compress(tied, hm.Budget(storage=0.4), overrides={"out": None}, progress=False)


def test_outputs_that_are_no_tensor():
    class Nothing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 16)

        def forward(self, x):
            return {"loss": self.layer(x).sum(), "name": "text"}["name"]

    with pytest.raises(NetworkError, match="give `forward`"):
        compress(Nothing(), hm.Budget(storage=0.5), calibration=vectors(16), progress=False)

    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 16)

        @torch.no_grad()
        def forward(self, x):
            return self.layer(x)

    with pytest.raises(NetworkError, match="differentiated"):
        compress(Frozen(), hm.Budget(storage=0.5), calibration=vectors(16), progress=False)


def test_batches_of_all_kinds():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(32, 8)

        def forward(self, x, scale=1.0):
            return {"logits": self.layer(x) * scale}

    network, reports = Two(), []
    for batches in (
        vectors(32),
        [(x, torch.zeros(len(x))) for x in vectors(32)],
        [{"x": x} for x in vectors(32)],
        iter(vectors(32)),
    ):
        _, report = compress(network, hm.Budget(storage=0.6), calibration=batches, progress=False)
        reports.append(report.layers[0].after)
    assert len(set(reports)) == 1


def test_what_newcomers_give():
    network, data = small(32, 48, 10), vectors(32)
    with pytest.raises(ArgumentError, match=r"budget: is 0.25; give hmatrix.Budget\(storage=0.25\)"):
        compress(network, 0.25, calibration=data, progress=False)
    with pytest.raises(ArgumentError, match="budget: is a storage of 25; give a fraction"):
        compress(network, hm.Budget(storage=25), calibration=data, progress=False)
    with pytest.raises(ArgumentError, match="budget: is a time of 30; give a fraction"):
        compress(network, hm.Budget(time=30), calibration=data, progress=False)
    with pytest.raises(ArgumentError, match="select: is a list; give a function"):
        compress(network, hm.Budget(storage=0.25), select=["0"], calibration=data, progress=False)
    with pytest.raises(ArgumentError, match="overrides: classifier fits no layer; there are 0, 2"):
        compress(network, hm.Budget(storage=0.25), overrides={"classifier": None}, progress=False)


def test_a_single_sample_tells_nothing():
    with pytest.raises(NetworkError, match="none of the chosen layers; choose others, or give several samples"):
        compress(small(32, 48, 10), hm.Budget(storage=0.25), calibration=[torch.ones(1, 32)], progress=False)


def test_batches_that_the_network_cannot_take():
    network = small(32, 48, 10)
    with pytest.raises(DataError, match=r"calibration: a batch, a tensor of shape \(4, 33\), does not go through"):
        compress(network, hm.Budget(storage=0.25), calibration=[torch.zeros(4, 33)], progress=False)
    with pytest.raises(NetworkError, match="layer 0: is called with a ndarray and not a tensor"):
        compress(network, hm.Budget(storage=0.25), calibration=[torch.zeros(4, 32).numpy()], progress=False)


@pytest.mark.parametrize(
    ("batches", "message"),
    [(torch.zeros(8, 32), r"is one tensor of shape \(8, 32\); give batches: .*split"), (7, "is a int; give batches")],
)
def test_what_holds_no_batches(batches, message):
    network = small(32, 48, 10)
    with pytest.raises(DataError, match=f"calibration: {message}"):
        compress(network, hm.Budget(storage=0.25), calibration=batches, progress=False)


def test_a_ruined_network_is_told():
    network, data = small(64, 128, 10), vectors(64)
    _, report = compress(network, hm.Budget(storage=0.02), calibration=data, progress=False)
    assert report.output_change > 0.5
    assert "little of the network is left" in str(report)
    _, report = compress(network, hm.Budget(storage=0.5), calibration=data, progress=False)
    assert "little of the network is left" not in str(report)
