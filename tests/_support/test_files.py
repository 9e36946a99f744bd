"""Files are written in one way, whole or not at all; what a cache keeps is whole, or made anew with a warning."""

import ast
import errno
import json
from pathlib import Path

import numpy as np
import pytest
from importing import SOURCES
from safetensors import safe_open
from safetensors.numpy import save_file

from hmatrix._support import files
from hmatrix._support.files import keep, make_folder, recall, write_file
from hmatrix.errors import ArgumentError, CacheWarning, OutputError

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1, 2], np.int32)}
FACTS = {"error": 0.1, "names": ["x", "y"]}


def read(arrays, facts):
    return arrays, facts


@pytest.fixture
def path(tmp_path):
    keep(tmp_path / "kept.safetensors", ARRAYS, FACTS)
    return tmp_path / "kept.safetensors"


def test_what_is_kept_comes_back(path):
    arrays, facts = recall(path, read)
    assert facts == FACTS
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_nothing_is_told_of_what_is_not_there_or_of_no_use(path, tmp_path):
    assert recall(tmp_path / "nothing", read) is None
    assert recall(path, lambda *_: None) is None


def test_a_changed_bit_is_found_wherever_it_is(path):
    whole = path.read_bytes()
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 1 << place % 7
        path.write_bytes(content)
        with pytest.warns(CacheWarning, match=r"kept\.safetensors: is damaged .*computed again"):
            assert recall(path, read) is None


@pytest.mark.parametrize("length", [0, 4, 8, 60, -1])
def test_a_file_that_is_cut_short_is_found(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.warns(CacheWarning, match="damaged"):
        assert recall(path, read) is None


def rewritten(path, change):
    """Write a file of the same format, whose header was changed."""
    with safe_open(path, framework="np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()[files._KEPT])
    change(arrays, header)
    save_file(arrays, path, {files._KEPT: json.dumps(header)})


CHANGES = {
    "no digest": lambda _, header: header.pop("digest"),
    "no facts": lambda _, header: header.pop("facts"),
    "no version": lambda _, header: header.pop("version"),
    "another version": lambda _, header: header.update(version=99),
    "another fact": lambda _, header: header["facts"].update(error=0.2),
    "facts that are a list": lambda _, header: header.update(facts=[]),
    "an array less": lambda arrays, _: arrays.pop("b"),
    "an array more": lambda arrays, _: arrays.update(c=np.ones(2)),
    "another type": lambda arrays, _: arrays.update(b=arrays["b"].astype(np.int64)),
    "another shape": lambda arrays, _: arrays.update(a=arrays["a"].reshape(3, 2)),
    "another name": lambda arrays, _: arrays.update(c=arrays.pop("b")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_other_content_is_found(path, change):
    rewritten(path, change)
    with pytest.warns(CacheWarning, match="damaged"):
        assert recall(path, read) is None


@pytest.mark.parametrize(
    "error", [ArgumentError("data", "do not fit", "mend"), KeyError("x"), TypeError(), IndexError()]
)
def test_what_makes_no_result_is_told(path, error):
    def fails(*_):
        raise error

    with pytest.warns(CacheWarning, match="damaged"):
        assert recall(path, fails) is None


def test_a_folder_in_its_place_is_told(tmp_path):
    (tmp_path / "kept.safetensors").mkdir()
    with pytest.warns(CacheWarning, match="damaged"):
        assert recall(tmp_path / "kept.safetensors", read) is None
    with pytest.raises(OutputError, match="is a folder"):
        keep(tmp_path / "kept.safetensors", ARRAYS, FACTS)


def test_an_interrupted_write_leaves_what_was_there(path, monkeypatch):
    def interrupted(_, file, **__):
        file.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "save_file", interrupted)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        keep(path, {"a": np.ones(2)}, {})
    assert path.read_bytes() == before
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_a_file_of_text_or_bytes_is_written_whole(tmp_path):
    write_file(tmp_path / "text", "½\n")
    write_file(tmp_path / "bytes", b"\x00\xff")
    assert (tmp_path / "text").read_bytes() == "½\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bytes", "text"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    def full(path, content):
        with path.open("wb") as file:
            file.write(content[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    write_file(tmp_path / "text", "old")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_file(tmp_path / "text", "newer")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("text", "old")]


def test_a_folder_below_a_file_cannot_be_made(tmp_path):
    write_file(tmp_path / "file", "in the way")
    with pytest.raises(OutputError, match=r"folder .*file.new: cannot be made"):
        make_folder(tmp_path / "file" / "new")


WRITERS = {"write_text", "write_bytes", "mkdir", "rename", "save_file", "savefig", "tofile"}

OTHERS = {
    "hmatrix.nn.saved.networks": {"save_file"},  # to the temporary name that `written` gives
    "hmatrix.study.figures.drawing": {"savefig"},  # into memory
}


@pytest.mark.parametrize("module", sorted(SOURCES.keys() - {"hmatrix._support.files"}))
def test_files_are_written_in_one_way(module):
    tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = {name.attr if isinstance(name, ast.Attribute) else getattr(name, "id", "") for name in called}
    assert names & WRITERS == OTHERS.get(module, set())
