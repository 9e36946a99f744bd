"""What the store keeps comes back whole, or is made anew with a warning; it stays below its bound."""

import errno
import json
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
from damages import damaged, generators, joined, seeds, split
from writers import writers

from hmatrix._support import store as store_module
from hmatrix._support.store import Shelf, Store, clear, largest_size, list_entries, other_bytes
from hmatrix.errors import ArgumentError, CacheWarning, OutputError

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([1, 2], np.int32),
    "c": np.array([3, 4], np.int32),
    "none": np.empty((0, 2)),
    "one": np.array(0.5),
}
FACTS = {"error": 0.1, "names": ["x", "y"], "last": True, "count": 1}


def read(arrays, facts):
    return arrays, facts


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, Shelf.LAYERS)


@pytest.fixture
def path(store, tmp_path):
    store.keep("kept", ARRAYS, FACTS)
    return tmp_path / "layers" / "kept.safetensors"


def check(found):
    arrays, facts = found
    assert json.dumps(facts, sort_keys=True) == json.dumps(FACTS, sort_keys=True)
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)


def test_what_is_kept_comes_back(path, store):
    check(store.recall("kept", read))
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_nothing_is_told_of_what_is_not_there_or_of_no_use(path, store):  # noqa: ARG001
    assert store.recall("nothing", read) is None
    assert store.recall("kept", lambda *_: None) is None


def test_a_changed_bit_is_found_wherever_it_is(path, store):
    whole = path.read_bytes()
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 1 << place % 7
        path.write_bytes(content)
        with pytest.warns(CacheWarning, match=r"kept\.safetensors: is damaged .*computed again"):
            assert store.recall("kept", read) is None


@pytest.mark.parametrize("seed", seeds(60, 5000))
def test_whatever_happens_to_an_entry_is_found(path, store, seed):
    whole = path.read_bytes()
    for rng in generators(seed):
        content, mishap = damaged(whole, rng)
        path.write_bytes(content)
        with pytest.warns(CacheWarning, match="is damaged"):
            assert store.recall("kept", read) is None, (mishap, content)
        store.keep("kept", ARRAYS, FACTS)
        check(store.recall("kept", read))
        assert path.read_bytes() == whole


