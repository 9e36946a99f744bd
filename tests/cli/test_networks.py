"""The commands for whole networks, by the examples of their help."""

import json
import re
import shlex

import numpy as np
import pytest
import torch
from compressible import codes_of
from modelled import time_of
from PIL import Image
from safetensors.numpy import save_file
from torch import nn

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix.cli import compress, evaluate, finetune, main, show
from hmatrix.nn.training import finetuning
from hmatrix.study.config.settings import DigitsData, Network
from hmatrix.study.networks import digits
from hmatrix.study.whole.whole_files import load_whole
from hmatrix.study.whole.whole_images import open_classifier


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Run in an empty folder, on a small embedded network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digits, "_HIDDEN", 64)


def example(module, number):
    """Return the arguments of an example of a command's help."""
    lines = [line for line in module.EXAMPLES.splitlines() if line.startswith("  hmatrix ")]
    return shlex.split(lines[number].strip().split("  ")[0])[1:]


def run(arguments, capsys):
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("module", [compress, evaluate, finetune, show])
def test_help_has_examples(module, capsys):
    name = module.__name__.rpartition(".")[2]
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    assert module.EXAMPLES in capsys.readouterr().out


def test_the_embedded_network(capsys, tmp_path):
    command = example(compress, 0)
    assert command[:2] == ["compress", "digits"]
    printed = run([*command, "--report", "report.json"], capsys)
    assert "fc2" in printed
    assert "top-1 on 899 images" in printed
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["after"] <= 0.1 * report["before"]

    printed = run(example(evaluate, 0), capsys)
    assert "3 H-matrix layers" in printed
    assert "95 % interval" in printed

    printed = run(example(show, 0), capsys)
    assert [line.split(":")[0] for line in printed.splitlines()] == ["fc1", "fc2", "fc3"]
    run(example(show, 1), capsys)
    for name in ("fc2.png", "fc2-spectra.png"):
        with Image.open(tmp_path / name) as image:
            assert image.width > 500
    # Again, from the cache, the same.
    first = (tmp_path / "small.safetensors").read_bytes()
    run(command, capsys)
    again, x = load_whole(tmp_path / "small.safetensors"), torch.ones(2, 64)
    assert torch.equal(again.module(x), _loaded(first, tmp_path)(x))


