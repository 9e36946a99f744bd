"""The environments of the cases: made by pip, with wheels of the package that are built once for each kind."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from nightly.cases import BUILD, ROOT, Environment

STABLE = "3.12"
"""The first Python with a wheel that later ones run, too (abi3)."""

TOOLS = ("pytest", "pytest-xdist", "hypothesis")
"""The part of the extra ``dev`` that the tests of the core need."""


class FailedError(Exception):
    """A step of a case failed."""


class ImpossibleError(Exception):
    """This machine cannot run a case."""


def run(command: Sequence[str | Path], log: Path, step: str, **variables: str) -> None:
    """Run a command in the project's folder; append its output to a log."""
    with log.open("a") as file:
        environment = {**os.environ, **variables}
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise FailedError(f"{step} ended with {done.returncode}, see {log.relative_to(ROOT)}")


def make(environment: Environment) -> None:
    """Make an environment, unless the case before left it."""
    if environment.executable.exists():
        return
    log = BUILD / f"{environment.name}.log"
    log.unlink(missing_ok=True)
    python = interpreter(environment.python)
    _make_venv(environment.folder, python, [_wheel(environment.python), *requirements(environment)], log)


def remove(environment: Environment) -> None:
    """Remove an environment; those with torch take several GB."""
    shutil.rmtree(environment.folder, ignore_errors=True)


def interpreter(version: str) -> Path:
    """Return the path of a Python, found on the PATH or in pyenv's folder."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    running = Path(sys.executable) if version == "{}.{}".format(*sys.version_info) else None
    for candidate in (running, shutil.which(f"python{version}"), *pyenv.glob(f"versions/{version}.*/bin/python")):
        # pyenv puts a script of every version on the PATH, which fails unless that version was chosen.
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return Path(candidate)
    raise ImpossibleError(f"no Python {version} was found")


def requirements(environment: Environment) -> list[str]:
    """Return what pip installs beside the package, read from ``pyproject.toml``."""
    project = _pyproject()["project"]
    extras = project["optional-dependencies"]

    def expand(lines: Sequence[str]) -> Iterator[str]:
        for line in lines:
            if inner := re.fullmatch(rf"{project['name']}\[(.*)\]", line):
                for extra in inner[1].split(","):
                    yield from expand(extras[extra])
            else:
                yield line

    tools = [line for line in extras["dev"] if line.split(">=")[0] in TOOLS]
    lines = [*project["dependencies"], *(expand(extras["dev"]) if environment.optional else tools)]
    return [_oldest(line) for line in lines] if environment.oldest else lines


def _pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _oldest(requirement: str) -> str:
    """Return the requirement of exactly the oldest version."""
    return requirement.replace(">=", "==")


@cache
def _wheel(version: str) -> Path:
    """Build the wheel for a Python: one for all of them from STABLE on, one of its own for an earlier one.

    The former is built with the newest build requirements under STABLE, the latter with the oldest.
    """
    if version != STABLE and _numbers(version) > _numbers(STABLE):
        return _wheel(STABLE)
    name = f"wheel-{version}"
    log = BUILD / f"{name}.log"
    log.unlink(missing_ok=True)
    requires = _pyproject()["build-system"]["requires"]
    tools = requires if version == STABLE else [_oldest(line) for line in requires]
    builder = _make_venv(BUILD / "builder", interpreter(version), [*tools, "cmake", "ninja"], log)
    folder = BUILD / name
    shutil.rmtree(folder, ignore_errors=True)
    path = f"{builder.parent}{os.pathsep}{os.environ['PATH']}"
    options = ["--no-deps", "--no-build-isolation", "-C", f"build-dir=build/nightly/cmake-{version}", "-w", folder]
    run([builder, "-m", "pip", "wheel", *options, "."], log, "the build", PATH=path)
    (built,) = folder.glob("*.whl")
    if ("abi3" in built.name) != (version == STABLE):
        raise FailedError(f"{built.name}: is for other Pythons than wanted")
    return built


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _make_venv(folder: Path, python: Path, packages: Sequence[str | Path], log: Path) -> Path:
    """Make a virtual environment with packages, and return its Python; leave none that is not whole."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        run([python, "-m", "venv", folder], log, "venv")
        run([folder / "bin/python", "-m", "pip", "install", *packages], log, "pip install")
    except FailedError:
        shutil.rmtree(folder)
        raise
    return folder / "bin/python"
