"""Types of arrays have one name each, all of them in one place."""

import re

import pytest
from importing import SOURCES

SPELLED = re.compile(r"NDArray\[(.*)\]")


@pytest.mark.parametrize("module", sorted(SOURCES.keys() - {"hmatrix._support.typing"}))
def test_no_other_module_spells_a_type_of_array(module):
    found = SPELLED.findall(SOURCES[module].read_text(encoding="utf-8"))
    # A variable of types has no alias.
    assert [types for types in found if "np." in types or "Any" in types] == []
