"""A room imports only from rooms below it: docs/design.md has the table."""

import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from importing import GRAPH, KNOWN, imports

DESIGN = Path(__file__).parents[1] / "docs" / "design.md"

UPWARDS = {("hmatrix.nn.saved.pretrained", "hmatrix.nn.huggingface")}
"""Imports that go up, inside a function: transformers is loaded for its own networks alone."""


def floors_of(tokens):
    """From the words of the table to floors: lists of rooms from below, each a name and the floors inside it."""
    floors, name = [{}], ""
    while tokens and (token := tokens.pop(0)) != ")":
        if token == "<":
            floors.append({})
        elif token == "(":
            floors[-1][name].extend(floors_of(tokens))
        elif token != ",":
            name = token
            floors[-1][name] = []
    return floors


def table_of(page):
    """The table is the first block of code below the heading."""
    block = page.split("## Rooms", 1)[1].split("```")[1]
    return floors_of(re.findall(r"\w+|[<(),]", block))


TABLE = table_of(DESIGN.read_text(encoding="utf-8"))


def place_of(module, table=TABLE):
    """The floor and the name of each room that a module is in, the outermost first; ``None`` if it has none."""
    parts = module.removeprefix("hmatrix").removeprefix(".").split(".")
    place, floors = [], table
    for part in parts if parts != [""] else ["__init__"]:
        if not floors:
            return place
        floor = next((number for number, rooms in enumerate(floors) if part in rooms), None)
        if floor is None:
            return None
        place.append((floor, part))
        floors = floors[floor][part]
    # A package itself lies above all that it holds.
    return [*place, (len(floors), "")] if floors else place


def trespasses(module, imported):
    """What a module imports although it may not."""
    found = set()
    for name in imported - {above for below, above in UPWARDS if below == module}:
        pairs = zip(place_of(module), place_of(name), strict=False)
        if next((other[0] >= own[0] for own, other in pairs if own != other), False):
            found.add(name)
    return found


def test_every_module_has_a_room():
    assert [module for module in GRAPH if place_of(module) is None] == []


def test_every_room_is_there():
    def names(prefix, floors):
        for rooms in floors:
            for name, inner in rooms.items():
                yield f"{prefix}.{name}"
                yield from names(f"{prefix}.{name}", inner)

    rooms = set(names("hmatrix", TABLE))
    assert rooms - KNOWN == {"hmatrix.__init__", "hmatrix.studies", "hmatrix.tests"}


@pytest.mark.parametrize("module", sorted(GRAPH))
def test_imports_go_down(module):
    unknown = GRAPH[module] - KNOWN
    assert unknown == set()
    assert trespasses(module, GRAPH[module]) == set()


def test_every_exception_is_needed():
    assert [(module, name) for module, name in UPWARDS if name not in GRAPH[module]] == []


def test_there_is_no_circle():
    list(TopologicalSorter(GRAPH).static_order())


@pytest.mark.parametrize(
    ("source", "module", "expected"),
    [
        ("import hmatrix.io", "hmatrix.matrix", {"hmatrix.io"}),
        ("import hmatrix.io as x, numpy", "hmatrix.matrix", {"hmatrix.io"}),
        ("from hmatrix.io import load", "hmatrix.matrix", {"hmatrix.io"}),
        ("from hmatrix import io, _core, load", "hmatrix.matrix", {"hmatrix.io", "hmatrix._core", "hmatrix"}),
        ("from .io import load", "hmatrix.matrix", {"hmatrix.io"}),
        ("from . import io", "hmatrix.matrix", {"hmatrix.io"}),
        ("from ...io import load", "hmatrix.nn.layers.linear", {"hmatrix.io"}),
        ("from .layers.linear import HLinear", "hmatrix.nn", {"hmatrix.nn.layers.linear"}),
        ("def f():\n    import hmatrix.io", "hmatrix.matrix", {"hmatrix.io"}),
        ("if TYPE_CHECKING:\n    from hmatrix.io import load", "hmatrix.matrix", {"hmatrix.io"}),
        ("from studies.coexistence import Product", "hmatrix.cli.bench", {"studies.coexistence"}),
        ("from studies import coexistence", "hmatrix.cli.bench", {"studies.coexistence"}),
        ("import matrices", "hmatrix.matrix", {"tests.support.matrices"}),
        ("from nightly import cases", "hmatrix.matrix", {"tests.support.nightly.cases"}),
        ("import numpy\nfrom scipy import io", "hmatrix.matrix", set()),
    ],
)
def test_imports_are_found(source, module, expected):
    assert imports(source, module, is_package=module == "hmatrix.nn") == expected