def interrupted(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.slow
def test_the_embedded_network_is_trained_back(capsys, tmp_path, monkeypatch):
    run(["compress", "digits", "--storage", "0.06", "-o", "small.safetensors"], capsys)
    # Ctrl-C while the given network is measured: nothing is written, and nothing else is said.
    with monkeypatch.context() as patched:
        patched.setattr(finetuning, "HeldOut", interrupted)
        assert main(example(finetune, 0)) == 130
    assert capsys.readouterr().err == "\nhmatrix: interrupted; given again, the command begins anew\n"
    assert not (tmp_path / "better.safetensors").exists()
    printed = run(example(finetune, 0), capsys)
    losses = [float(line.split()[-1]) for line in printed.splitlines() if "held-out loss" in line]
    before = float(re.search(r"^loss +(\S+) ->", printed, re.MULTILINE)[1])
    assert min(losses) < 0.9 * before
    assert re.search(r"top-1 on 899 images\nlost .*95 % interval", printed)
    header, again = (hnn.read_header(tmp_path / f"{name}.safetensors") for name in ("small", "better"))
    assert again == header
    small, better = (load_whole(tmp_path / f"{name}.safetensors").module for name in ("small", "better"))
    inputs, _ = digits.held_out()
    reference = digits.train()
    with torch.no_grad():
        wanted = reference(inputs)
        errors = [float((module(inputs) - wanted).square().mean()) for module in (small, better)]
    assert errors[1] < 0.9 * errors[0]


def test_training_is_told_how(capsys, tmp_path):
    run(["compress", "digits", "--storage", "0.06", "-o", "small.safetensors"], capsys)
    told = ["--steps", "40", "--codes", "0", "--rate", "1e-3", "--divergence", "1", "-o", "better.safetensors"]
    printed = run(["finetune", "small.safetensors", *told], capsys)
    small, better = (load_whole(tmp_path / f"{name}.safetensors").module for name in ("small", "better"))
    np.testing.assert_array_equal(codes_of(small), codes_of(better))
    whole = open_classifier(Network("digits"), DigitsData())
    with torch.no_grad():
        expected = [
            np.mean([float(hnn.Divergence(1.0)(module(x), whole.module(x))) for x in whole.held_out])
            for module in (small, better)
        ]
    found = re.search(r"^loss +(\S+) -> (\S+)", printed, re.MULTILINE)
    assert [float(found[1]), float(found[2])] == pytest.approx(expected, rel=1e-3)
    assert expected[1] < expected[0]


def _loaded(content, folder):
    (folder / "again").write_bytes(content)
    return load_whole(folder / "again").module


def test_a_lone_matrix(capsys, tmp_path):
    weight = np.random.default_rng(0).standard_normal((48, 40)).astype(np.float32)
    save_file({"fc.weight": weight}, "head.safetensors")
    printed = run(example(compress, 4), capsys)
    matrix = hm.load(tmp_path / "small.safetensors")
    assert matrix.storage().total <= 0.125 * 4 * weight.size
    error = np.linalg.norm(weight - matrix.to_dense()) / np.linalg.norm(weight)
    assert f"relative error {error:.4f}" in printed
    (tmp_path / "matrix.safetensors").write_bytes((tmp_path / "small.safetensors").read_bytes())
    run(example(show, 2), capsys)
    page = (tmp_path / "matrix.html").read_text()
    assert page.count("<svg") == 2
    assert page.count("<tr>") == 1 + len(list(matrix.leaves()))
    assert "dense trellis4, " in run(["show", "matrix.safetensors"], capsys)


def test_one_matrix_of_several(capsys):
    weight = np.random.default_rng(0).standard_normal((48, 40)).astype(np.float32)
    save_file({"fc.weight": weight, "head.weight": weight[:20]}, "both.safetensors")
    run(["compress", "both.safetensors", "--storage", "0.2", "--layers", "head", "-o", "small"], capsys)
    assert hm.load("small").shape == (20, 40)
    assert main(["compress", "both.safetensors", "--storage", "0.2", "-o", "small"]) == 1
    assert "--layers); hmatrix.nn.compress takes your own network" in capsys.readouterr().err


def test_a_drop(capsys):
    printed = run(["compress", "digits", "--max-drop", "1", "--trials", "2", "-o", "small", "--layers", "fc2"], capsys)
    assert printed.count("trial ") <= 2
    assert list(hnn.read_header("small").layers) == ["fc2"]


def test_the_last_layer(capsys):
    run(["compress", "digits", "--storage", "0.6", "--layers", "last", "-o", "small"], capsys)
    assert list(hnn.read_header("small").layers) == ["fc3"]


@pytest.mark.usefixtures("timed")
def test_storage_and_time(capsys):
    command = example(compress, 7)
    assert command[2:6] == ["--storage", "0.25", "--time", "0.9"]
    printed = run(command, capsys)
    assert "layers" in printed
    for layer in load_whole("quick.safetensors").module.modules():
        if isinstance(layer, hnn.HLinear):
            # The last layer cannot be as fast.
            assert (time_of(layer.matrix) <= 0.9) == (layer.out_features > 10)


def test_a_progressive_head(capsys, tmp_path):
    command = example(compress, 5)
    assert command[2:4] == ["--head", "progressive"]
    printed = run(command, capsys)
    assert "head     fc3: 10 x " in printed
    assert hnn.read_header("fast.safetensors").heads == {"fc3": (10, 64)}
    printed = run(["evaluate", "fast.safetensors"], capsys)
    assert "0 H-matrix layers, 1 progressive head" in printed
    lost = float(re.search(r"lost +(-?[\d.]+)", printed)[1])
    assert abs(lost) < 1.5
    assert main(["show", "fast.safetensors"]) == 1
    assert "no H-matrix, but a progressive head, fc3" in capsys.readouterr().err
    network = digits.train()
    x = digits.held_out()[0]
    agreed = load_whole(tmp_path / "fast.safetensors").module(x).argmax(1) == network(x).argmax(1)
    assert agreed.float().mean() > 0.98


def test_a_budget_and_a_progressive_head(capsys):
    command = "compress digits --storage 0.5 --head progressive --agreement 0.9 --layers re:fc[13] -o both --report r"
    assert "head     fc3" in run(command.split(), capsys)
    header = hnn.read_header("both")
    assert (list(header.layers), list(header.heads)) == (["fc1"], ["fc3"])
    assert "1 progressive head" in run(["evaluate", "both"], capsys)
    assert "fc1" in run(["show", "both"], capsys)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("compress mobilenetv3_small_100 --max-drop 1 -o x --weights nowhere", "cannot be read"),
        (
            "compress mobilenetv3_small_100 --storage 0.3 --data images -o x --weights nowhere",
            "data images: is no folder",
        ),
        ("compress head.safetensors --max-drop 1 -o x", "given with a lone matrix"),
        ("compress head.safetensors --head progressive -o x", "--head: was given with a lone matrix"),
        ("compress digits --storage 0.1 --agreement 0.9 -o x", "--agreement: was given without a head"),
        ("compress digits --head progressive --agreement 1 -o x", "agreement: is 1.0"),
        ("compress digits --head progressive --report y -o x", "--report: was given without a budget"),
        ("compress digits --storage 0.1 --layers nowhere -o x", "no layer that can be compressed"),
        ("compress digits --storage 0.1 --layers nowhere -o x", "layers, here fc1, fc2, fc3"),
        ("compress digits --storage 0.00001 -o x", "of the storage"),
        ("compress digits --storage 0.3 -o nowhere/x", "cannot be written"),
        ("compress digits --storage 0.3 -o x --report nowhere/y", "there is no folder nowhere); make it"),
        ("finetune nameless -o nowhere/x", "there is no folder nowhere); make it"),
        ("finetune nameless -o .", "is a folder"),
        ("evaluate nowhere", "cannot be read"),
        ("finetune nowhere -o x", "cannot be read"),
        ("finetune head.safetensors -o x", "no header of a compressed network"),
        ("finetune nameless -o x", "does not tell how to build"),
        ("show nowhere", "cannot be read"),
        ("show head.safetensors", "no header of a compressed network"),
        ("show matrix --layer a", "single matrix"),
        ("show matrix -o x.pdf", "has the ending '.pdf'"),
        ("show matrix -o matrix/x.html", "cannot be written"),
    ],
)
def test_what_is_wrong_is_one_line(command, message, capsys):
    save_file({"fc.weight": np.eye(12, dtype=np.float32)}, "head.safetensors")
    hm.save(hm.quantize(np.eye(12, dtype=np.float32), "int8"), "matrix")
    hnn.save(nn.Sequential(hnn.HLinear(hm.quantize(np.eye(4, dtype=np.float32), "int8"))), "nameless")
    assert main(command.split()) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("hmatrix: ")
    assert message in error


def test_one_budget_is_needed(capsys):
    assert main(["compress", "digits", "-o", "x"]) == 1
    assert "give --storage, --time or --max-drop, or --head progressive" in capsys.readouterr().err
    assert main(["compress", "digits", "-o", "x", "--storage", "0.1", "--max-drop", "0.3"]) == 1
    assert "budget: has storage and max_drop; give one of storage, bytes, time and max_drop" in capsys.readouterr().err


@pytest.mark.parametrize("storage", ["12.5", "-1", "0", "nan", "25%"])
def test_a_storage_is_a_fraction(storage, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["compress", "digits", "-o", "x", "--storage", storage])
    assert f"argument --storage: got {storage}; give a fraction" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--minutes", "0"],
        ["--minutes", "inf"],
        ["--minutes", "x"],
        ["--steps", "0"],
        ["--rate", "0"],
        ["--codes", "-1"],
        ["--codes", "nan"],
        ["--divergence", "0"],
    ],
)
def test_a_length_is_positive(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["finetune", "small", "-o", "x", *arguments])
    assert arguments[0] in capsys.readouterr().err
