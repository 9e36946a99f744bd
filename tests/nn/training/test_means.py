"""Biases that give layers the means that they have in the original network."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix.errors import NetworkError
from hmatrix.nn.network.running import run_batch
from hmatrix.nn.training.matching import Pair
from hmatrix.nn.training.means import match_means

WIDTH = 24


def rounded(teacher, precision="int2"):
    model = copy.deepcopy(teacher)
    for name, layer in teacher.named_modules():
        if isinstance(layer, nn.Linear):
            model.set_submodule(
                name, hnn.HLinear.from_linear(layer, hm.quantize(layer.weight.detach().numpy(), precision))
            )
        elif isinstance(layer, nn.Conv2d):
            matrix = hm.quantize(hnn.HConv2d.matrix_of(layer).numpy(), precision)
            model.set_submodule(name, hnn.HConv2d.from_conv(layer, matrix))
    return model


def means(model, batches, names):
    """Mean outputs of layers over all positions of batches of one size, in float64."""
    seen = {name: [] for name in names}

    def hook(name):
        return lambda module, arguments, y: seen[name].append(y.detach().double().clone())  # noqa: ARG005

    hooks = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    with torch.no_grad():
        for batch in batches:
            run_batch(model, batch)
    for hook in hooks:
        hook.remove()
    axes = {4: (0, 2, 3), 3: (0, 1), 2: (0,)}
    return {name: np.mean([y.mean(dim=axes[y.dim()]).numpy() for y in ys], axis=0) for name, ys in seen.items()}


def distance(first, second):
    return {name: float(np.abs(first[name] - second[name]).max()) for name in first}


def matched(model, teacher, batches, trained=hnn.Trained.VECTORS):
    pair = Pair(model, teacher, (hnn.HLinear, hnn.HConv2d))
    match_means(pair, batches, run_batch, trained)
    return model


@pytest.fixture
def deep():
    torch.manual_seed(0)
    layers = [layer for _ in range(4) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU(inplace=True))]
    return nn.Sequential(*layers[:-1]).eval(), [torch.randn(64, WIDTH)]


def test_all_layers_have_the_means_of_the_original(deep):
    teacher, batches = deep
    model = rounded(teacher)
    names = ["0", "2", "4", "6"]
    wanted, before = means(teacher, batches, names), means(model, batches, names)
    # Of a single batch the means are the same afterwards, in every layer.
    after = means(matched(model, teacher, batches), batches, names)
    assert all(far > 0.03 for far in distance(wanted, before).values()), distance(wanted, before)
    assert all(far < 1e-5 for far in distance(wanted, after).values())


def test_means_over_many_batches(deep):
    teacher, _ = deep
    batches = list(torch.randn(40, 16, WIDTH))
    model = rounded(teacher)
    before = distance(means(teacher, batches, ["6"]), means(model, batches, ["6"]))["6"]
    after = distance(means(teacher, batches, ["6"]), means(matched(model, teacher, batches), batches, ["6"]))["6"]
    assert after < 0.1 * before


def test_convolutions():
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1)).eval()
    batches = [torch.randn(4, 3, 9, 9)]
    model = matched(rounded(teacher), teacher, batches)
    far = distance(means(teacher, batches, ["0", "2"]), means(model, batches, ["0", "2"]))
    assert all(value < 1e-5 for value in far.values())


class Tokens(nn.Module):
    """A layer that is called twice, of tokens of which some are padding."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x, attention_mask):  # noqa: ARG002
        return self.layer(self.layer(x).relu())


def test_padding_and_layers_that_are_called_twice():
    torch.manual_seed(0)
    teacher = Tokens().eval()
    x, mask = torch.randn(5, 7, WIDTH), torch.ones(5, 7, dtype=torch.long)
    mask[:, 4:] = 0
    model = rounded(teacher)
    given = model.layer.bias.detach().clone()
    matched(model, teacher, [{"x": x, "attention_mask": mask}])
    correction = (model.layer.bias - given).detach().numpy()
    # The same by hand: the first call is corrected by what it lacks, the second by the mean of what both lack.
    kept = mask.bool()
    with torch.no_grad():
        wanted_first = teacher.layer(x)
        wanted = teacher.layer(wanted_first.relu())
        model.layer.bias.copy_(given)
        first = model.layer(x)
        lacking = (wanted_first - first)[kept].mean(dim=0)
        second = model.layer((first + lacking).relu())
        expected = (lacking + (wanted - second)[kept].mean(dim=0)) / 2
    np.testing.assert_allclose(correction, expected.numpy(), atol=1e-5)


def test_what_may_not_change_does_not(deep):
    teacher, batches = deep
    model = rounded(teacher)
    biases = {name: value.detach().clone() for name, value in model.named_parameters() if name.endswith("bias")}
    matched(model, teacher, batches, trained=hnn.Trained.NOTHING)
    assert all(torch.equal(model.get_parameter(name), value) for name, value in biases.items())
    bare = rounded(nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False)))
    assert matched(bare, nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False)), batches)[0].bias is None


def test_a_teacher_that_calls_less(deep):
    teacher, batches = deep
    model = nn.Sequential(rounded(teacher)[0])
    other = nn.Sequential(nn.Linear(WIDTH, WIDTH))
    other.forward = lambda x: x
    with pytest.raises(NetworkError, match="teacher: calls layer 0 less often than the model; give the network"):
        matched(model, other, batches)
    assert not model[0]._forward_hooks


def test_distillation_begins_with_it(deep):
    teacher, _ = deep
    batches = list(torch.randn(24, 32, WIDTH))
    model = rounded(teacher)
    settings = {"steps": 1, "rate": 1e-9, "codes": 0.0, "measurements": 1}
    report = hnn.finetune(model, teacher, batches, hnn.Finetuning(**settings), progress=False).report
    assert [measured.steps for measured in report.measurements] == [0, 1]
    assert report.measurements[0].loss < 0.95 * report.before
    # Training goes on from there.
    np.testing.assert_allclose(report.measurements[1].loss, report.measurements[0].loss, rtol=1e-3)
