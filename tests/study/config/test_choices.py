from pathlib import Path

import pytest

from hmatrix.errors import ArgumentError
from hmatrix.study.config.choices import Choices, choose
from hmatrix.study.config.settings import DigitsData, FolderData, ImagenetteData, Method, Network

CACHE = Path("/cache")


def test_a_network_by_name():
    study = choose(Choices(model="resnet50", data="imagenet/val", weights=Path("w.pt"), layer="fc"), CACHE)
    assert study.networks == (Network("resnet50", weights=Path("w.pt"), layer="fc"),)
    assert study.data == FolderData(Path("imagenet/val"))
    assert study.output == Path("results/resnet50")


def test_a_lone_matrix():
    study = choose(Choices(model="heads/fc.safetensors"), CACHE)
    assert study.networks == (Network(None, weights=Path("heads/fc.safetensors")),)
    assert study.data is None
    assert study.output == Path("results/fc")


@pytest.mark.parametrize(("name", "data"), [("digits", DigitsData()), ("imagenette", ImagenetteData(CACHE))])
def test_named_data(name, data):
    assert choose(Choices(model="resnet18", data=name), CACHE).data == data


def test_options_replace_what_a_file_says(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text("ranks = [9]\n[structure]\nleaf_size = 10\neta = 3\n[[network]]\nmodel = 'a'")
    study = choose(
        Choices(
            model=str(path),
            methods=("svd", "randomized-svd"),
            ranks=(1, 2),
            eta=0.5,
            products=5,
            threads=2,
            layer="x",
            output=Path("o"),
        ),
        CACHE,
    )
    assert study.methods == (Method.SVD, Method.RANDOMIZED_SVD)
    assert (study.ranks, study.output) == ((1, 2), Path("o"))
    assert (study.structure.leaf_size, study.structure.eta) == (10, 0.5)
    assert (study.timing.products, study.timing.threads) == (5, 2)
    assert study.networks == (Network("a", layer="x"),)


@pytest.mark.parametrize("method", ["lu", "dense", "global-svd"])
def test_an_unknown_method_is_refused(method):
    with pytest.raises(ArgumentError, match=f"--methods: got '{method}'"):
        choose(Choices(methods=("svd", method)), CACHE)


@pytest.mark.parametrize("eta", [0.0, -1.0, float("nan"), float("inf")])
def test_eta_out_of_range_is_refused(eta):
    with pytest.raises(ArgumentError, match="eta: got"):
        choose(Choices(eta=eta), CACHE)


def test_data_for_a_lone_matrix_are_refused():
    with pytest.raises(ArgumentError, match="--data: was given with a lone matrix"):
        choose(Choices(model="head.safetensors", data="digits"), CACHE)


def test_one_layer_for_several_networks_is_refused(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text("[[network]]\nmodel = 'a'\n[[network]]\nmodel = 'b'")
    with pytest.raises(ArgumentError, match="the study has 2 networks"):
        choose(Choices(model=str(path), layer="fc"), CACHE)
