"""Files are written in one way, whole or not at all; what killed writers leave is removed, and nothing of live ones."""

import ast
import errno
import os
from pathlib import Path

import numpy as np
import pytest
from importing import SOURCES
from safetensors import SafetensorError

from hmatrix._support import array_files, files
from hmatrix._support.array_files import write_arrays
from hmatrix._support.files import make_folder, sweep, write_file, written
from hmatrix.errors import OutputError


def test_an_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch):
    def interrupted(_, file, **__):
        file.write_bytes(b"half of it")
        raise KeyboardInterrupt

    path = tmp_path / "arrays.safetensors"
    write_arrays({"a": np.ones(2)}, path, "key", {})
    before = path.read_bytes()
    monkeypatch.setattr(array_files, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_arrays({"a": np.ones(3)}, path, "key", {})
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
    with pytest.raises(OutputError, match=rf"folder {tmp_path}: has no room for the 5 bytes of text \(No space left"):
        write_file(tmp_path / "text", "newer")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("text", "old")]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_known_from_safetensors_words(tmp_path, monkeypatch, number):
    def full(*_, **__):
        raise SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")

    monkeypatch.setattr(array_files, "save_file", full)
    with pytest.raises(OutputError, match="has no room for the 1,600 bytes of arrays"):
        write_arrays({"a": np.ones(200)}, tmp_path / "arrays", "key", {})
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    for number, names in enumerate([("lock", "file"), ("lock",), ("file",), ()]):
        workshop = tmp_path / f".hmatrix-0000000{number}"
        workshop.mkdir()
        for name in names:
            (workshop / name).write_bytes(b"half of it")
    (tmp_path / ".hmatrix-mine").mkdir()
    write_file(tmp_path / "text", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hmatrix-mine", "text"]


def test_what_a_live_writer_has_stays(tmp_path):
    with written(tmp_path / "one", 3) as temporary:
        temporary.write_bytes(b"one")
        write_file(tmp_path / "other", "other")
        sweep(tmp_path)
        assert temporary.read_bytes() == b"one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]


def test_a_writer_whose_folder_was_swept_away_before_it_had_a_lock_takes_another(tmp_path, monkeypatch):
    sweeps, occupied = [], files._occupied

    def swept(workshop):
        if not sweeps:
            workshop.mkdir()
            sweep(tmp_path)
            sweeps.append(workshop.exists())
            monkeypatch.setattr(Path, "mkdir", lambda *_: None)
            found = occupied(workshop)
            monkeypatch.undo()
            return found
        return occupied(workshop)

    monkeypatch.setattr(files, "_occupied", swept)
    write_file(tmp_path / "text", "whole")
    assert sweeps == [False]
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("text", "whole")]


def test_a_disk_without_locks_can_be_written_to(tmp_path, monkeypatch):
    def unsupported(_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files, "take", unsupported)
    write_file(tmp_path / "text", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_a_folder_below_a_file_cannot_be_made(tmp_path):
    write_file(tmp_path / "file", "in the way")
    with pytest.raises(OutputError, match=r"folder .*file.new: cannot be made"):
        make_folder(tmp_path / "file" / "new")


WRITERS = {"write_text", "write_bytes", "mkdir", "rename", "save_file", "savefig", "tofile"}

OTHERS = {
    "hmatrix._support.array_files": {"save_file"},  # to the name that `written` gives
    "hmatrix.nn.saved.networks": {"save_file"},  # to the temporary name that `written` gives
    "hmatrix.study.figures.drawing": {"savefig"},  # into memory
}


@pytest.mark.parametrize("module", sorted(SOURCES.keys() - {"hmatrix._support.files"}))
def test_files_are_written_in_one_way(module):
    tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = {name.attr if isinstance(name, ast.Attribute) else getattr(name, "id", "") for name in called}
    assert names & WRITERS == OTHERS.get(module, set())
