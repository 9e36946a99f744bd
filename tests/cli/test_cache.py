"""The command that shows and clears what is kept."""

import os
import time

import numpy as np
import pytest

from hmatrix._support.store import Shelf, Store, list_entries
from hmatrix.cli import main
from hmatrix.cli.cache import EXAMPLES


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A store with two layers and a shard of features, and a data set beside them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    root = tmp_path / "hmatrix"
    for name, days in (("one", 2.5), ("two", 0)):
        Store(root, Shelf.LAYERS).keep(name, {"a": np.zeros(125_000)}, {})
        os.utime(root / "layers" / f"{name}.safetensors", (time.time() - 86_400 * days,) * 2)
    Store(root, Shelf.FEATURES).keep("shard", {"a": np.zeros(250_000)}, {})
    (root / "imagenette2").mkdir()
    (root / "imagenette2" / "image").write_bytes(bytes(20_000))
    return root


def run(capsys, *arguments):
    assert main(["cache", *map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["cache", "--help"])
    assert EXAMPLES in capsys.readouterr().out


def test_it_shows_entries_by_kind_with_bytes_and_age(root, capsys):
    first, *rest = run(capsys)
    assert first.startswith(f"cache    {root}: 3 entries, 4.00 MB, of at most ")
    assert [line.split(" seconds")[0].rstrip("0123456789") for line in rest] == [
        "features 1 entry, 2.00 MB, last used ",
        "layers   2 entries, 2.00 MB, last used 2 days ago to ",
        "others   0.02 MB of data sets or earlier versions, which this command leaves alone",
    ]
    assert run(capsys, "--cache", root)[0] == first


def test_it_clears_all_or_some_and_leaves_others_alone(root, capsys):
    assert run(capsys, "--clear", "layers") == [f"removed  2 entries, 2.00 MB from {root}"]
    assert [entry.shelf for entry in list_entries(root)] == [Shelf.FEATURES]
    assert run(capsys, "--clear") == [f"removed  1 entry, 2.00 MB from {root}"]
    assert list_entries(root) == []
    assert (root / "imagenette2" / "image").exists()
    assert run(capsys, "--clear") == [f"removed  0 entries, 0.00 MB from {root}"]


def test_there_may_be_no_cache_yet(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run(capsys) == [f"cache    {tmp_path / 'hmatrix'}: 0 entries, 0.00 MB"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_and_a_kind_that_is_not_known_are_named(tmp_path, capsys):
    assert main(["cache", "--cache", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith(f"hmatrix: ArgumentError: --cache: {tmp_path / 'none'} is no folder; ")
    with pytest.raises(SystemExit, match="2"):
        main(["cache", "--clear", "images"])
    told = capsys.readouterr().err
    assert all(shelf.value in told for shelf in Shelf)
