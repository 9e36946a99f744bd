"""Processor, threads and our own code, on which measurements and results that are kept depend beside their input."""

import hashlib
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from hmatrix import _core
from hmatrix._support.checks import check_integer

PACKAGE = Path(__file__).parents[1]
"""The folder of the package's code."""


def cpu_name() -> str:
    """Return the name that the processor gives itself, or its architecture."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if match := re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE):
            return match.group(1)
    return platform.processor() or platform.machine()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let the kernel, NumPy's libraries, and torch where it is loaded, use `count` threads each.

    Raises
    ------
    ArgumentError
        If `count` is not a positive integer.
    """
    check_integer("threads", count, at_least=1)
    torch = sys.modules.get("torch")
    libraries: list[Any] = [_core] if torch is None else [torch, _core]
    before = [library.get_num_threads() for library in libraries]
    for library in libraries:
        library.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        for library, known in zip(libraries, before, strict=True):
            library.set_num_threads(known)


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Let NumPy's linear algebra alone use `count` threads."""
    with threadpool_limits(count, user_api="blas"):
        yield


@cache
def code_digest(*left_out: str) -> str:
    """Return a digest of the package's code and its kernel, so that no result of other code is used again.

    Parameters
    ----------
    left_out
        Subpackages that the result does not depend on.
    """
    digest = hashlib.sha256()
    names = {file.relative_to(PACKAGE).as_posix(): file for file in sorted(PACKAGE.rglob("*.py"))}
    kept = {name: file for name, file in names.items() if name.split("/")[0] not in left_out}
    for name, file in {**kept, "_core": Path(str(_core.__file__))}.items():
        content = file.read_bytes()
        digest.update(f"{name} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()
