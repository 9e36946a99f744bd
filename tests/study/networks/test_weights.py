"""Files of weights, and lone matrices."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import MODEL, image_batch, write_torch
from safetensors.torch import save_file
from torch import nn

from hmatrix.errors import FormatError, NetworkError
from hmatrix.study.config.settings import Network
from hmatrix.study.networks.models import load_network
from hmatrix.study.networks.weights import load_matrix, read_state_dict


def write_safetensors_elsewhere(state, path):
    save_file(state, path.with_suffix(".bin"))
    return path.with_suffix(".bin")


def write_legacy(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


def write_wrapped(key):
    return lambda state, path: write_torch({key: state, "epoch": 3}, path)


def write_parallel(state, path):
    return write_wrapped("state_dict")({f"module.{key}": value for key, value in state.items()}, path)


@pytest.mark.parametrize(
    "write",
    [
        write_safetensors_elsewhere,
        write_torch,
        write_legacy,
        write_wrapped("state_dict"),
        write_wrapped("model"),
        write_parallel,
    ],
)
def test_every_kind_of_file_gives_the_same_network(write, reference, weights, tmp_path):
    expected = load_network(Network(MODEL, weights))
    loaded = load_network(Network(MODEL, write(reference.state_dict(), tmp_path / "weights.pt")))
    assert loaded.digest == expected.digest
    with torch.inference_mode():
        assert torch.equal(loaded.module(image_batch(64)), reference(image_batch(64)))


def truncated(content):
    return content[: len(content) // 2]


def write_bytes(path, content):
    path.write_bytes(content)
    return path


def torch_bytes(path, content, **options):
    torch.save(content, path, **options)
    return path.read_bytes()


def script_bytes(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(3, 3)), path)
    return path.read_bytes()


STATE = {"fc.weight": torch.ones(200, 300)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.pt", lambda _: b"", "truncated or no file of weights"),
        ("text.pt", lambda _: b"hello, this is text", "no file of weights"),
        ("binary.pt", lambda _: bytes(range(255, 0, -1)), "no file of weights"),
        ("array.pt", lambda _: b"\x93NUMPY" + bytes(100), "no file of weights"),
        ("cut.pt", lambda p: truncated(torch_bytes(p, STATE)), "truncated"),
        ("old.pt", lambda p: truncated(torch_bytes(p, STATE, _use_new_zipfile_serialization=False)), "truncated"),
        ("script.pt", script_bytes, "no file of weights"),
        ("module.pt", lambda p: torch_bytes(p, nn.Linear(3, 3)), "holds Python objects"),
        ("tensor.pt", lambda p: torch_bytes(p, torch.ones(3)), "holds a Tensor, not a state dict"),
        ("mixed.pt", lambda p: torch_bytes(p, {**STATE, "epoch": 3}), r"not tensors \(epoch\)"),
        ("none.pt", lambda p: torch_bytes(p, {}), "holds no tensors"),
        ("empty.safetensors", lambda _: b"", "not a whole safetensors file"),
        ("text.safetensors", lambda _: b"hello, this is text", "not a whole safetensors file"),
        ("cut.bin", lambda _: (100).to_bytes(8, "little") + b'{"a":', "not a whole safetensors file"),
    ],
)
def test_foreign_and_damaged_files(name, content, message, tmp_path):
    path = write_bytes(tmp_path / name, content(tmp_path / "source"))
    with pytest.raises(FormatError, match=message):
        read_state_dict(path)


def test_truncated_safetensors(weights, tmp_path):
    path = write_bytes(tmp_path / "cut.safetensors", truncated(weights.read_bytes()))
    with pytest.raises(FormatError, match="not a whole safetensors file"):
        read_state_dict(path)


def test_pickles_are_not_executed(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    torch.save({"fc.weight": Attack()}, tmp_path / "attack.pt")
    with pytest.raises(FormatError, match="holds Python objects"):
        read_state_dict(tmp_path / "attack.pt")
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("name", ["missing.safetensors", "missing.pt", "."])
def test_missing_files(name, tmp_path):
    with pytest.raises(FormatError, match="cannot be read"):
        read_state_dict(tmp_path / name)


# Lone matrices


@pytest.fixture
def matrices(tmp_path):
    def write(**tensors):
        path = tmp_path / "matrix.safetensors"
        save_file({key.replace("__", "."): value for key, value in tensors.items()}, path)
        return path

    return write


def test_only_matrix(matrices):
    weight = torch.randn(5, 7)
    path = matrices(fc__weight=weight, fc__bias=torch.ones(5))
    matrix, name, digest = load_matrix(Network(None, path))
    assert name == "fc"
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, weight.numpy())
    assert load_matrix(Network(None, path, layer=name))[2] == digest
    assert load_matrix(Network(None, matrices(fc__weight=weight + 1e-6)))[2] != digest
    assert load_matrix(Network(None, matrices(fc__weight=weight.reshape(7, 5))))[2] != digest


@pytest.mark.parametrize("layer", ["head", "head.weight"])
def test_named_matrix(layer, matrices):
    path = matrices(fc__weight=torch.zeros(2, 3), head__weight=torch.ones(4, 3), other=torch.zeros(2, 2))
    matrix, name, _ = load_matrix(Network(None, path, layer=layer))
    assert (matrix.shape, name) == ((4, 3), "head")
    assert load_matrix(Network(None, path, layer="other"))[0].shape == (2, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(dtype, matrices):
    weight = torch.randn(5, 7).to(dtype)
    matrix, *_ = load_matrix(Network(None, matrices(w=weight)))
    np.testing.assert_array_equal(matrix, weight.float().numpy())


@pytest.mark.parametrize(
    ("tensors", "layer", "message"),
    [
        ({"a": torch.ones(2, 2), "b__weight": torch.ones(3, 3)}, None, r"holds 2 matrices \(a, b.weight\)"),
        ({"a": torch.ones(2)}, None, "holds 0 matrices; name a file with a matrix"),
        ({"a": torch.ones(2, 2)}, "b", r"no tensor b\.weight or b; its matrices are: a"),
        ({"a": torch.ones(2)}, "b", "its matrices are: none"),
        ({"a": torch.ones(2, 2, 2)}, "a", r"has shape \(2 x 2 x 2\)"),
        ({"a": torch.ones(0, 2)}, "a", r"has shape \(0 x 2\)"),
        ({"a": torch.ones(2, 2, dtype=torch.int8)}, "a", r"holds torch\.int8"),
        ({"a": torch.tensor([[1.0, torch.nan], [torch.inf, 2.0]])}, None, "tensor a: 2 of 4 values are NaN"),
        ({"a": torch.full((2, 2), 1e300, dtype=torch.float64)}, None, "4 of 4 values are NaN or infinity"),
    ],
)
def test_files_without_a_usable_matrix(tensors, layer, message, matrices):
    with pytest.raises(NetworkError, match=message):
        load_matrix(Network(None, matrices(**tensors), layer=layer))


def test_neither_model_nor_weights():
    with pytest.raises(NetworkError, match="neither a model nor weights"):
        load_matrix(Network(None))


@pytest.mark.data
@pytest.mark.skipif("HMATRIX_DATA" not in os.environ, reason="HMATRIX_DATA names no folder")
def test_studied_matrix():
    path = Path(os.environ["HMATRIX_DATA"]) / "models" / "resnet_fc_1000x512.safetensors"
    matrix, name, _ = load_matrix(Network(None, path))
    assert (matrix.shape, name) == ((1000, 512), "fc")
