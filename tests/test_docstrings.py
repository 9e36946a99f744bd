"""Docstrings: entries are noun phrases, and every room's first line says what is in it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "src" / "hmatrix").rglob("*.py")) + sorted((ROOT / "studies").rglob("*.py"))

SECTION = re.compile(r"^(?:Parameters|Returns|Yields|Attributes)\n-+\n((?:(?!^[^\n]+\n-+\n)[^\n]*\n)*)", re.MULTILINE)
ENTRY = re.compile(r"^\S.*\n((?:[ ]+\S.*\n?|\n)+)", re.MULTILINE)
RIDDLE = re.compile(
    r"(?:Of|That|Whose|How|What|Which|Where|When|As|By|In|To|With|After|Until)\b(?!-)|From .* to ", re.DOTALL
)
"""Openings that are no noun phrases: they leave the noun to the reader."""


def docstrings(tree):
    """Line and text of each docstring, and of each string below an assignment, which documents it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield node.body[0].lineno, text
            for above, below in zip(node.body, node.body[1:], strict=False):
                if isinstance(above, ast.Assign | ast.AnnAssign) and isinstance(below, ast.Expr):
                    value = below.value
                    if isinstance(value, ast.Constant) and isinstance(value.value, str):
                        yield below.lineno, value.value


def entries(text):
    """The descriptions of parameters, returned values and attributes in a docstring."""
    for section in SECTION.findall(text + "\n"):
        yield from (description.strip() for description in ENTRY.findall(section))


def riddles(source):
    """Line and opening of each docstring or entry that does not begin with a noun phrase or a verb."""
    return [
        (line, opening.split("\n")[0])
        for line, text in docstrings(ast.parse(source))
        for opening in (text.strip(), *entries(text))
        if RIDDLE.match(opening)
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_entries_are_noun_phrases(path):
    assert riddles(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_say_what_they_hold(path):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text is not None
    assert re.match(r"\S.*[.:]$|``.*``", text.split("\n")[0]), text


def arguments(node):
    """Names of a function's arguments, or of a class's fields and of its constructor's arguments."""
    if isinstance(node, ast.ClassDef):
        fields = {field.target.id for field in node.body if isinstance(field, ast.AnnAssign)}
        return fields.union(*(arguments(part) for part in node.body if getattr(part, "name", "") == "__init__"))
    given = node.args
    all_of_them = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return {argument.arg for argument in all_of_them if argument}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_parameters_are_those_of_the_function(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            for section in re.findall(r"^Parameters\n-+\n(.*?)(?=\n\n\w+\n-+\n|\Z)", text, re.MULTILINE | re.DOTALL):
                named = {name for line in re.findall(r"^\S.*", section, re.MULTILINE) for name in line.split(", ")}
                assert named <= arguments(node), node.name


SOURCE = '''
"""Of a module."""

SIZE = 3
"""Of a word."""


class Thing:
    """A thing.

    Parameters
    ----------
    name
        Of the thing.

        More of it.
    shape
        Shape of the thing,
        of two numbers.

    Attributes
    ----------
    age
        That it has.
    """

    @property
    def score(self):
        """From outputs to a number."""

    def run(self):
        """Return a size.

        Returns
        -------
        int
            Of the thing.

        Notes
        -----
        Of this nothing is looked at.
        """
'''


def test_riddles_are_found():
    assert sorted(riddles(SOURCE)) == [
        (2, "Of a module."),
        (5, "Of a word."),
        (9, "Of the thing."),
        (9, "That it has."),
        (29, "From outputs to a number."),
        (32, "Of the thing."),
    ]
