import numpy as np
import pytest
import torch
from torch import nn

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix.errors import NetworkError
from hmatrix.nn.network.calibration import collect_inputs
from hmatrix.nn.network.derivatives import PARTS, Derivatives
from hmatrix.nn.network.running import run_batch
from hmatrix.nn.network.targets import LayerSettings, everything, find_targets


def collected(model, batches, *, rows=2048, select=everything, forward=run_batch):
    targets = find_targets(model, select, {}, LayerSettings())
    return collect_inputs(
        model, targets, batches, forward=forward, rows=rows, probe_samples=1, seed=0, progress=False, derivatives=True
    )


def one_by_one(model, layer, samples, mean, forward):
    """G of each sample, for centred inputs, by one backward pass a sample; its output is one number each."""
    for sample in samples:
        output = forward(model, sample)
        G, of_bias = torch.autograd.grad(output.sum(), [layer.weight, layer.bias])
        G = G.movedim(1, -1).reshape(len(G), -1) if G.dim() == 4 else G
        yield G.double() - of_bias[:, None].double() * torch.from_numpy(mean)


def expected(model, layer, samples, mean, forward=run_batch):
    """The mean of G^T G."""
    return (sum(G.mT @ G for G in one_by_one(model, layer, samples, mean, forward)) / len(samples)).numpy()


def expected_of_rows(model, layer, samples, mean, forward=run_batch):
    """The mean of G G^T."""
    return (sum(G @ G.mT for G in one_by_one(model, layer, samples, mean, forward)) / len(samples)).numpy()


def second_moment(rows):
    """Of all parts, up to a factor."""
    flat = rows.reshape(-1, rows.shape[-1]).astype(np.float64)
    return flat.T @ flat / len(flat)


def assert_proportional(found, wanted, tolerance=1e-3):
    found, wanted = found / np.trace(found), wanted / np.trace(wanted)
    assert np.linalg.norm(found - wanted) < tolerance * np.linalg.norm(wanted)


class Pooled(nn.Module):
    """Images to one number, by a mean over positions."""

    def __init__(self, convolution):
        super().__init__()
        self.convolution = convolution
        self.last = nn.Linear(convolution.out_channels, 1)

    def forward(self, images):
        return self.last(self.convolution(images).relu().mean(dim=(-2, -1)))


class Tokens(nn.Module):
    """Tokens to one number, by a sum over those that are there."""

    def __init__(self, width=12, hidden=8):
        super().__init__()
        self.first = nn.Linear(width, hidden)
        self.last = nn.Linear(hidden, 1)

    def forward(self, x, attention_mask=None):
        hidden = self.first(x).tanh()
        if attention_mask is not None:
            # What a network computes for padding may well reach its output.
            hidden = hidden * attention_mask[..., None].where(attention_mask[..., None] > 0, 0.5)
        return self.last(hidden.sum(dim=1))


@pytest.mark.parametrize(
    "convolution",
    [nn.Conv2d(6, 8, 1), nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.Conv2d(3, 8, 3, dilation=2)],
    ids=["pointwise", "padded", "dilated"],
)
def test_of_convolutions(convolution):
    torch.manual_seed(0)
    model = Pooled(convolution)
    images = torch.randn(20, convolution.in_channels, 9, 9) + 1
    # In uneven batches, so that samples change their places in batches.
    found = collected(model, images.split(7))
    wanted = expected(model, convolution, images[:, None], found.samples[0].mean(axis=0))
    assert found.derivatives[0].columns.shape == (PARTS, len(wanted), len(wanted))
    assert_proportional(second_moment(found.derivatives[0].columns), wanted)
    assert_proportional(
        second_moment(found.derivatives[0].columns[:1]),
        expected(model, convolution, images[::PARTS, None], found.samples[0].mean(axis=0)),
    )


