"""Old names of classes are found, and nothing else changes by it."""

import pickle
import subprocess
import sys
from importlib import import_module

import pytest

import hmatrix as hm
from hmatrix._support.moved import MOVED, found_in, names_of

OLD = [(module, name, *today) for module in MOVED for name, today in found_in(module).items()]


@pytest.mark.parametrize(("module", "name", "place", "today"), OLD, ids=[".".join(case[:2]) for case in OLD])
def test_each_old_name_is_the_class_of_today(module, name, place, today):
    if module.startswith(("hmatrix.nn", "hmatrix.study")):
        pytest.importorskip("torch")
    place = import_module(place)
    # As a pickle asks for a class.
    found = pickle.loads(b"c" + f"{module}\n{name}\n".encode() + b".")
    assert found is getattr(place, today)
    assert found.__module__ == place.__name__
    assert getattr(import_module(module), name) is found


def test_no_module_is_both_old_and_new():
    assert {place for places in MOVED.values() for place in places}.isdisjoint(MOVED)


def test_a_class_with_another_name_is_found_by_its_old_one(monkeypatch):
    monkeypatch.setitem(MOVED, "hmatrix.attic", {"hmatrix.io": "load", "hmatrix.metrics": "Size=Norm"})
    assert found_in("hmatrix.attic") == {"load": ("hmatrix.io", "load"), "Size": ("hmatrix.metrics", "Norm")}
    assert names_of("hmatrix.attic")("Size") is hm.Norm


def test_other_names_are_not_found():
    for module in ("hmatrix.cluster", "hmatrix.lowrank"):
        with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'Attic'"):
            import_module(module).Attic  # noqa: B018
    with pytest.raises(ModuleNotFoundError):
        import_module("hmatrix.attic")


def test_a_function_is_not_hidden_by_an_old_module():
    import_module("hmatrix.progressive")
    assert callable(hm.progressive)


def test_pickles_open_before_the_package_is_imported():
    script = "import pickle; print(pickle.loads(b'chmatrix.cluster\\nCardinality\\n.').__module__)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout == "hmatrix.partitions.splitters\n"
