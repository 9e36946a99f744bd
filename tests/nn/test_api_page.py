"""The page of the API has every public name, with the first line of its docstring."""

import re
from pathlib import Path

import pytest

import hmatrix as hm
import hmatrix.nn as hnn

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")


def section(title):
    """The rows of a section's table: names, and what is said of them."""
    text = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    rows = next(part for part in text if part.startswith(title)).splitlines()
    cells = [re.match(r"\| `(.*?)` \| (.*) \|$", row) for row in rows]
    return {match[1]: match[2].replace(r"\|", "|") for match in cells if match}


def expected(package, prefix):
    return {prefix + name: getattr(package, name).__doc__.strip().split("\n")[0] for name in package.__all__}


@pytest.mark.parametrize(("package", "prefix"), [(hm, "hm."), (hnn, "hnn.")], ids=["hm", "hnn"])
def test_the_page_has_every_public_name(package, prefix):
    assert section(f"`import {package.__name__} as") == expected(package, prefix)


def test_the_page_has_every_name_for_transformers():
    pytest.importorskip("transformers")
    from hmatrix.nn import huggingface

    assert section("`hmatrix.nn.huggingface`") == expected(huggingface, "")
