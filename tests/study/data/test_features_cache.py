"""The cache of features: what it saves, and what may happen to it."""

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from counted import Counted, shards, small_network
from safetensors import safe_open
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_bfloat16

from hmatrix.errors import CacheWarning, DataError, OutputError
from hmatrix.study.data import features as features_module
from hmatrix.study.data.classifiers import LastLayer
from hmatrix.study.data.features import cached_features


@pytest.fixture
def small():
    return small_network()


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(features_module, "_SHARD", 4)


@pytest.mark.usefixtures("small_shards")
def test_second_run_reads_nothing(small, tmp_path):
    data = Counted()
    first = cached_features(small, data.images, tmp_path)
    assert sorted(data.asked) == list(range(10))
    again = cached_features(small, data.images, tmp_path)
    assert len(data.asked) == 10
    np.testing.assert_array_equal(again.inputs, first.inputs)
    assert [path.name for path in shards(tmp_path)] == [
        "00000000-00000004.safetensors",
        "00000004-00000008.safetensors",
        "00000008-00000010.safetensors",
    ]
    assert not list(tmp_path.glob("*/*.tmp"))


@pytest.mark.usefixtures("small_shards")
def test_interrupted_run_goes_on(small, tmp_path):
    expected = cached_features(small, Counted().images, tmp_path / "whole").inputs
    data = Counted()
    data.broken = 9
    with pytest.raises(DataError, match="image 9"):
        cached_features(small, data.images, tmp_path / "cache")
    assert len(shards(tmp_path / "cache")) == 2
    data.broken, data.asked = None, []
    found = cached_features(small, data.images, tmp_path / "cache")
    assert sorted(data.asked) == [8, 9]
    np.testing.assert_array_equal(found.inputs, expected)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3])


def change_a_value(path):
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def change_the_kind(path):
    path.write_bytes(path.read_bytes().replace(b'"last ', b'"LAST '))


def change_the_shape(path):
    with safe_open(path, framework="np") as file:
        tensor, metadata = file.get_tensor("inputs"), file.metadata()
    save_file({"inputs": tensor[:, :-1].copy()}, path, metadata)


def change_the_type(path):
    path.write_bytes(path.read_bytes().replace(b'"dtype":"F32"', b'"dtype":"U32"'))


def change_to_a_type_that_numpy_lacks(path):
    save_bfloat16({"inputs": torch.ones(4, 3, dtype=torch.bfloat16)}, path)


def drop_the_metadata(path):
    with safe_open(path, framework="np") as file:
        tensor = file.get_tensor("inputs")
    save_file({"inputs": tensor}, path)


def rename_the_tensor(path):
    save_file({"other": np.ones(3)}, path)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        change_a_value,
        change_the_kind,
        change_the_shape,
        change_the_type,
        change_to_a_type_that_numpy_lacks,
        drop_the_metadata,
        rename_the_tensor,
    ],
)
def test_damaged_shard_is_computed_again(damage, small, tmp_path):
    data = Counted()
    first = cached_features(small, data.images, tmp_path)
    path = shards(tmp_path)[1]
    whole = path.read_bytes()
    damage(path)
    assert path.read_bytes() != whole
    data.asked = []
    with pytest.warns(CacheWarning, match=f"{path}: is damaged"):
        again = cached_features(small, data.images, tmp_path)
    assert sorted(data.asked) == [4, 5, 6, 7]
    np.testing.assert_array_equal(again.inputs, first.inputs)
    assert isinstance(again.classifier, LastLayer)
    assert path.read_bytes() == whole


def test_each_network_layer_and_data_set_has_its_own(small, tmp_path):
    hidden = replace(small, layer_name="0", layer=small.module[0])
    for number, (network, digest) in enumerate(
        [(small, "images"), (hidden, "images"), (replace(small, digest="other"), "images"), (small, "other")], start=1
    ):
        data = Counted(digest=digest)
        cached_features(network, data.images, tmp_path)
        assert len(data.asked) == 10
        assert len(list(tmp_path.iterdir())) == number


def test_cache_that_is_a_file(small, tmp_path):
    (tmp_path / "file").write_text("text")
    data = Counted()
    with pytest.raises(OutputError, match="cannot be made"):
        cached_features(small, data.images, tmp_path / "file")
    assert data.asked == []


def test_full_disk(small, tmp_path, monkeypatch):
    def write(path, content):
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(OutputError, match="No space left on device"):
        cached_features(small, Counted().images, tmp_path)
    assert [path.name for path in tmp_path.glob("*/*")] == []
