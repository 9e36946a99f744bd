import itertools

import numpy as np
import pytest
import torch
from torch import nn

from hmatrix.errors import ArgumentError
from hmatrix.nn.network.calibration import collect_inputs
from hmatrix.nn.network.kinds import kind_of, matrix_of
from hmatrix.nn.network.running import run_batch
from hmatrix.nn.network.sensitivity import Spread, change
from hmatrix.nn.network.sharing import ErrorCurve, share
from hmatrix.nn.network.targets import LayerSettings, everything, find_targets


def curve(rng, points, weight):
    sizes = np.cumsum(rng.integers(5, 20, points)).astype(float)
    errors = weight * np.append(np.exp(-np.sort(rng.uniform(0, 5, points - 1))), 0.001)
    return ErrorCurve(sizes, errors, int(sizes[-1]) + 40)


def total(curves, shares):
    return sum(np.interp(size, *c.hull()) for c, size in zip(curves, shares, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_no_other_shares_are_better(seed):
    rng = np.random.default_rng(seed)
    curves = [curve(rng, 5, weight) for weight in (1.0, 10.0, 0.1)]
    least = sum(c.sizes[0] for c in curves)
    budget = least + 40
    shares = share(curves, budget)
    assert sum(shares) <= budget
    first, second = (np.arange(c.sizes[0], c.sizes[-1], 1.0) for c in curves[:2])
    tried = ((i, j, budget - i - j) for i, j in itertools.product(first, second))
    best = min(total(curves, sizes) for sizes in tried if curves[2].sizes[0] <= sizes[2] <= curves[2].sizes[-1])
    assert total(curves, shares) <= best + 0.02 * max(c.errors[0] for c in curves)


def test_enough_for_all_leaves_all_as_they_are():
    curves = [curve(np.random.default_rng(0), 4, 1.0) for _ in range(3)]
    assert share(curves, 10_000) == [c.dense for c in curves]


def test_what_is_dearer_than_dense_is_not_bought():
    only = ErrorCurve(np.array([10.0, 90.0, 110.0]), np.array([1.0, 0.5, 0.4]), 100)
    sizes, errors = only.hull()
    assert sizes.tolist() == [10.0, 100.0]
    assert errors.tolist() == [1.0, 0.0]
    assert share([only], 99) == [10]


def test_rounding_of_sums_does_not_end_a_curve():
    sizes = np.array([0.1, 0.3, 0.6, 1.1, 2.3])
    thirds = ErrorCurve(sizes, np.array([8.0, 4.0, 2.0, 1.0, 0.5]), 4)
    assert share([thirds, thirds], 9) == [4, 4]


def test_too_little_names_what_is_possible():
    with pytest.raises(ArgumentError, match="give 20 to 200 bytes"):
        share([ErrorCurve(np.array([10.0]), np.array([1.0]), 100)] * 2, 19)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8 * 36, 24)
    ).eval()


def test_sensitivities_are_those_of_noise():
    model = network()
    targets = find_targets(model, everything, {}, LayerSettings())
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    found = collect_inputs(
        model,
        targets,
        [x[:40], x[40:]],
        forward=run_batch,
        rows=64,
        probe_samples=1,
        seed=0,
        progress=False,
        derivatives=True,
    ).sensitivities
    reference = [model(x).detach()]
    noise, generator = 0.05, torch.Generator().manual_seed(2)
    for target, value in zip(targets, found, strict=True):
        axis = kind_of(target.module).channels

        def add(_, __, output, axis=axis):
            axes = [a for a in range(output.dim()) if a != axis % output.dim()]
            deviation = output.std(dim=axes, keepdim=True, correction=0)
            return output + noise * deviation * torch.randn(output.shape, generator=generator)

        changes = []
        for _ in range(20):
            hook = target.module.register_forward_hook(add)
            changes.append(change(reference, [model(x).detach()]) / noise**2)
            hook.remove()
        assert value == pytest.approx(np.mean(changes), rel=0.15)


def test_a_spread_is_the_variance_of_all_batches():
    x = 100 + np.random.default_rng(0).normal(size=(3, 20, 7)).astype(np.float32)
    spread = Spread()
    for batch in x:
        spread.add(torch.from_numpy(batch))
    flat = x.reshape(60, 7).astype(np.float64)
    assert spread.mean == pytest.approx(flat.var(axis=0).mean(), rel=1e-9)
    assert spread.total == pytest.approx(60 * flat.var(axis=0).sum(), rel=1e-9)
    same = Spread()
    same.add(torch.from_numpy(x[0, :1]))
    same.add(torch.from_numpy(x[0, :1]).expand(4, 7))
    assert same.mean == pytest.approx(np.square(x[0, 0].astype(np.float64)).mean(), rel=1e-9)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 4, 3, padding=1, stride=2),
        nn.Conv2d(3, 4, (2, 3), padding="same", dilation=2),
        nn.Conv2d(3, 4, 1),
        nn.Conv2d(3, 4, 3, padding=2, padding_mode="reflect"),
    ],
)
def test_the_vectors_of_a_convolution_are_its_windows(conv):
    x = torch.randn(2, 3, 9, 7)
    vectors = kind_of(conv).vectors(conv, x, torch.arange)
    with torch.no_grad():
        expected = conv(x).permute(0, 2, 3, 1).flatten(0, 2) - conv.bias
        torch.testing.assert_close(vectors @ matrix_of(conv).T, expected, rtol=1e-4, atol=1e-5)
    single = kind_of(conv).vectors(conv, x[0], torch.arange)
    torch.testing.assert_close(single, vectors[: len(single)])


def test_what_cannot_be_compressed_is_of_no_kind():
    class Own(nn.Linear):
        pass

    for module in (
        nn.Conv2d(4, 4, 3, groups=2),
        Own(3, 3),
        nn.Embedding(3, 3, max_norm=1.0),
        nn.Embedding(3, 3, scale_grad_by_freq=True),
        nn.ReLU(),
    ):
        assert kind_of(module) is None


def test_samples_are_bounded_and_uniform():
    model = nn.Linear(1, 1)
    targets = find_targets(model, everything, {}, LayerSettings())
    batches = [torch.arange(first, first + 50.0)[:, None] for first in range(0, 1000, 50)]
    means = []
    for seed in range(40):
        (sample,) = collect_inputs(
            model, targets, batches, forward=run_batch, rows=100, probe_samples=1, seed=seed, progress=False
        ).samples
        assert sample.shape == (100, 1)
        assert len(np.unique(sample)) == 100
        means.append(sample.mean())
    # The mean of 100 of 1,000 numbers deviates by 27 from that of all.
    assert abs(np.mean(means) - 499.5) < 4 * 27.4 / 40**0.5


def test_equal_layers_share_alike_whatever_their_last_bits():
    sizes, errors = np.array([10.0, 20.0, 30.0]), np.array([1.0, 0.4, 0.1])
    for bit in (-1, 0, 1):
        moved = ErrorCurve(sizes, errors * (1 + np.finfo(np.float64).eps * bit), 200)
        assert share([ErrorCurve(sizes, errors, 200), moved], 30) == [20, 10]
