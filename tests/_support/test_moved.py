"""Old names of classes are found, and nothing else changes by it."""

import pickle
import subprocess
import sys
from importlib import import_module

import pytest

import hmatrix as hm
from hmatrix._support.moved import MOVED

OLD = [(module, name) for module, (_, names) in MOVED.items() for name in names.split()]


@pytest.mark.parametrize(("module", "name"), OLD, ids=[".".join(pair) for pair in OLD])
def test_each_old_name_is_the_class_of_today(module, name):
    if module.startswith(("hmatrix.nn", "hmatrix.study")):
        pytest.importorskip("torch")
    place = import_module(MOVED[module][0])
    # As a pickle asks for a class.
    found = pickle.loads(b"c" + f"{module}\n{name}\n".encode() + b".")
    assert found is getattr(place, name)
    assert found.__module__ == place.__name__
    assert getattr(import_module(module), name) is found


def test_no_module_is_both_old_and_new():
    assert {place for place, _ in MOVED.values()}.isdisjoint(MOVED)


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
    assert ended.stdout == "hmatrix.partitions.cluster\n"
