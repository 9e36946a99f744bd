"""The graph of imports of the package, the studies and the helpers of tests, read from their source."""

import ast
from pathlib import Path

import hmatrix

SOURCE = Path(hmatrix.__file__).parent
SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parents[1]


def module_of(path, root):
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_of(path, folder.parent): path for folder in (SOURCE, ROOT / "studies") for path in folder.rglob("*.py")
}
"""Files of the package and of the studies."""

MODULES = {**SOURCES, **{module_of(path, ROOT): path for path in SUPPORT.rglob("*.py")}}
KNOWN = {*MODULES, "hmatrix._core"}

HELPERS = "tests.support"
"""Helpers import each other without it: pytest puts their folder on the path."""


def full_name(name):
    """The name of a module by which the graph knows it, or ``None`` if it is another project's."""
    if name.split(".")[0] in ("hmatrix", "studies"):
        return name
    return found if (found := f"{HELPERS}.{name}") in KNOWN else None


def imports(source, module, is_package=False):
    """The modules of the project that a module imports anywhere in its source."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")[: None if is_package else -1]
                base = ".".join([*package[: len(package) - node.level + 1], *base.split(".") * bool(base)])
            # ``from package import name`` imports a module where there is one of that name.
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name if full_name(name) in KNOWN else base for name in names}
    return {name for name in map(full_name, found) if name is not None}


GRAPH = {
    module: imports(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
    for module, path in MODULES.items()
}


def reached_from(module):
    """All modules of the package that are loaded with one, itself among them."""
    found, left = set(), {module}
    while left:
        name = left.pop()
        found.add(name)
        parents = {name.rpartition(".")[0]} - {""}
        left |= (GRAPH.get(name, set()) | parents) - found
    return found