CHANGES = {
    "no digest": lambda header: header.pop("digest"),
    "no facts": lambda header: header.pop("facts"),
    "another version": lambda header: header.update(version=99),
    "the version of an earlier release": lambda header: header.update(version=1),
    "another fact": lambda header: header["facts"].update(error=0.2),
    "a fact of another type": lambda header: header["facts"].update(count=True),
    "a float for an integer": lambda header: header["facts"].update(count=1.0),
    "a key more": lambda header: header.update(more=1),
    "facts that are a list": lambda header: header.update(facts=[]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_another_header_is_found(path, store, change):
    header, body = split(path.read_bytes())
    own = json.loads(header["__metadata__"]["hmatrix-cache"])
    change(own)
    header["__metadata__"]["hmatrix-cache"] = json.dumps(own, sort_keys=True)
    path.write_bytes(joined(header, body))
    with pytest.warns(CacheWarning, match="damaged"):
        assert store.recall("kept", read) is None


def test_the_file_of_another_entry_or_of_another_shelf_is_found(path, store, tmp_path):
    other = Store(tmp_path, Shelf.TIMES)
    store.keep("other", ARRAYS, FACTS)
    other.keep("kept", ARRAYS, FACTS)
    whole = path.read_bytes()
    for place in (path.with_name("other.safetensors"), tmp_path / "times" / "kept.safetensors"):
        path.write_bytes(place.read_bytes())
        assert path.read_bytes() != whole
        with pytest.warns(CacheWarning, match="digest"):
            assert store.recall("kept", read) is None


@pytest.mark.parametrize("error", [ArgumentError("data", "do not fit", "mend"), KeyError("x"), TypeError()])
@pytest.mark.usefixtures("path")
def test_what_makes_no_result_is_told(store, error):
    def fails(*_):
        raise error

    with pytest.warns(CacheWarning, match="damaged"):
        assert store.recall("kept", fails) is None


@pytest.mark.usefixtures("path")
def test_too_little_memory_is_no_damage(store):
    def fails(*_):
        raise MemoryError

    with pytest.raises(MemoryError):
        store.recall("kept", fails)


def test_a_folder_in_its_place_is_told(store, tmp_path):
    (tmp_path / "layers" / "kept.safetensors").mkdir(parents=True)
    with pytest.warns(CacheWarning, match="damaged"):
        assert store.recall("kept", read) is None
    with pytest.raises(OutputError, match="is a folder"):
        store.keep("kept", ARRAYS, FACTS)


def test_an_entry_that_another_process_removes_meanwhile_is_absent(path, store, monkeypatch):
    def gone(*_, **__):
        path.unlink()
        raise FileNotFoundError

    monkeypatch.setattr(store_module, "safe_open", gone)
    assert store.recall("kept", read) is None


def test_a_full_disk_names_folder_bytes_and_mend(path, store, monkeypatch):
    def full(place, content):
        with place.open("wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=rf"folder {path.parent}: .* {len(before)} bytes of kept.*`hmatrix cache`"):
        store.keep("kept", ARRAYS, FACTS)
    assert [(other.name, other.read_bytes()) for other in path.parent.iterdir()] == [(path.name, before)]


def aged(path, days):
    os.utime(path, (time.time() - 86_400 * days,) * 2)


def test_the_least_recently_used_entries_go_above_the_bound(store, tmp_path, monkeypatch):
    for number in range(4):
        store.keep(f"{number}", {"a": np.zeros(500)}, {})
        aged(tmp_path / "layers" / f"{number}.safetensors", 10 - number)
    assert store.recall("0", lambda arrays, _: arrays) is not None  # used now
    size = list_entries(tmp_path)[0].size
    monkeypatch.setattr(store_module, "_MOST", 3 * size)
    Store(tmp_path, Shelf.FEATURES).keep("new", {"a": np.zeros(500)}, {})
    assert [entry.path.stem for entry in list_entries(tmp_path)] == ["3", "0", "new"]
    # One that is too large by itself stays.
    monkeypatch.setattr(store_module, "_MOST", 1)
    store.keep("large", {"a": np.zeros(500)}, {})
    assert [entry.path.stem for entry in list_entries(tmp_path)] == ["large"]


def test_the_bound_is_a_part_of_the_disk(tmp_path):
    assert 0 < largest_size(tmp_path) <= 10_000_000_000


def test_a_store_is_listed_and_cleared_and_other_files_stay(path, tmp_path):
    Store(tmp_path, Shelf.TIMES).keep("now", {}, {})
    (tmp_path / "imagenette2").mkdir()
    (tmp_path / "imagenette2" / "image").write_bytes(b"12345")
    assert {entry.shelf for entry in list_entries(tmp_path)} == {Shelf.LAYERS, Shelf.TIMES}
    assert other_bytes(tmp_path) == 5
    assert [entry.path for entry in clear(tmp_path, [Shelf.LAYERS])] == [path]
    assert [entry.shelf for entry in list_entries(tmp_path)] == [Shelf.TIMES]
    assert len(clear(tmp_path)) == 1
    assert list_entries(tmp_path) == []
    assert other_bytes(tmp_path) == 5
    assert clear(tmp_path / "nowhere") == []


def test_an_entry_that_cannot_be_removed_is_told(path, tmp_path, monkeypatch):
    def protected(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", protected)
    with pytest.raises(OutputError, match=rf"{path}: cannot be removed \(Permission denied\)"):
        clear(tmp_path)


def test_two_writers_of_one_entry_and_a_reader_end_well(store, tmp_path):
    found = 0
    with writers(finite=2) as (start, _, parent):
        for _ in range(2):
            start(tmp_path, 40)
        parent.stdin.close()
        parent.stdin = None
        while parent.poll() is None:
            found += store.recall("kept", lambda arrays, _: arrays) is not None
    assert found > 0
    np.testing.assert_array_equal(store.recall("kept", lambda arrays, _: arrays["a"]), np.arange(100_000.0))
    assert [path.name for path in (tmp_path / "layers").iterdir()] == ["kept.safetensors"]


@pytest.mark.parametrize("kills", [8, pytest.param(200, marks=pytest.mark.nightly)])
def test_a_writer_that_is_killed_leaves_the_same_bits_and_no_file(kills, store, tmp_path):
    rng, left = random.Random(0), 0
    store.keep("kept", {"a": np.arange(100_000.0)}, {"error": 0.1})
    path = tmp_path / "layers" / "kept.safetensors"
    whole = path.read_bytes()
    path.unlink()
    with writers(finite=0) as (start, kill, _):
        for _ in range(kills):
            writer = start(tmp_path, 10**9)
            time.sleep(rng.uniform(0.001, 0.02))
            kill(writer)
            left += any(other != path for other in path.parent.iterdir())
            # The next run finds nothing, or the whole, and removes what is left.
            again = Store(tmp_path, Shelf.LAYERS)
            assert [other.name for other in path.parent.iterdir() if other != path] == []
            found = again.recall("kept", lambda arrays, _: arrays["a"])
            assert found is None or path.read_bytes() == whole
            again.keep("kept", {"a": np.arange(100_000.0)}, {"error": 0.1})
            assert path.read_bytes() == whole
    assert left > 0