def test_of_rows():
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 8, 3, padding=1, stride=2)
    images, tokens = torch.randn(20, 3, 9, 9) + 1, torch.randn(20, 5, 12) + 1
    for model, layer, x in ((Pooled(convolution), convolution, images), ((net := Tokens()), net.first, tokens)):
        # In one batch, since inputs are taken about their mean in a batch.
        found = collected(model, [x])
        assert found.derivatives[0].rows.shape == (PARTS, 8, 8)
        mean = found.samples[0].mean(axis=0)
        assert_proportional(second_moment(found.derivatives[0].rows), expected_of_rows(model, layer, x[:, None], mean))


def test_many_columns_are_projected():
    torch.manual_seed(0)
    model = Tokens(300, 6)
    x = torch.randn(600, 5, 300)
    found = collected(model, [x])
    mean = found.samples[0].mean(axis=0)
    wanted = expected_of_rows(model, model.first, x[:, None], mean)
    assert_proportional(second_moment(found.derivatives[0].rows), wanted, tolerance=0.05)


def test_too_many_rows_are_independent(monkeypatch):
    monkeypatch.setattr("hmatrix.nn.network.derivatives._MOST_ROWS", 7)
    found = collected(Tokens(), [torch.randn(20, 5, 12)])
    assert [factors.rows is None for factors in found.derivatives] == [True, False]


def test_of_tokens():
    torch.manual_seed(0)
    model = Tokens()
    x = torch.randn(20, 5, 12) + 1
    found = collected(model, x.split(4))
    assert_proportional(
        second_moment(found.derivatives[0].columns),
        expected(model, model.first, x[:, None], found.samples[0].mean(axis=0)),
    )


def test_padding_does_not_count():
    torch.manual_seed(0)
    model = Tokens()
    x = torch.randn(20, 5, 12) + 1
    mask = (torch.arange(5) < torch.randint(2, 6, (20, 1))).float()
    found = collected(model, [{"x": x, "attention_mask": mask}])
    short = [sample[None, : int(present.sum())] for sample, present in zip(x, mask, strict=True)]
    wanted = expected(model, model.first, short, found.samples[0].mean(axis=0))
    assert_proportional(second_moment(found.derivatives[0].columns), wanted)


def test_calls_of_a_layer_add_up():
    torch.manual_seed(0)
    model = Tokens(8, 8)

    def twice(network, x):
        return network.last(network.first(network.first(x).tanh()).sum(dim=1))

    x = torch.randn(20, 5, 8) + 1
    found = collected(model, [x], forward=twice)
    wanted = expected(model, model.first, x[:, None], found.samples[0].mean(axis=0), forward=twice)
    assert_proportional(second_moment(found.derivatives[0].columns), wanted)


def test_many_rows_are_projected():
    torch.manual_seed(0)
    model = Tokens(6, 300)
    x = torch.randn(600, 5, 6) * torch.arange(1.0, 7) + 1
    found = collected(model, x.split(100))
    wanted = expected(model, model.first, x[:, None], found.samples[0].mean(axis=0))
    assert_proportional(second_moment(found.derivatives[0].columns), wanted, tolerance=0.05)


def test_many_outputs_are_projected():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 200), nn.Tanh(), nn.Linear(200, 3))
    x = torch.randn(3000, 6) * torch.arange(1.0, 7)
    found = collected(model, x.split(100))
    mean = torch.from_numpy(found.samples[0].mean(axis=0))
    # The square norm of the derivative by what the layer gives, for all outputs together.
    slopes = (1 - model[0](x).tanh() ** 2).double()
    weights = (slopes**2 @ model[2].weight.double().square().sum(dim=0)).detach()
    centred = (x - mean).double()
    wanted = (centred.mT * weights) @ centred
    assert_proportional(second_moment(found.derivatives[0].columns), wanted.numpy(), tolerance=0.05)
    # What the output is linear in is weighted by nothing but its inputs.
    hidden = model[1](model[0](x)).detach().double()
    hidden -= hidden.mean(dim=0)
    assert_proportional(second_moment(found.derivatives[1].columns), (hidden.mT @ hidden).numpy(), tolerance=0.1)


