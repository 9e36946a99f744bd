"""A name says one thing: no two classes have the same one, and none stands in the way of a module."""

import ast
from collections import Counter
from importlib import import_module
from types import ModuleType

import pytest
from importing import SOURCES

PACKAGES = sorted(name for name, path in SOURCES.items() if path.stem == "__init__")


def classes():
    return [
        node.name
        for path in SOURCES.values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]


def test_no_two_classes_have_the_same_name():
    assert [name for name, count in Counter(classes()).items() if count > 1] == []


def test_no_module_has_the_name_of_its_package():
    parts = [name.split(".") for name in SOURCES]
    assert [".".join(names) for names in parts if len(names) > 1 and names[-1] == names[-2]] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_name_hides_a_module(package):
    if package.startswith(("hmatrix.nn", "hmatrix.study")):
        pytest.importorskip("torch")
    inside = {name.rpartition(".")[2] for name in SOURCES if name.rpartition(".")[0] == package}
    names = {name for name, value in vars(import_module(package)).items() if not isinstance(value, ModuleType)}
    assert names.isdisjoint(inside)
