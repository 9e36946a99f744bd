"""The cache of layers: what its key knows of, and what becomes of damaged files."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from compressible import same, small, vectors
from importing import MODULES, SOURCE, reached_from
from torch import nn

import hmatrix as hm
from hmatrix._support import machine as _machine
from hmatrix.errors import CacheWarning, OutputError
from hmatrix.nn.compression import compress
from hmatrix.nn.network.fitting import Fitter
from hmatrix.nn.network.targets import LayerSettings, everything, find_targets


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-20])


def emptied(path):
    path.write_bytes(b"")


def changed_value(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


def changed_header(path):
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)


def text(path):
    path.write_text("{}")


def archive(path):
    with path.open("wb") as file:
        np.savez(file, sizes=np.ones(3), errors=np.ones(3))


@pytest.mark.parametrize("damage", [cut_short, emptied, changed_value, changed_header, text, archive])
@pytest.mark.parametrize("kind", ["curve", "bytes"])
def test_a_damaged_file_is_made_anew_and_told(kind, damage, tmp_path):
    network, arguments = small(32, 10), {"cache": tmp_path, "progress": False}
    first, _ = compress(network, hm.Budget(storage=0.5), **arguments)
    paths = [path for path in (tmp_path / "layers").iterdir() if kind in path.name]
    assert paths
    for path in paths:
        damage(path)
    with pytest.warns(CacheWarning, match=f"cache {tmp_path}/layers.*{kind}.*is damaged .*computed again"):
        again, _ = compress(network, hm.Budget(storage=0.5), **arguments)
    assert same(first.state_dict(), again.state_dict())
    # It is whole now: a warning would be an error.
    again, _ = compress(network, hm.Budget(storage=0.5), **arguments)
    assert same(first.state_dict(), again.state_dict())


def test_what_was_kept_is_what_was_found(tmp_path):
    network = small(32, 10)
    arguments = {"calibration": vectors(32), "progress": False}
    alone, report = compress(network, hm.Budget(storage=0.5), **arguments)
    _, first = compress(network, hm.Budget(storage=0.5), cache=tmp_path, **arguments)
    kept, again = compress(network, hm.Budget(storage=0.5), cache=tmp_path, **arguments)
    assert same(alone.state_dict(), kept.state_dict())
    assert again.layers == first.layers
    assert [replace(layer, seconds=0.0) for layer in again.layers] == [
        replace(layer, seconds=0.0) for layer in report.layers
    ]


def test_a_cache_that_cannot_be_written_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr(hm.Allocator, "curve", None)
    with pytest.raises(OutputError, match="protected"):
        compress(small(32, 10), hm.Budget(storage=0.5), cache=tmp_path, progress=False)


def key(**given):
    """The key of a layer with some settings and data."""
    torch.manual_seed(0)
    settings = given.pop("settings", LayerSettings())
    (target,) = find_targets(given.pop("layer", nn.Linear(12, 8)), everything, {}, settings)
    return Fitter(target, **given)._key


REACHED = sorted((reached_from("hmatrix.allocation") | reached_from("hmatrix.nn.network.fitting")) - {"hmatrix._core"})


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the package's code, which counts instead of it."""
    folder = tmp_path / "hmatrix"
    shutil.copytree(SOURCE, folder, ignore=lambda _, names: {n for n in names if "." in n and n[-3:] != ".py"})
    monkeypatch.setattr(_machine, "PACKAGE", folder)
    _machine.code_digest.cache_clear()
    yield folder
    _machine.code_digest.cache_clear()


def test_the_key_changes_with_any_module_that_the_result_depends_on(copied):
    assert {
        "hmatrix.partitions.cluster",
        "hmatrix.lowrank.factors",
        "hmatrix.packed.packing",
        "hmatrix.packed.panels",
        "hmatrix.packed.schedule",
    } <= {*REACHED}
    known = {key()}
    for module in REACHED:
        path = copied / MODULES[module].relative_to(SOURCE)
        path.write_bytes(path.read_bytes() + b"# other\n")
        _machine.code_digest.cache_clear()
        found = key()
        assert found not in known, module
        known.add(found)


def test_the_key_changes_with_the_kernel(tmp_path, monkeypatch, copied):  # noqa: ARG001
    before = key()
    (tmp_path / "kernel").write_bytes(b"another")
    monkeypatch.setattr(_machine, "_core", SimpleNamespace(__file__=str(tmp_path / "kernel")))
    _machine.code_digest.cache_clear()
    assert key() != before


def test_the_key_does_not_change_with_studies_and_commands(copied):
    before = key()
    for name in ("study/tables.py", "cli/bench.py"):
        (copied / name).write_text("# other\n")
    _machine.code_digest.cache_clear()
    assert key() == before


X = np.random.default_rng(0).standard_normal((6, 2, 12)).astype(np.float32)


def given_twice(size):
    return hm.Points(np.arange(size) * 2.0)(size)


def given_thrice(size):
    return hm.Points(np.arange(size) * 3.0)(size)


given_thrice.__qualname__ = given_thrice.__name__ = "given_twice"

DIFFERENT = {
    "nothing": {},
    "another weight": {"layer": nn.Linear(12, 8)},
    "inputs by samples": {"inputs": X},
    "inputs alone": {"inputs": X.reshape(12, 12)},
    "fewer inputs": {"inputs": X[:3]},
    "counts": {"counts": np.ones(8, np.int64)},
    "derivatives of columns": {"inputs": X, "derivatives": (X, None)},
    "derivatives of rows": {"inputs": X, "derivatives": (None, X)},
    "both": {"inputs": X, "derivatives": (X, X)},
    "exact activations": {"settings": LayerSettings(activations=hm.Activations.EXACT)},
    "biased": {"settings": LayerSettings(unbiased=False)},
    "coordinates": {"settings": LayerSettings(coordinates=hm.Index())},
    "scaled coordinates": {"settings": LayerSettings(coordinates=hm.ScaledIndex())},
    "other coordinates of columns": {"settings": LayerSettings(coordinates=(hm.Index(), hm.ScaledIndex()))},
    "a function": {"settings": LayerSettings(coordinates=given_twice)},
    "a function of that name": {"settings": LayerSettings(coordinates=given_thrice)},
    "a function without a name": {"settings": LayerSettings(coordinates=lambda size: hm.Points(np.ones(size))(size))},
}


def test_each_input_counts_in_the_key():
    keys = {name: key(**given) for name, given in DIFFERENT.items()}
    assert len(set(keys.values())) == len(keys)
    assert keys == {name: key(**given) for name, given in DIFFERENT.items()}


def test_coordinates_that_are_the_same_have_the_same_key():
    one, other = (LayerSettings(coordinates=c) for c in (hm.Index(), (hm.Index(), hm.Index())))
    assert key(settings=one) == key(settings=other)
