import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peaks import needs_peaks, peak_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix.errors import ArgumentError, FormatError, NetworkError, OutputError

GOLDEN = Path(__file__).parents[2] / "golden" / "network-v1.safetensors"


class Network(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.embedding = nn.Embedding(20, width, padding_idx=0)
        self.conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.hidden = nn.Linear(4 * width, width)
        self.twin = nn.Linear(width, width)
        self.other = nn.Linear(width, width)
        self.other.weight = self.twin.weight
        self.out = nn.Linear(width, 20, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, indices):
        x = self.norm(self.conv(self.embedding(indices)[:, None])).relu().mean(dim=2).flatten(1)
        return self.out(self.other(self.twin(self.hidden(x))))


TOKENS = torch.arange(20).reshape(4, 5)


def compressed():
    """A network with H-matrices of known parts, without a search for them."""
    torch.manual_seed(0)
    network = Network().eval()
    with torch.no_grad():
        network.embedding.weight[0] = 0

    def matrix(layer, precision):
        return hnn.HWeight(hm.quantize(layer.weight.detach().flatten(1).numpy(), precision, activations="int8"))

    shared = matrix(network.embedding, "int8")
    network.hidden = hnn.HLinear(matrix(network.hidden, "int4"), network.hidden.bias)
    network.conv = hnn.HConv2d(network.conv, matrix(network.conv, "float32"))
    network.conv.bias = nn.Parameter(torch.full((4,), 0.25))
    network.embedding = hnn.HEmbedding(shared, 0, zero_padding=True)
    network.out = hnn.HLinear(shared)
    return network


@pytest.fixture
def saved(tmp_path):
    network = compressed()
    path = tmp_path / "network.safetensors"
    hnn.save(network, path, {"model": "small", "width": 16})
    return network, path


def bare():
    return Network()


def on_meta():
    with torch.device("meta"):
        return Network()


@pytest.mark.parametrize("build", [bare, on_meta])
def test_round_trip(saved, build):
    network, path = saved
    again = hnn.load(path, build())
    assert torch.equal(again(TOKENS), network(TOKENS))
    assert again.out.weight is again.embedding.weight
    assert again.other.weight is again.twin.weight
    assert not again.embedding(torch.tensor(0)).any()
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_the_header(saved):
    _, path = saved
    header = hnn.read_header(path)
    assert header.version == 1
    assert header.hmatrix == hm.__version__
    assert header.architecture == {"model": "small", "width": 16}
    assert {name: layer.shape for name, layer in header.layers.items()} == {
        "embedding": (20, 16),
        "conv": (4, 9),
        "hidden": (16, 64),
        "out": (20, 16),
    }


def test_what_is_shared_is_stored_once(saved):
    _, path = saved
    with safe_open(path, framework="np") as file:
        names = set(file.keys())
    assert "embedding.weight.words" in names
    assert "out.weight.words" not in names
    assert "other.weight" not in names


def test_a_single_layer(tmp_path):
    layer = hnn.HLinear(hm.quantize(np.eye(8, 6, dtype=np.float32), "int8"), torch.arange(8.0))
    hnn.save(layer, tmp_path / "layer")
    again = hnn.load(tmp_path / "layer", nn.Linear(6, 8))
    assert torch.equal(again(torch.ones(2, 6)), layer(torch.ones(2, 6)))
    assert hnn.load_matrix(tmp_path / "layer", "").shape == (8, 6)


def test_one_matrix(saved):
    network, path = saved
    for name in ("hidden", "out"):
        expected = network.get_submodule(name).matrix.to_dense()
        np.testing.assert_array_equal(hnn.load_matrix(path, name).to_dense(), expected)
    with pytest.raises(ArgumentError, match="has no 'twin'"):
        hnn.load_matrix(path, "twin")


def test_views_of_one_storage_are_saved(tmp_path):
    network = nn.Sequential(hnn.HLinear(hm.quantize(np.eye(4, dtype=np.float32), "int8")))
    base = torch.arange(10.0)
    network.register_buffer("first", base[:6])
    network.register_buffer("second", base[4:])
    hnn.save(network, tmp_path / "file")
    assert torch.equal(load_file(tmp_path / "file")["second"], base[4:])


def test_the_golden_file():
    """A file of the first version opens for ever."""
    network = hnn.load(GOLDEN, Network())
    assert hnn.read_header(GOLDEN).architecture == {"model": "golden"}
    torch.testing.assert_close(network(TOKENS), load_file(GOLDEN.with_name("network-v1-output.safetensors"))["output"])


def rewritten(path, change, *, kept=False):
    """Change the header and the tensors of a file, which has digests after that only where they are to be kept."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["hmatrix"])
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    if not kept:
        del header["array_digests"], header["header_digest"]
    change(header, tensors)
    save_file(tensors, path, metadata={"hmatrix": json.dumps(header)})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda header, _: header.update(version=2), FormatError, "version 2; this release reads version 1"),
        (lambda header, _: header.update(version=True), FormatError, "version True"),
        (lambda header, _: header.pop("kind"), FormatError, "no header of a compressed network"),
        (lambda header, _: header.pop("layers"), FormatError, "has no layers; the header is damaged"),
        (
            lambda header, _: header["layers"]["out"].update(shape=[1]),
            FormatError,
            r"has layers\.out\.shape of \[1\], not",
        ),
        (
            lambda header, _: header["layers"]["out"].update(shape=[2**40, 1]),
            FormatError,
            "not rows and columns, of 1 to",
        ),
        (lambda header, _: header["layers"]["out"].pop("has_bias"), FormatError, r"has no layers\.out\.has_bias"),
        (lambda header, _: header["layers"]["out"].update(has_bias=1), FormatError, "of 1, not true or false"),
        (
            lambda header, _: header["layers"]["out"].update(weight="no"),
            FormatError,
            "of 'no', not the name of",
        ),
        (lambda header, _: header["layers"]["out"].update(extra=1), FormatError, r"unknown key layers\.out\.extra"),
        (lambda header, _: header["layers"].update(out=5), FormatError, r"has layers\.out of 5, not values by key"),
        (lambda header, _: header.update(layers=[1]), FormatError, r"has layers of \[1\], not values by key"),
        (lambda header, _: header.update(extra=1), FormatError, "has the unknown key extra; .*known are architecture"),
        (lambda header, _: header.update(hmatrix=1), FormatError, "has hmatrix of 1, not a string"),
        (lambda header, _: header.update(architecture=5), FormatError, "has architecture of 5, not values by key"),
        (lambda header, _: header.update(heads={"out": [5]}), FormatError, r"has heads\.out of \[5\], not rows"),
        (lambda header, _: header["shared"].update(a=5), FormatError, r"has shared\.a of 5, not a string"),
        (lambda header, _: header["shared"].update(a="b"), FormatError, "lacks b"),
        (lambda _, tensors: tensors.pop("norm.bias"), NetworkError, "does not fit"),
        (lambda _, tensors: tensors.pop("hidden.weight.words"), NetworkError, "does not fit"),
        (lambda _, tensors: tensors["hidden.weight.leaves"].fill_(9), NetworkError, "does not fit"),
    ],
)
def test_damaged_files(saved, change, error, message):
    _, path = saved
    rewritten(path, change)
    with pytest.raises(error, match=message):
        hnn.load(path, Network())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _, tensors: tensors["norm.bias"].add_(1), r"norm\.bias does not fit the digest"),
        (lambda _, tensors: tensors.pop("norm.bias"), r"norm\.bias does not fit the digest"),
        (lambda _, tensors: tensors.update(more=torch.ones(1)), "more does not fit the digest"),
        (
            lambda _, t: t.update({"norm.bias": t["norm.weight"], "norm.weight": t["norm.bias"]}),
            r"norm\.bias, norm\.weight do not fit the digest",
        ),
        (lambda header, _: header["architecture"].update(a=1), "its header does not fit the digest"),
        (lambda header, _: header.pop("header_digest"), "its header does not fit the digest"),
    ],
)
def test_a_file_knows_that_it_is_damaged(saved, change, message):
    _, path = saved
    rewritten(path, change, kept=True)
    with pytest.raises(FormatError, match=f"is damaged: {message}"):
        hnn.load(path, Network())


def test_a_damaged_file_can_be_read_as_it_is(saved):
    _, path = saved
    rewritten(path, lambda header, tensors: [header.update(hmatrix="x"), tensors["norm.bias"].add_(1)], kept=True)
    for read in (lambda **how: hnn.load(path, Network(), **how), lambda **how: hnn.read_header(path, **how)):
        with pytest.raises(FormatError, match="is damaged"):
            read()
        read(verify=False)
    with pytest.raises(FormatError, match="is damaged"):
        hnn.load_matrix(path, "hidden")
    hnn.load_matrix(path, "hidden", verify=False)


def test_a_matrix_of_a_damaged_file(saved):
    _, path = saved
    rewritten(path, lambda _, tensors: tensors["embedding.weight.words"].add_(1), kept=True)
    hnn.load_matrix(path, "hidden")
    with pytest.raises(FormatError, match=r"is damaged: .*weight\.words does not fit"):
        hnn.load_matrix(path, hnn.read_header(path).layers["out"].weight)


def test_a_damaged_matrix(saved):
    _, path = saved
    rewritten(path, lambda _, tensors: tensors["hidden.weight.leaves"].fill_(9))
    with pytest.raises(FormatError, match="layer hidden is damaged"):
        hnn.load_matrix(path, "hidden")


def test_files_of_other_kinds(tmp_path, saved):
    _, path = saved
    with pytest.raises(FormatError, match="cannot be read"):
        hnn.load(tmp_path / "nowhere", Network())
    torch.save(Network().state_dict(), tmp_path / "torch.pt")
    with pytest.raises(FormatError, match=r"torch\.pt: is an archive, as torch\.save writes it; give a whole file"):
        hnn.load(tmp_path / "torch.pt", Network())
    with pytest.raises(FormatError, match=r"torch\.pt: is an archive"):
        hm.load(tmp_path / "torch.pt")
    (tmp_path / "truncated").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError, match="cannot be read"):
        hnn.load(tmp_path / "truncated", Network())
    hm.save(hm.quantize(np.eye(3), "int8"), tmp_path / "matrix")
    with pytest.raises(FormatError, match="no header of a compressed network"):
        hnn.load(tmp_path / "matrix", Network())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: Network(width=24), r"layer embedding of \(20, 16\)"),
        (lambda: nn.Linear(3, 3), "there is none"),
        (lambda: nn.ModuleDict({"embedding": nn.ReLU()}), "is a ReLU"),
    ],
)
def test_other_networks(saved, network, message):
    _, path = saved
    with pytest.raises(NetworkError, match=message):
        hnn.load(path, network())


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(ArgumentError, match="has no H-matrix"):
        hnn.save(nn.Linear(3, 3), tmp_path / "file")
    network = compressed()
    with pytest.raises(ArgumentError, match="architecture"):
        hnn.save(network, tmp_path / "file", {"shape": {1, 2}})
    with pytest.raises(OutputError, match="cannot be written"):
        hnn.save(network, tmp_path / "nowhere" / "file")
    with pytest.raises(OutputError, match="has no name"):
        hnn.save(network, "/")
    network.get_extra_state = lambda: "text"
    with pytest.raises(ArgumentError, match="tensors only"):
        hnn.save(nn.ModuleList([network, Extra()]), tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


@needs_peaks
def test_loading_takes_hardly_more_than_the_file(tmp_path):
    """100 MB of float32, which are looked at for NaN, and multiplied."""
    values = np.random.default_rng(0).standard_normal((5000, 5000), dtype=np.float32)
    file = tmp_path / "layer"
    hnn.save(hnn.HLinear(hm.quantize(values, "float32")), file)
    assert file.stat().st_size > 1e8
    before = """
        import torch

        import hmatrix.nn
        with torch.device("meta"):
            layer = torch.nn.Linear(5000, 5000, bias=False)
    """
    load = f"layer = hmatrix.nn.load({str(file)!r}, layer); layer(torch.ones(1, 5000))"
    assert 0.9 < peak_of(before, load) / file.stat().st_size < 1.2


class Extra(nn.Module):
    def get_extra_state(self):
        return "text"
