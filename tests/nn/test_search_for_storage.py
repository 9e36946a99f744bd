"""Budgets of time and of accuracy, and searches that are interrupted."""

import random
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from compressible import same, small, vectors
from importing import SUPPORT
from modelled import time_of
from torch import nn

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix.errors import ArgumentError, NetworkError
from hmatrix.nn.compression import compress
from hmatrix.nn.network.accuracy import judge
from hmatrix.nn.network.sensitivity import rounded


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
        compress(network, hm.Budget(storage=0.25), **arguments)
    resumed = True
    model, _ = compress(network, hm.Budget(storage=0.25), **arguments)
    # Two layers, and both once more, for what they do to the output; the one before the interruption is not repeated.
    assert len(fits) == 4
    again, _ = compress(network, hm.Budget(storage=0.25), **arguments)
    assert len(fits) == 4
    assert same(model.state_dict(), again.state_dict())


RUN = """
import sys
sys.path.insert(0, sys.argv[1])
import hmatrix as hm
from importing import SUPPORT
from compressible import small, vectors
from hmatrix.nn import compress, save
print("ready", flush=True)
network = small(32, 48, 48, 10)
model, _ = compress(network, hm.Budget(storage=0.25), calibration=vectors(32), cache=sys.argv[2], progress=False)
save(model, sys.argv[3])
"""


@pytest.mark.nightly
def test_a_search_that_is_killed_again_and_again_gives_the_same_bits(tmp_path):
    def run(cache, seconds):
        command = [
            sys.executable,
            "-c",
            RUN,
            str(SUPPORT),
            str(tmp_path / cache),
            str(tmp_path / f"{cache}.safetensors"),
        ]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert running.stdout.readline() == "ready\n"
        try:
            running.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            running.kill()
            running.communicate()
        return running.returncode

    assert run("whole", None) == 0
    rng = random.Random(0)
    ends = [run("killed", rng.uniform(0.02, 0.4)) for _ in range(10)]
    assert -signal.SIGKILL in ends
    assert run("killed", None) == 0
    whole, killed = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("whole", "killed"))
    assert whole == killed
    entries = [sorted(path.name for path in (tmp_path / name / "layers").iterdir()) for name in ("whole", "killed")]
    assert entries[0] == entries[1]


def test_a_cache_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(hm.HMatrixError, match="cannot be made"):
        compress(small(32, 10), hm.Budget(storage=0.5), cache=tmp_path / "file" / "in", progress=False)


@pytest.mark.parametrize(("layer", "exponent"), [(0, 66), (0, -66), (2, 110), (2, -100)])
def test_powers_of_two_in_a_weight_change_no_share(layer, exponent):
    """A network that is piecewise linear: what comes of it is the same but for a power of two."""
    calibration, found = vectors(32), []
    for power in (0, exponent):
        network = small(32, 24, 10)
        with torch.no_grad():
            network[0].bias.zero_()
            network[2].bias.zero_()
            network[layer].weight.mul_(2.0**power)
        model, report = compress(network, hm.Budget(storage=0.4), calibration=calibration, progress=False)
        found.append([replace(one, seconds=0.0) for one in report.layers])
        output = model(torch.cat(calibration)).detach().double() * 2.0**-power
        found.append(output)
    assert [layer.sensitivity for layer in found[2]] == [layer.sensitivity for layer in found[0]]
    assert [layer.after for layer in found[2]] == [layer.after for layer in found[0]]
    torch.testing.assert_close(found[3], found[1], rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("timed")
def test_time_is_for_each_layer_where_it_is_possible():
    network = small(256, 256, 8)
    model, report = compress(network, hm.Budget(time=0.8), progress=False)
    assert isinstance(model[0], hnn.HLinear)
    assert type(model[2]) is nn.Linear
    assert report.layers[0].after < report.layers[0].before
    with pytest.raises(ArgumentError, match=r"budget of layer 0: is a time of 0\.1; give "):
        compress(small(8, 8), hm.Budget(time=0.1), progress=False)
    with pytest.raises(ArgumentError, match=r"budget of layer 2: .* no other layer"):
        compress(small(8, 12, 24, 8), hm.Budget(time=0.1), progress=False)


@pytest.mark.usefixtures("timed")
def test_storage_is_shared_and_time_kept_where_it_is_possible():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Embedding(500, 256), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 8))
    tokens = [torch.randint(500, (4, 7))]
    model, report = compress(network, hm.Budget(storage=0.4, time=0.4), calibration=tokens, progress=False)
    assert sum(layer.after for layer in report.layers) <= 0.4 * sum(layer.before for layer in report.layers)
    assert time_of(model[1].weight.matrix) <= 0.4
    # A layer of 8 x 256 cannot be as fast; an embedding multiplies nothing.
    assert isinstance(model[3], nn.Linear) or time_of(model[3].weight.matrix) > 0.4
    assert time_of(model[0].weight.matrix) > 0.4


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


def test_a_network_that_is_compressed_already():
    once, _ = compress(small(32, 10), hm.Budget(storage=0.5), progress=False)
    with pytest.raises(NetworkError, match="compressed already"):
        compress(once, hm.Budget(storage=0.5), progress=False)


def test_a_drop_that_cannot_be_kept():
    scores = iter([100.0, *[0.0] * 9])
    with pytest.raises(NetworkError, match=r"a drop of 0\.5 was not kept"):
        compress(small(32, 10), hm.Budget(max_drop=0.5), evaluate=lambda _: next(scores), evaluations=2, progress=False)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("x", "returned a str"),
        (None, "returned nothing"),
        (np.nan, "returned nan"),
        (np.ones((2, 2)), "shape"),
        ([], "shape"),
    ],
)
def test_scores_that_cannot_be_used(returned, message):
    with pytest.raises(ArgumentError, match=message):
        compress(small(32, 10), hm.Budget(max_drop=1.0), evaluate=lambda _: returned, progress=False)


def test_scores_of_other_samples():
    counts = iter([3, 4])
    with pytest.raises(ArgumentError, match="same samples"):
        compress(small(32, 10), hm.Budget(max_drop=1.0), evaluate=lambda _: np.ones(next(counts)), progress=False)


def test_a_drop_of_just_as_much_as_is_allowed_is_allowed():
    """In the last bit 97.3 - 96.3 is more than 1."""
    assert judge(np.array([97.3]), np.array([96.3]), 0.5, 1.0).passed
    assert not judge(np.array([97.3]), np.array([96.3 - 1e-9]), 0.5, 1.0).passed


def test_estimates_are_rounded_alike_on_either_side_of_a_tie():
    assert {rounded(0.125 * (1 + bit * 2.0**-50)) for bit in (-1, 0, 1)} == {0.13}