@pytest.mark.parametrize(
    ("module", "imported", "allowed"),
    [
        ("hmatrix.lowrank.aca", "hmatrix._support.checks", True),
        ("hmatrix.lowrank.aca", "hmatrix.lowrank.factors", True),
        ("hmatrix.lowrank.aca", "hmatrix.codes.precision", False),
        ("hmatrix.lowrank.aca", "hmatrix.io", False),
        ("hmatrix.packed.kernels", "hmatrix.matrix", False),
        ("hmatrix.heads.head", "hmatrix.allocation.allocator", False),
        ("hmatrix.allocation.allocator", "hmatrix.heads.head", False),
        ("hmatrix.allocation.search.spending", "hmatrix.allocation.rounding.steps", False),
        ("hmatrix.allocation.rounding.realise", "hmatrix.allocation.search.spending", True),
        ("hmatrix.allocation", "hmatrix.allocation.allocator", True),
        ("hmatrix.allocation.search.spending", "hmatrix.allocation", False),
        ("hmatrix.io", "hmatrix", False),
        ("hmatrix", "hmatrix.io", True),
        ("hmatrix", "hmatrix.nn.layers.linear", False),
        ("hmatrix.nn.layers.linear", "hmatrix", True),
        ("hmatrix.nn.layers.linear", "hmatrix.nn.ops.rows", True),
        ("hmatrix.nn.layers.linear", "hmatrix.nn.network.kinds", False),
        ("hmatrix.nn.layers.linear", "hmatrix.nn", False),
        ("hmatrix.nn.layers.linear", "hmatrix.study.measure.records", False),
        ("hmatrix.nn.training.adam", "hmatrix.nn.saved.networks", False),
        ("hmatrix.nn.saved.pretrained", "hmatrix.nn.huggingface", True),
        ("hmatrix.nn.saved.networks", "hmatrix.nn.huggingface", False),
        ("hmatrix.study.run", "hmatrix.study.measure.records", True),
        ("hmatrix.study.run", "hmatrix.nn.layers.linear", True),
        ("hmatrix.study.run", "hmatrix.cli", False),
        ("hmatrix.cli", "hmatrix.study.run", True),
        ("hmatrix.__main__", "hmatrix.cli", True),
        ("hmatrix.cli", "studies.coexistence", False),
        ("studies.coexistence", "hmatrix.cli.arguments", True),
        ("studies.coexistence", "studies.networks.turns", True),
        ("studies.coexistence", "tests.support.matrices", False),
        ("hmatrix.matrix", "tests.support.matrices", False),
        ("tests.support.matrices", "studies.coexistence", True),
        ("tests.support.matrices", "tests.support.heads", True),
    ],
)
def test_trespassers_are_found(module, imported, allowed):
    assert trespasses(module, {imported}) == (set() if allowed else {imported})


def test_rooms_without_a_place_are_found():
    assert place_of("hmatrix.attic") is None
    assert place_of("hmatrix.nn.attic") is None


def test_circles_are_found():
    with pytest.raises(CycleError):
        list(TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())


SOURCES = Path(__file__).parents[1] / "cpp"
INCLUDES = {"kernels": {"kernels"}, "product": {"kernels", "product"}, "heads": {"kernels", "product", "heads"}}
"""What each folder of the kernel may include."""


@pytest.mark.parametrize("room", INCLUDES)
def test_sources_of_the_kernel_include_only_what_lies_below_them(room):
    included = {
        Path(name).parts[0]
        for path in (SOURCES / room).iterdir()
        for name in re.findall(r'^#include "(.+)"$', path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert included
    assert included <= INCLUDES[room]


@pytest.mark.parametrize("path", sorted((SOURCES / "kernels").glob("*_kernels.cpp")), ids=lambda path: path.name)
def test_tables_of_kernels_are_made_when_they_are_compiled(path):
    """What is initialised when the library is loaded may be AVX-512 code, on a processor without it."""
    assert not re.findall(r"^(?:static |inline )?const .*=.*\(.*\);", path.read_text(encoding="utf-8"), re.MULTILINE)