def test_many_columns_are_added_up_at_random():
    torch.manual_seed(0)
    model = Tokens(40, 8)
    factor = torch.randn(3, 40)
    x = torch.randn(400, 5, 3) @ factor + 0.1 * torch.randn(400, 5, 40) + 1
    found = collected(model, x.split(50), rows=30)
    assert found.derivatives[0].columns.shape == (PARTS, 30 // PARTS, 40)
    wanted = expected(model, model.first, x[:, None], found.samples[0].mean(axis=0))
    # From 30 rows of rank 3, as from 30 samples.
    assert_proportional(second_moment(found.derivatives[0].columns), wanted, tolerance=0.5)


def test_batches_of_one_sample_tell_as_much_as_one_batch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5))
    x = torch.randn(500, 12) + 1
    wanted = collected(model, [x]).sensitivities
    assert min(wanted) > 0
    # With and without a dimension for the batch; random signs leave some noise.
    for batches in (x.split(1), x):
        assert collected(model, list(batches)).sensitivities == pytest.approx(wanted, rel=0.1)
    # A single sample varies with nothing.
    assert collected(model, [x[:1]]).sensitivities == [0, 0]


def test_without_enough_to_tell():
    model = Tokens()
    assert collected(model, [torch.randn(PARTS - 1, 5, 12)]).derivatives[0] is None
    with torch.no_grad():
        model.last.weight.zero_()
    assert collected(model, [torch.randn(20, 5, 12)]).derivatives[0] is None
    unused = collected(model, [torch.randn(20, 5, 12)], forward=lambda network, x: x.sum() * network.last.bias)
    assert unused.derivatives == [None, None]
    embedding = nn.Sequential(nn.Embedding(30, 4), nn.Linear(4, 3))
    of_embedding, of_linear = collected(embedding, [torch.randint(0, 30, (20,))]).derivatives
    assert of_embedding is None
    assert of_linear is not None


def test_what_is_not_finite_is_refused():
    model = Tokens()
    with torch.no_grad():
        model.last.weight.fill_(float("nan"))
    with pytest.raises(NetworkError, match="derivatives of its output hold NaN"):
        collected(model, [torch.randn(20, 5, 12)])
    assert not model.first._forward_hooks
    assert not model.first._forward_pre_hooks


def test_what_adds_up_over_positions_matters_more(monkeypatch):
    torch.manual_seed(0)
    model = Pooled(nn.Conv2d(48, 64, 1))

    def images(count):
        # What positions have in common lies elsewhere than what they differ in.
        common = torch.randn(count, 48, 1, 1) * (torch.arange(48) % 4 == 0)[:, None, None]
        return 0.4 * common + torch.randn(count, 48, 8, 8) * (torch.arange(48) % 4 != 0)[:, None, None] + 1

    calibration, others = images(100).split(20), images(200)

    def change():
        small, _ = hnn.compress(
            model, hm.Budget(storage=0.12), select=lambda _, m: isinstance(m, nn.Conv2d), calibration=calibration
        )
        with torch.no_grad():
            return float((small(others) - model(others)).square().mean())

    with_derivatives = change()
    monkeypatch.setattr(Derivatives, "of", lambda *_: None)
    assert with_derivatives < 0.7 * change()


def test_errors_of_rows_cancel_in_what_the_network_adds_up(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, 128), nn.Linear(128, 6))
    calibration, others = torch.randn(200, 48).split(40), torch.randn(300, 48)

    def change():
        small, _ = hnn.compress(model, hm.Budget(storage=0.12), overrides={"1": None}, calibration=calibration)
        with torch.no_grad():
            return float((small(others) - model(others)).square().mean())

    together = change()
    of = Derivatives.of

    def of_columns(*arguments):
        found = of(*arguments)
        return None if found is None else found._replace(rows=None)

    monkeypatch.setattr(Derivatives, "of", of_columns)
    assert together < 0.6 * change()
