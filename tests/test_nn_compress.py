import copy
import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix.errors import ArgumentError, DataError, NetworkError
from hmatrix.nn import compression
from hmatrix.nn.compression import compress

torch.manual_seed(0)


class Tied(nn.Module):
    """Embedding, convolution, normalisation and linear layers; the output layer has the embedding's weight."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(60, 24, padding_idx=0)
        self.conv = nn.Conv2d(1, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.hidden = nn.Linear(12 * 24, 48)
        self.last = nn.Linear(48, 24)
        self.out = nn.Linear(24, 60, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, indices):
        x = self.norm(self.conv(self.embedding(indices)[:, None])).relu()
        return self.out(self.last(self.hidden(x.mean(dim=2).flatten(1)).relu()))


@pytest.fixture
def tied():
    torch.manual_seed(1)
    return Tied().eval()


@pytest.fixture
def tokens():
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(0, 60, (8, 6), generator=generator) for _ in range(4)]


def small(*sizes):
    torch.manual_seed(3)
    layers = [module for m, n in itertools.pairwise(sizes) for module in (nn.Linear(m, n), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).eval()


def vectors(n, batches=3, size=16):
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(size, n, generator=generator) for _ in range(batches)]


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


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


def test_the_same_call_gives_the_same_bits(tied, tokens):
    first, _ = compress(tied, hm.Budget(storage=0.3), calibration=tokens, progress=False, rows=20)
    second, _ = compress(tied, hm.Budget(storage=0.3), calibration=tokens, progress=False, rows=20)
    assert same(first.state_dict(), second.state_dict())


def test_half_precision_stays():
    network = small(32, 32, 10).bfloat16()
    model, _ = compress(network, hm.Budget(storage=0.4), progress=False)
    assert model(torch.zeros(2, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_the_search_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    network, fits = small(32, 48, 10), []
    allocate = hm.Allocator.allocate

    def counted(self, *arguments, **keywords):
        if len(fits) == 1 and not resumed:
            raise KeyboardInterrupt
        fits.append(1)
        return allocate(self, *arguments, **keywords)

    monkeypatch.setattr(hm.Allocator, "allocate", counted)
    arguments = {"calibration": vectors(32), "cache": tmp_path, "progress": False}
    resumed = False
    with pytest.raises(KeyboardInterrupt):
        compress(network, hm.Budget(storage=0.4), **arguments)
    resumed = True
    model, _ = compress(network, hm.Budget(storage=0.4), **arguments)
    # Two layers, and both once more, for what they do to the output; the one before the interruption is not repeated.
    assert len(fits) == 4
    again, _ = compress(network, hm.Budget(storage=0.4), **arguments)
    assert len(fits) == 4
    assert same(model.state_dict(), again.state_dict())


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
        assert layer.sensitivity == pytest.approx(effect / layer.measured_error**2, rel=0.5)
    # With errors that are independent between 36 positions it would count a fraction of this.
    conv, last = report.layers
    assert conv.sensitivity > 0.3 * last.sensitivity


def test_shares_that_make_it_worse_are_not_kept(monkeypatch):
    network, arguments = small(32, 48, 10), {"calibration": vectors(32), "progress": False}
    monkeypatch.setattr(compression, "measured_sensitivities", lambda *_, **__: None)
    first, _ = compress(network, hm.Budget(storage=0.2), **arguments)
    monkeypatch.setattr(compression, "measured_sensitivities", lambda *_, **__: [1e9, 1e-9])
    second, _ = compress(network, hm.Budget(storage=0.2), **arguments)
    assert same(first.state_dict(), second.state_dict())


def test_a_cache_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(hm.HMatrixError, match="cannot be made"):
        compress(small(32, 10), hm.Budget(storage=0.5), cache=tmp_path / "file" / "in", progress=False)


def test_time_is_for_each_layer_where_it_is_possible():
    network = small(256, 256, 8)
    model, report = compress(network, hm.Budget(time=0.8), progress=False)
    assert isinstance(model[0], hnn.HLinear)
    assert type(model[2]) is nn.Linear
    assert report.layers[0].after < report.layers[0].before
    with pytest.raises(ArgumentError, match="time"):
        compress(small(8, 8), hm.Budget(time=0.1), progress=False)


def test_a_drop_is_kept_with_few_evaluations():
    network, x = small(32, 64, 10), torch.cat(vectors(32, 12))
    labels = network(x).argmax(dim=1)
    judged = []

    def right(model):
        judged.append(model)
        return 100.0 * (model(x).argmax(dim=1) == labels).numpy()

    model, report = compress(
        network, hm.Budget(max_drop=4.0), evaluate=right, evaluations=4, calibration=vectors(32, 2), progress=False
    )
    assert len(judged) == 1 + len(report.trials) <= 5
    assert float(100 - right(model).mean()) <= 4.0
    failed, passed = report.bracket
    assert failed < passed < 1
    for trial in report.trials:
        assert trial.passed == (trial.drop <= 4.0)
        assert trial.interval[0] <= trial.drop <= trial.interval[1]


def test_a_drop_that_cannot_be_kept():
    scores = iter([100.0, *[0.0] * 9])
    with pytest.raises(NetworkError, match=r"a drop of 0\.5 was not kept"):
        compress(small(32, 10), hm.Budget(max_drop=0.5), evaluate=lambda _: next(scores), evaluations=2, progress=False)


@pytest.mark.parametrize(
    ("returned", "message"),
    [("x", "returned a str"), (np.nan, "finite"), (np.ones((2, 2)), "shape"), ([], "shape")],
)
def test_scores_that_cannot_be_used(returned, message):
    with pytest.raises(ArgumentError, match=message):
        compress(small(32, 10), hm.Budget(max_drop=1.0), evaluate=lambda _: returned, progress=False)


def test_scores_of_other_samples():
    counts = iter([3, 4])
    with pytest.raises(ArgumentError, match="same samples"):
        compress(small(32, 10), hm.Budget(max_drop=1.0), evaluate=lambda _: np.ones(next(counts)), progress=False)


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
