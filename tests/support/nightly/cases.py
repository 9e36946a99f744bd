"""What there is to run: the cases, their environments, and the files of their tests."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[2]
ROOT = TESTS.parent
BUILD = ROOT / "build/nightly"

PYTHONS = ("3.11", "3.12", "3.13", "3.14")

CORE_TYPES = {
    "Haswell": "avx2",
    "Zen": "avx2",
    "SkylakeX": "avx512",
    "Sandybridge": "portable",
    "Nehalem": "portable",
}
"""OpenBLAS's core types, and the kernel of hmatrix that such a processor runs."""

KERNELS = ("avx512vbmi", "avx512", "avx2", "portable", "numpy")

OPTIONAL = ("torch", "hmatrix.nn", "hmatrix.study", "hmatrix.cli", "studies")
"""A test file that imports one of these is no test of the core."""


@dataclass(frozen=True)
class Environment:
    """Where a case runs.

    Parameters
    ----------
    python
        Version of Python, as in ``3.12``.
    oldest
        Whether to install the oldest versions that ``pyproject.toml`` allows, rather than the newest.
    optional
        Whether to install the optional dependencies, too.
    """

    python: str
    oldest: bool = False
    optional: bool = False

    @property
    def name(self) -> str:
        """Short name, for folders and tables."""
        return f"{self.python}-{'oldest' if self.oldest else 'newest'}-{'all' if self.optional else 'core'}"

    @property
    def folder(self) -> Path:
        """Folder of the virtual environment."""
        return BUILD / self.name

    @property
    def executable(self) -> Path:
        """Path of its Python."""
        return self.folder / "bin/python"


@dataclass(frozen=True)
class Case:
    """The tests of the core (or all others, where the environment has the optional dependencies) on chosen kernels."""

    name: str
    group: str
    environment: Environment
    core_type: str | None = None
    kernel: str | None = None
    blas_threads: int = 1

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of its tests."""
        chosen = {
            "OPENBLAS_NUM_THREADS": str(self.blas_threads),
            "OPENBLAS_CORETYPE": self.core_type,
            "HMATRIX_KERNEL": self.kernel,
        }
        return {name: value for name, value in chosen.items() if value is not None}

    @property
    def options(self) -> list[str]:
        """Options of pytest: all cases; and old versions of packages may call what new versions of others deprecate."""
        return ["-m", "", *(["-W", "default::DeprecationWarning"] if self.environment.oldest else [])]


def all_cases() -> list[Case]:
    """Return all cases, those of one environment in a row."""
    first, *later = PYTHONS
    newest = Environment(first)
    cases = [
        Case("oldest-core", "oldest", Environment(first, oldest=True)),
        Case("oldest-optional", "oldest", Environment(first, oldest=True, optional=True)),
        Case("newest-core", "newest", newest),
    ]
    for threads in (1, 2):
        cases += [
            Case(f"{core_type}-{threads}", "processors", newest, core_type, kernel, threads)
            for core_type, kernel in CORE_TYPES.items()
        ]
    cases += [Case(kernel, "processors", newest, kernel=kernel) for kernel in KERNELS]
    cases += [Case("newest-optional", "newest", Environment(first, optional=True))]
    for python in later:
        cases += [
            Case(f"python{python}-core", "pythons", Environment(python)),
            Case(f"python{python}-optional", "pythons", Environment(python, optional=True)),
        ]
    return cases


def files(core: bool) -> list[str]:
    """Return the test files of the core, or all others."""
    return [str(path.relative_to(ROOT)) for path in sorted(TESTS.rglob("test_*.py")) if is_core(path) == core]


@cache
def is_core(path: Path) -> bool:
    """Tell whether neither a file of the tests, nor a helper that it imports, imports what is OPTIONAL."""
    helpers = {helper.stem: helper for helper in TESTS.rglob("*.py") if not helper.stem.startswith("test_")}
    for name in _imported(path):
        helper = helpers.get(name.split(".")[0])
        if any(f"{name}.".startswith(f"{prefix}.") for prefix in OPTIONAL) or (helper and not is_core(helper)):
            return False
    return True


def _imported(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, inside functions, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip":
            yield from (argument.value for argument in node.args if isinstance(argument, ast.Constant))
