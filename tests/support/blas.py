"""Python run with one or another of OpenBLAS's kernels, which add up the edges of tiles in different orders."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from hmatrix.packed import kernels

X86 = platform.machine() in ("x86_64", "AMD64")
NEEDS = {"Nehalem": None, "Sandybridge": None, "Haswell": "avx2", "SkylakeX": "avx512"}
"""The instruction set that a core type needs besides what all processors of the last fifteen years have. NumPy's wheels
have no others: asked for Zen, OpenBLAS runs Haswell's kernels there."""

CORES = tuple(core for core, needs in NEEDS.items() if X86 and needs in (None, *kernels.backend().available))
"""Core types that this processor can run."""

_PROLOGUE = """
import json, sys
import numpy as np
import threadpoolctl
running = {library["architecture"] for library in threadpoolctl.threadpool_info()
           if library["internal_api"] == "openblas" and "numpy" in library["filepath"]}
assert running <= {sys.argv[1]}, f"OpenBLAS runs {running}, not {sys.argv[1]}"
"""


def run(core, script, *arguments):
    """What a script prints as JSON, where OpenBLAS runs the kernels of a core type."""
    environment = dict(os.environ, OPENBLAS_CORETYPE=core, PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, "-c", _PROLOGUE + script, core, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Answering:
    """A script that answers each line of JSON by one, where OpenBLAS runs the kernels of a core type.

    It runs until the interpreter ends, so that many small questions cost no start each.
    """

    def __init__(self, core, script):
        environment = dict(os.environ, OPENBLAS_CORETYPE=core, PYTHONPATH=os.pathsep.join(sys.path))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROLOGUE + script, core],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,
        )

    def ask(self, *question):
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()

    def answer(self):
        line = self._process.stdout.readline()
        assert line, f"ended with {self._process.wait()}"
        return json.loads(line)

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
