"""Distillation of compressed networks: that it helps, that it never harms, and what it refuses."""

import copy
import itertools

import numpy as np
import pytest
import torch
from compressible import codes_of, same, state
from marks import slow
from matrices import leaf, stored
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix.codes.precision import Precision
from hmatrix.errors import ArgumentError, DataError, NetworkError
from hmatrix.packed.packing import pack

SIZES = (24, 40, 40, 6)


def network(seed=0):
    torch.manual_seed(seed)
    layers = [layer for m, n in itertools.pairwise(SIZES) for layer in (nn.Linear(m, n), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).eval()


def batches(count=8, size=16, seed=1):
    """Inputs that lie near a subspace, as those of real networks do."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(6, SIZES[0], generator=torch.Generator().manual_seed(9))
    return [torch.randn(size, 6, generator=generator) @ basis for _ in range(count)]


def int_of(precision):
    return lambda weight: hm.quantize(weight, precision, activations="int8")


def low_rank(weight):
    H = hm.build(weight, splitter=hm.Cardinality(8), truncation=hm.Truncation(max_rank=2))
    return H.astype("int8", activations="int8")


CODES = [precision.name.lower() for precision in Precision if precision.is_integer]
COMPRESSIONS = {name: int_of(name) for name in CODES} | {"low rank": low_rank}
SOME = [name if name in ("int4", "trellis2", "low rank") else slow(name) for name in COMPRESSIONS]


def compressed(teacher, compression="int4"):
    model = copy.deepcopy(teacher)
    for number, layer in enumerate(teacher):
        if isinstance(layer, nn.Linear):
            matrix = COMPRESSIONS[compression](layer.weight.detach().numpy())
            model[number] = hnn.HLinear.from_linear(layer, matrix)
    return model


def finetune(model, teacher, data=None, steps=120, **settings):
    keywords = {key: settings.pop(key) for key in ("held_out", "forward") if key in settings}
    chosen = hnn.Finetuning(steps=steps, **{"rate": 5e-3, "codes": 0.03, "measurements": 4, **settings})
    return hnn.finetune(model, teacher, batches() if data is None else data, chosen, progress=False, **keywords)


def change(model, teacher, seed=2):
    """Mean square difference of outputs on data that nothing has seen, in proportion to their variance."""
    x = torch.cat(batches(seed=seed))
    with torch.no_grad():
        wanted, given = teacher(x).double().numpy(), model(x).double().numpy()
    return ((given - wanted) ** 2).mean() / wanted.var()


@pytest.mark.parametrize("compression", SOME)
def test_it_comes_nearer_to_the_original(compression):
    teacher = network()
    model = compressed(teacher, compression)
    given = state(model)
    better, report = finetune(model, teacher)
    assert same(given, state(model))
    # With int8 most of the error is that of the activations, which no training can mend.
    bound = 0.95 if compression == "int8" else 0.8
    assert report.after < bound * report.before
    assert change(better, teacher) < bound * change(model, teacher)
    assert report.after == min(measured.loss for measured in report.measurements)
    assert report.measurements[-1].steps == 120
    assert not report.interrupted


@pytest.mark.parametrize("compression", SOME)
def test_it_is_packed_in_the_same_structure(compression):
    teacher = network()
    model = compressed(teacher, compression)
    better, _ = finetune(model, teacher)
    for number in (0, 2, 4):
        assert isinstance(better[number].weight, hnn.HWeight)
        before, after = model[number].matrix.pack(), better[number].matrix.pack()
        np.testing.assert_array_equal(before.leaves, after.leaves)
        assert before.data.size == after.data.size
        assert (before.data != after.data).any()


def test_files(tmp_path):
    teacher = network()
    better, _ = finetune(compressed(teacher), teacher, steps=5)
    hnn.save(better, tmp_path / "better")
    x = batches(1)[0]
    with torch.no_grad():
        assert torch.equal(hnn.load(tmp_path / "better", network())(x), better(x))


def test_the_loss_is_that_of_the_network_that_is_returned():
    teacher, held_out = network(), batches(3, seed=5)
    model = compressed(teacher, "int2")
    better, report = finetune(model, teacher, held_out=held_out)
    for network_, loss in ((model, report.before), (better, report.after)):
        with torch.no_grad():
            pairs = [(network_(x).double().numpy(), teacher(x).double().numpy()) for x in held_out]
        expected = np.mean([((given - wanted) ** 2).mean() / wanted.var() for given, wanted in pairs])
        np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_codes_stay_unless_they_are_trained():
    teacher = network()
    model = compressed(teacher, "int4")

    stayed, report = finetune(model, teacher, codes=0.0)
    np.testing.assert_array_equal(codes_of(stayed), codes_of(model))
    assert report.after < report.before
    assert (codes_of(finetune(model, teacher)[0]) != codes_of(model)).any()


def test_a_teacher_with_h_matrices_is_refused():
    model = compressed(network())
    with pytest.raises(ArgumentError, match="teacher: has H-matrices itself; give the original"):
        finetune(model, model)


def test_a_worse_network_is_never_returned():
    teacher = network()
    model = compressed(teacher, "int8")
    better, report = finetune(model, teacher, rate=0.5, codes=5.0, steps=3)
    assert all(measured.loss > report.before for measured in report.measurements)
    assert report.after == report.before
    assert better is not model
    assert same(state(better), state(model))
    assert "as it was given" in str(report)


def test_the_same_steps_give_the_same_bits():
    teacher, inputs = network(), torch.cat(batches())
    model = compressed(teacher)
    loader = DataLoader(TensorDataset(inputs), batch_size=16, shuffle=True)
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(states))
        before = torch.get_rng_state()
        states.append(state(finetune(model, teacher, loader, held_out=[inputs], steps=12, seed=seed).model))
        assert torch.equal(torch.get_rng_state(), before)
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


class Interrupting:
    """Batches, and a key that is pressed at one of them."""

    def __init__(self, at):
        self.left = at

    def __iter__(self):
        for batch in batches():
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield batch


@pytest.mark.parametrize("at", [1, 40])
def test_it_may_be_interrupted(at):
    teacher = network()
    model = compressed(teacher)
    better, report = finetune(model, teacher, Interrupting(at), held_out=batches(1), measurements=20)
    assert report.interrupted
    assert "interrupted" in str(report)
    if at == 1:
        assert report.measurements == ()
        assert same(state(better), state(model))
    else:
        assert report.after < report.before
        assert change(better, teacher) < change(model, teacher)


class Mixed(nn.Module):
    """A convolution without a bias, a normalisation and a tied weight."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 12, 1)
        self.depthwise = nn.Conv2d(12, 12, 3, groups=12)
        self.last = nn.Linear(12, 12)
        self.again = nn.Linear(12, 12)
        self.again.weight = self.last.weight

    def forward(self, x):
        x = self.depthwise(self.conv(self.norm(self.first(x)).relu()).relu()).mean(dim=(2, 3))
        return {"logits": self.again(self.last(x).relu())}


@pytest.fixture
def mixed():
    torch.manual_seed(0)
    teacher = Mixed()
    images = [3 * torch.randn(6, 3, 7, 7) for _ in range(6)]
    for x in images:
        teacher(x)
    return teacher.eval(), images


def test_convolutions_normalisations_and_shared_weights(mixed):
    teacher, images = mixed
    teacher.conv.requires_grad_(False)
    model, _ = hnn.compress(teacher, hm.Budget(storage=0.25), calibration=images, progress=False)
    better, report = finetune(model, teacher, images, held_out=images, rate=2e-3, codes=1e-2)
    assert report.after < 0.8 * report.before
    assert better.last.weight is better.again.weight
    assert not better.training
    for name, parameter in model.named_parameters():
        assert better.get_parameter(name).requires_grad == parameter.requires_grad
    assert torch.equal(better.norm.running_mean, teacher.norm.running_mean)


@pytest.mark.parametrize("trained", list(hnn.Trained))
def test_what_is_trained(mixed, trained):
    teacher, images = mixed
    model = copy.deepcopy(teacher)
    matrix = hnn.HConv2d.matrix_of(teacher.conv).numpy()
    model.conv = hnn.HConv2d.from_conv(teacher.conv, hm.quantize(matrix, "int2", activations="int8"))
    better, _ = finetune(model, teacher, images, steps=30, trained=trained)
    moved = {
        name: not torch.equal(parameter, better.get_parameter(name)) for name, parameter in model.named_parameters()
    }
    assert not torch.equal(model.conv.weight.words, better.conv.weight.words)
    vectors = {name for name in moved if model.get_parameter(name).dim() == 1}
    others = moved.keys() - vectors
    assert {moved[name] for name in vectors} == {trained is not hnn.Trained.NOTHING}
    assert {moved[name] for name in others} == {trained is hnn.Trained.ALL}


def test_distillation_by_divergence_alone():
    teacher = network()
    better, report = finetune(compressed(teacher, "int2"), teacher, loss=hnn.Divergence(2.0), matching=0)
    assert report.after < 0.8 * report.before
    x = torch.cat(batches(seed=2))
    with torch.no_grad():
        wanted, *given = (module(x).log_softmax(dim=1) for module in (teacher, compressed(teacher, "int2"), better))
    before, after = ((wanted.exp() * (wanted - other)).sum(dim=1).mean() for other in given)
    assert after < 0.8 * before


def test_it_ends_by_time():
    teacher = network()
    settings = hnn.Finetuning(seconds=0.2, steps=10**9)
    report = hnn.finetune(compressed(teacher), teacher, batches(), settings, progress=False).report
    assert report.seconds >= 0.2
    assert 0 < report.measurements[-1].steps < 10**9


def test_without_time_for_a_step_biases_are_measured_once():
    teacher = network()
    settings = hnn.Finetuning(seconds=1e-6)
    report = hnn.finetune(compressed(teacher), teacher, batches(), settings, progress=False).report
    assert [measured.steps for measured in report.measurements] == [0]
    assert "biases alone" in str(report)


def test_a_report_is_plain():
    teacher = network()
    report = finetune(compressed(teacher), teacher, steps=8, measurements=2).report
    content = report.to_dict()
    assert content["before"] == report.before
    assert [measured["steps"] for measured in content["measurements"]] == [0, 4, 8]
    assert str(report).count("held-out loss") == 3


def test_networks_that_do_not_fit():
    teacher = network()
    model = compressed(teacher)
    with pytest.raises(ArgumentError, match="model: has no H-matrix"):
        finetune(teacher, teacher)
    with pytest.raises(NetworkError, match="teacher: has no layer 2, 4"):
        finetune(model, teacher[:2], held_out=batches(1), forward=lambda module, batch: module[0](batch))
    with pytest.raises(NetworkError, match=r"teacher: its output has the shape \(16, 40\)"):
        finetune(model, teacher[:3])


def test_nothing_to_train():
    teacher = nn.Sequential(nn.Linear(SIZES[0], 4, bias=False))
    zero = leaf((0, 4), (0, SIZES[0]), 0, np.random.default_rng(0))
    model = nn.Sequential(hnn.HLinear(hm.HMatrix(pack((4, SIZES[0]), stored([zero], [Precision.INT8], (0,))))))
    with pytest.raises(ArgumentError, match="trained: leaves nothing to train"):
        finetune(model, teacher, trained=hnn.Trained.NOTHING)


def test_data_that_are_missing():
    teacher = network()
    model = compressed(teacher)
    for data, held_out, message in (
        ([], None, "held_out: has no batches"),
        (batches(), [], "held_out: has no batches"),
        (batches(1), None, "data: has no batches to train on"),
        (iter(batches()), None, "data: has no batches to train on"),
        (iter(batches()), batches(1), "data: has no batches to train on"),
        (torch.ones(4, SIZES[0]), None, "data: is one tensor of shape"),
        (batches(), torch.ones(4, SIZES[0]), "held_out: is one tensor of shape"),
    ):
        with pytest.raises(DataError, match=message):
            finetune(model, teacher, data, held_out=held_out)


def test_data_that_do_not_fit():
    teacher = network()
    model = compressed(teacher)
    narrow = [torch.ones(4, SIZES[0] + 1)]
    for data, held_out in ((narrow, batches(1)), (batches(), narrow)):
        with pytest.raises(DataError, match=r"data: a batch, a tensor of shape \(4, \d+\), does not go through"):
            finetune(model, teacher, data, held_out=held_out)


def test_a_loss_is_a_function():
    with pytest.raises(ArgumentError, match=r"loss: is 'divergence'; give .*hmatrix.nn.Divergence\(1.0\)"):
        hnn.Finetuning(loss="divergence")


def test_losses_that_are_not_finite():
    teacher = network()
    model = compressed(teacher)
    given = state(model)
    broken = [*batches(2), torch.full((4, SIZES[0]), torch.nan)]
    with pytest.raises(NetworkError, match="loss of distillation: is nan in step 3; lower `rate`"):
        finetune(model, teacher, broken, held_out=batches(1))
    assert same(given, state(model))
    with pytest.raises(NetworkError, match="model: its loss on held-out data is nan"):
        finetune(model, teacher, batches(), held_out=broken[2:])
