"""The cache of features: what it saves, and what may happen to it."""

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from counted import Counted, shards, small_network
from damages import damaged, generators, seeds
from importing import reached_from

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
    assert [path.name.partition("-")[2] for path in shards(tmp_path)] == [
        "00000000-00000004.safetensors",
        "00000004-00000008.safetensors",
        "00000008-00000010.safetensors",
    ]
    assert len(list((tmp_path / "features").iterdir())) == 3


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


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("seed", seeds(12, 500))
def test_damaged_shard_is_computed_again(seed, small, tmp_path):
    data = Counted()
    first = cached_features(small, data.images, tmp_path)
    path = shards(tmp_path)[1]
    whole = path.read_bytes()
    for rng in generators(seed):
        content, _ = damaged(whole, rng)
        path.write_bytes(content)
        data.asked = []
        with pytest.warns(CacheWarning, match=f"{path}: is damaged"):
            again = cached_features(small, data.images, tmp_path)
        assert sorted(data.asked) == [4, 5, 6, 7]
        np.testing.assert_array_equal(again.inputs, first.inputs)
        assert isinstance(again.classifier, LastLayer)
        assert path.read_bytes() == whole


@pytest.mark.usefixtures("small_shards")
def test_a_shard_in_the_place_of_another_is_computed_again(small, tmp_path):
    data = Counted()
    first = cached_features(small, data.images, tmp_path)
    one, other, _ = shards(tmp_path)
    whole = other.read_bytes()
    other.write_bytes(one.read_bytes())
    with pytest.warns(CacheWarning, match="digest"):
        again = cached_features(small, data.images, tmp_path)
    np.testing.assert_array_equal(again.inputs, first.inputs)
    assert other.read_bytes() == whole


def test_other_code_has_its_own(small, tmp_path, monkeypatch):
    data = Counted()
    cached_features(small, data.images, tmp_path)
    monkeypatch.setattr(features_module, "code_digest", lambda *_: "other code")
    cached_features(small, data.images, tmp_path)
    assert len(data.asked) == 20


def test_the_key_leaves_out_only_code_that_features_do_not_reach():
    reached = {name.split(".")[1] for name in reached_from("hmatrix.study.data.features") if "." in name}
    assert reached.isdisjoint({"nn", "cli"})
    assert "lowrank" in reached


def test_each_network_layer_and_data_set_has_its_own(small, tmp_path):
    hidden = replace(small, layer_name="0", layer=small.module[0])
    for number, (network, digest) in enumerate(
        [(small, "images"), (hidden, "images"), (replace(small, digest="other"), "images"), (small, "other")], start=1
    ):
        data = Counted(digest=digest)
        cached_features(network, data.images, tmp_path)
        assert len(data.asked) == 10
        assert len(shards(tmp_path)) == number


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
    with pytest.raises(OutputError, match=rf"folder {tmp_path}/features: has no room for the [\d,]+ bytes"):
        cached_features(small, Counted().images, tmp_path)
    assert [path.name for path in tmp_path.glob("*/*")] == []
