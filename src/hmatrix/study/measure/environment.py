"""The environment of a measurement: machine, kernel, threads and versions."""

import platform
from importlib.metadata import version
from typing import Any

from threadpoolctl import threadpool_info

from hmatrix._support.machine import code_digest, cpu_name
from hmatrix.packed.kernels import backend

PACKAGES = ("hmatrix", "numpy", "scipy", "torch")


def environment(threads: int) -> dict[str, Any]:
    """Return the CPU, the kernel, the threads and the versions, as values for JSON."""
    return {
        "cpu": cpu_name(),
        "kernel": backend().name,
        "threads": threads,
        "blas": _blas_names(),
        "code": code_digest()[:16],
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def _blas_names() -> list[str]:
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    keys = ("internal_api", "version", "architecture")
    return sorted({" ".join(library[key] for key in keys if library.get(key)) for library in libraries})
