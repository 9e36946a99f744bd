from pathlib import Path

import pytest

from hmatrix.errors import StudyError
from hmatrix.study.config.choices import Choices, choose
from hmatrix.study.config.settings import (
    AdmissibilityName,
    CoordinatesName,
    DigitsData,
    FolderData,
    ImagenetteData,
    Interpolation,
    Method,
    Network,
    SplitterName,
)
from hmatrix.study.config.studyfile import read_study

STUDIES = Path(__file__).parents[3] / "studies"

WHOLE = """
title = "mine"
methods = ["qr", "partial-aca"]
ranks = [3, 5]
output = "out"

[structure]
coordinates = "scaled-index"
splitter = "geometric"
leaf_size = 20
admissibility = "weak"
eta = 1.5

[timing]
products = 7
threads = 2

[data]
source = "folder"
path = "images"

[[network]]
model = "resnet18"
weights = "w.pt"
layer = "fc"
options = { num_classes = 7 }
preprocessing = { resize = 64, crop = 56, interpolation = "bicubic", mean = [0, 0, 0], std = [1, 1, 1] }

[[network]]
weights = "/heads/lone.safetensors"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def test_everything_is_read(tmp_path):
    study = read_study(write(tmp_path, WHOLE))
    assert study.title == "mine"
    assert study.methods == (Method.QR, Method.PARTIAL_ACA)
    assert study.ranks == (3, 5)
    assert study.output == tmp_path / "out"
    assert study.data == FolderData(tmp_path / "images")
    structure = study.structure
    assert (structure.coordinates, structure.splitter) == (CoordinatesName.SCALED_INDEX, SplitterName.GEOMETRIC)
    assert (structure.leaf_size, structure.admissibility, structure.eta) == (20, AdmissibilityName.WEAK, 1.5)
    assert (study.timing.products, study.timing.threads) == (7, 2)
    first, second = study.networks
    assert (first.model, first.weights, first.layer) == ("resnet18", tmp_path / "w.pt", "fc")
    assert dict(first.options) == {"num_classes": 7}
    assert (first.preprocessing.resize, first.preprocessing.crop) == (64, 56)
    assert first.preprocessing.interpolation is Interpolation.BICUBIC
    assert first.preprocessing.std == (1.0, 1.0, 1.0)
    assert second == Network(None, weights=Path("/heads/lone.safetensors"))


def test_little_is_enough(tmp_path):
    study = read_study(write(tmp_path, "[[network]]\nmodel = 'resnet18'"))
    assert study.title == "study"
    assert study.output == Path("results/study")
    assert study.data is None
    assert study.ranks == (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('title = "mine"', "title = 3", "title"),
        ('["qr", "partial-aca"]', '["qr", "lu"]', "methods"),
        ('["qr", "partial-aca"]', '["dense"]', "methods"),
        ('["qr", "partial-aca"]', "[]", "methods"),
        ("[3, 5]", "[3, 0]", "ranks"),
        ("[3, 5]", "[3, -5]", "ranks"),
        ("[3, 5]", "3", "ranks"),
        ('"scaled-index"', '"circle"', "structure.coordinates"),
        ('"geometric"', '"random"', "structure.splitter"),
        ("leaf_size = 20", "leaf_size = 0", "structure.leaf_size"),
        ("leaf_size = 20", "leafsize = 20", "structure.leafsize"),
        ('"weak"', "true", "structure.admissibility"),
        ("eta = 1.5", 'eta = "big"', "structure.eta"),
        ('admissibility = "weak"\neta = 1.5', "eta = -1.5", "structure.eta"),
        ("products = 7", "products = 1.5", "timing.products"),
        ("threads = 2", "threads = true", "timing.threads"),
        ('source = "folder"', 'source = "cloud"', "data.source"),
        ('path = "images"', "", "data.path"),
        ('path = "images"', 'path = "$NO_SUCH_VARIABLE/x"', "data.path"),
        ('path = "images"', 'path = "images"\nmore = 1', "data.more"),
        ('model = "resnet18"', "model = 18", "network[0].model"),
        ('layer = "fc"', 'layr = "fc"', "network[0].layr"),
        ("{ num_classes = 7 }", "7", "network[0].options"),
        ("resize = 64", "resize = 0", "network[0].preprocessing.resize"),
        ('"bicubic"', '"cubic"', "network[0].preprocessing.interpolation"),
        ("mean = [0, 0, 0]", "mean = [0, 0]", "network[0].preprocessing.mean"),
        ("mean = [0, 0, 0]", 'mean = [0, 0, "a"]', "network[0].preprocessing.mean"),
        ('weights = "/heads/lone.safetensors"', "", "network[1].model"),
    ],
)
def test_a_malformed_key_is_named(tmp_path, old, new, key):
    assert old in WHOLE
    with pytest.raises(StudyError, match=rf"study\.toml, key '{key.replace('[', '.').replace(']', '.')}'"):
        read_study(write(tmp_path, WHOLE.replace(old, new)))


def test_a_study_without_networks_is_refused(tmp_path):
    with pytest.raises(StudyError, match="key 'network'"):
        read_study(write(tmp_path, "title = 'empty'"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"none\.toml: cannot be read"):
        read_study(tmp_path / "none.toml")


@pytest.mark.parametrize("content", [b"title = ", b"\xff\xfe"])
def test_what_is_no_toml_is_named(tmp_path, content):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(StudyError, match="is not TOML"):
        read_study(path)


def test_other_sources_of_data(tmp_path):
    head = "[[network]]\nmodel = 'a'\n[data]\n"
    assert read_study(write(tmp_path, head + "source = 'digits'")).data == DigitsData()
    imagenette = read_study(write(tmp_path, head + "source = 'imagenette'\npath = 'here'")).data
    assert imagenette == ImagenetteData(tmp_path / "here")


def test_paths_expand_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADS", "/some/heads")
    study = read_study(write(tmp_path, "[[network]]\nweights = '${HEADS}/a.safetensors'"))
    assert study.networks[0].weights == Path("/some/heads/a.safetensors")


def test_the_default_is_the_committed_digits_study(tmp_path):
    assert choose(Choices(), tmp_path) == read_study(STUDIES / "digits.toml")


def test_the_paper_study_is_the_published_one(monkeypatch):
    monkeypatch.setenv("IMAGENET_VAL", "/imagenet/val")
    study = read_study(STUDIES / "paper.toml")
    assert [network.model for network in study.networks] == [
        "torchvision:resnet18",
        "torchvision:googlenet",
        "torchvision:mobilenet_v2",
    ]
    assert study.methods == (Method.SVD, Method.QR, Method.ACA)
    assert study.ranks == (1, *range(10, 121, 10))
    assert study.timing.products == 100_000
    assert (study.structure.leaf_size, study.structure.eta) == (60, 2.0)
    assert study.data == FolderData(Path("/imagenet/val"))


def test_the_sample_study_reads(monkeypatch):
    monkeypatch.setenv("HMATRIX_DATA", "/given")
    study = read_study(STUDIES / "mobilenetv2-sample.toml")
    assert study.networks[0].weights == Path("/given/models/mobilenetv2_100.safetensors")
    assert study.networks[0].preprocessing.crop == 224


def test_a_folder_that_a_variable_names_is_relative_to_the_current_one(monkeypatch, tmp_path):
    monkeypatch.setenv("HMATRIX_DATA", "../given")
    monkeypatch.chdir(tmp_path)
    study = read_study(STUDIES / "mobilenetv2-sample.toml")
    assert study.networks[0].weights == tmp_path.parent / "given" / "models" / "mobilenetv2_100.safetensors"
