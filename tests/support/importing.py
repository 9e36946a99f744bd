"""The graph of imports of the package, read from its source."""

import ast
from pathlib import Path

import hmatrix

SOURCE = Path(hmatrix.__file__).parent


def module_of(path):
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCE.rglob("*.py")}
KNOWN = {*MODULES, "hmatrix._core"}


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
            found |= {full if (full := f"{base}.{alias.name}") in KNOWN else base for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("hmatrix", "studies")}


GRAPH = {
    module: imports(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
    for module, path in MODULES.items()
}
