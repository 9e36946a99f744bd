"""One holds the lock of a file at a time; another says that it waits, and gets it afterwards."""

import errno
import threading

import pytest

from hmatrix._support import locks
from hmatrix._support.locks import locked, take
from hmatrix.errors import OutputError


def never():
    raise AssertionError


def test_another_waits_and_says_so_once(tmp_path):
    path, order, waits = tmp_path / "file", [], threading.Event()

    def second():
        with locked(path, waits.set):
            order.append("second")

    with locked(path, never):
        other = threading.Thread(target=second)
        other.start()
        assert waits.wait(10)
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]
    with locked(path, never):  # free again
        pass


def test_an_error_frees_it(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / "file", never):
        raise KeyError
    with locked(tmp_path / "file", never):
        pass


def test_a_file_that_was_removed_meanwhile_is_not_locked(tmp_path):
    path, waits, got = tmp_path / "file", threading.Event(), []

    def second():
        with locked(path, waits.set), path.open("ab") as file:
            got.append(take(file))  # it is held, by its present name

    with locked(path, never):
        other = threading.Thread(target=second)
        other.start()
        assert waits.wait(10)
        path.unlink()
    other.join(10)
    assert got == [False]


def test_what_cannot_be_locked_is_told(tmp_path, monkeypatch):
    with (
        pytest.raises(OutputError, match=r"cannot be written by one run alone \(Is a directory\)"),
        locked(tmp_path, never),
    ):
        pass

    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", unsupported)
    with pytest.raises(OutputError, match="No locks available"), locked(tmp_path / "file", never):
        pass
