"""A module imports only from rooms with a smaller number."""

from graphlib import CycleError, TopologicalSorter

import pytest
from importing import GRAPH, KNOWN, imports

ROOMS = {
    "hmatrix.errors": 0,
    "hmatrix._core": 0,
    "hmatrix._validation": 1,
    "hmatrix._memory": 1,
    "hmatrix.ties": 2,
    "hmatrix._machine": 1,
    "hmatrix.entries": 2,
    "hmatrix.cluster": 3,
    "hmatrix.lowrank": 3,
    "hmatrix.trellis": 2,
    "hmatrix.precision": 3,
    "hmatrix.encoding": 4,
    "hmatrix.products": 2,
    "hmatrix.files": 2,
    "hmatrix.calibration": 2,
    "hmatrix.rules": 2,
    "hmatrix.head_words": 5,
    "hmatrix.head_ties": 6,
    "hmatrix.head_sums": 6,
    "hmatrix.head_selection": 7,
    "hmatrix.fine_rows": 6,
    "hmatrix.head_samples": 7,
    "hmatrix.head_levels": 6,
    "hmatrix.head": 8,
    "hmatrix.row_clusters": 7,
    "hmatrix.coarse_matrix": 9,
    "hmatrix.coarse_choices": 10,
    "hmatrix.coarse_error": 10,
    "hmatrix.subspace": 9,
    "hmatrix.panels": 5,
    "hmatrix.schedule": 6,
    "hmatrix.packed": 7,
    "hmatrix.packing": 8,
    "hmatrix.coordinates": 6,
    "hmatrix.admissibility": 6,
    "hmatrix.compressors": 6,
    "hmatrix.aca": 6,
    "hmatrix.kernels": 8,
    "hmatrix.blocktree": 7,
    "hmatrix.matrix": 9,
    "hmatrix.assembly": 10,
    "hmatrix.metrics": 10,
    "hmatrix.io": 10,
    "hmatrix.allocation": 11,
    "hmatrix.head_reference": 9,
    "hmatrix.needs": 10,
    "hmatrix.head_kernels": 10,
    "hmatrix.operating": 11,
    "hmatrix.progressive": 12,
    "hmatrix": 13,
    "hmatrix.nn": 14,
    "hmatrix.study": 15,
    "hmatrix.cli": 16,
    "hmatrix.__main__": 17,
}
"""The room of each module; inside the packages `allocation`, `nn` and `study`, the room of all their modules."""


def entry_of(module):
    """What the table calls a module: itself, or the package that it is in."""
    return next((name for name in (module, module.rpartition(".")[0]) if name in ROOMS), None)


def trespasses(module, imported):
    """What a module imports although it may not."""
    own = entry_of(module)
    inside = own if own in ("hmatrix.allocation", "hmatrix.nn", "hmatrix.study", "hmatrix.cli") else None
    return {name for name in imported if entry_of(name) != inside and ROOMS[entry_of(name)] >= ROOMS[own]}


def test_every_module_has_a_room():
    assert [module for module in GRAPH if entry_of(module) is None] == []
    assert [entry for entry in ROOMS if entry not in KNOWN] == []


@pytest.mark.parametrize("module", sorted(GRAPH))
def test_imports_go_down(module):
    unknown = GRAPH[module] - KNOWN
    assert unknown == set()
    assert trespasses(module, GRAPH[module]) == set()


def test_there_is_no_circle():
    list(TopologicalSorter(GRAPH).static_order())


@pytest.mark.parametrize(
    ("source", "module", "expected"),
    [
        ("import hmatrix.io", "hmatrix.lowrank", {"hmatrix.io"}),
        ("import hmatrix.io as x, numpy", "hmatrix.lowrank", {"hmatrix.io"}),
        ("from hmatrix.io import load", "hmatrix.lowrank", {"hmatrix.io"}),
        ("from hmatrix import io, _core, load", "hmatrix.lowrank", {"hmatrix.io", "hmatrix._core", "hmatrix"}),
        ("from .io import load", "hmatrix.lowrank", {"hmatrix.io"}),
        ("from . import io", "hmatrix.lowrank", {"hmatrix.io"}),
        ("from ..io import load", "hmatrix.nn.linear", {"hmatrix.io"}),
        ("from .linear import HLinear", "hmatrix.nn", {"hmatrix.nn.linear"}),
        ("def f():\n    import hmatrix.io", "hmatrix.lowrank", {"hmatrix.io"}),
        ("if TYPE_CHECKING:\n    from hmatrix.io import load", "hmatrix.lowrank", {"hmatrix.io"}),
        ("import numpy\nfrom scipy import io", "hmatrix.lowrank", set()),
    ],
)
def test_imports_are_found(source, module, expected):
    assert imports(source, module, is_package=module == "hmatrix.nn") == expected


@pytest.mark.parametrize(
    ("module", "imported", "allowed"),
    [
        ("hmatrix.lowrank", "hmatrix._validation", True),
        ("hmatrix.lowrank", "hmatrix.io", False),
        ("hmatrix.lowrank", "hmatrix.cluster", False),
        ("hmatrix.lowrank", "hmatrix.lowrank", False),
        ("hmatrix.io", "hmatrix", False),
        ("hmatrix", "hmatrix.io", True),
        ("hmatrix", "hmatrix.nn.linear", False),
        ("hmatrix.nn.linear", "hmatrix", True),
        ("hmatrix.nn.linear", "hmatrix.nn", True),
        ("hmatrix.nn.linear", "hmatrix.study.records", False),
        ("hmatrix.study.run", "hmatrix.study.records", True),
        ("hmatrix.study.run", "hmatrix.nn.linear", True),
        ("hmatrix.study.run", "hmatrix.cli", False),
        ("hmatrix.cli", "hmatrix.study.run", True),
    ],
)
def test_trespassers_are_found(module, imported, allowed):
    assert trespasses(module, {imported}) == (set() if allowed else {imported})


def test_circles_are_found():
    with pytest.raises(CycleError):
        list(TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())
