"""Which kernels run in an environment: the wanted ones, or the reason why not."""

import json
import os
import signal
import subprocess
from pathlib import Path

from nightly.cases import Case
from nightly.environments import FailedError, ImpossibleError

# OpenBLAS obeys OPENBLAS_CORETYPE without asking the processor, and dies; or runs another type's kernels.
PROBE = """
import json, numpy, scipy.linalg, threadpoolctl, hmatrix
for real in "float32", "float64":
    x = numpy.ones((300, 300), real)
    x @ x, x @ x[0], scipy.linalg.qr(x)
blas = [library for library in threadpoolctl.threadpool_info() if library["internal_api"] == "openblas"]
print(json.dumps({
    "core_types": sorted({library["architecture"] for library in blas}),
    "blas": sorted({library["version"] for library in blas}),
    "threads": sorted({library["num_threads"] for library in blas}),
    "kernel": hmatrix.backend().name,
    "available": hmatrix.backend().available,
}))
"""


def check_kernels(case: Case, python: Path) -> tuple[dict, dict]:
    """Return which kernels run, and which run if none is asked for.

    Raises
    ------
    ImpossibleError
        If the processor or its OpenBLAS cannot run the wanted ones.
    """
    usual = _probe(python, {"OPENBLAS_NUM_THREADS": "1"})
    if isinstance(usual, str):
        raise FailedError(f"the package does not run: {usual}")
    if case.kernel and case.kernel not in usual["available"]:
        raise ImpossibleError(f"no {case.kernel} here: hmatrix can run {', '.join(usual['available'])}")
    found = _probe(python, case.variables)
    if found == signal.SIGILL.name and case.core_type:
        raise ImpossibleError(f"the processor lacks instructions of {case.core_type}: {found} in OpenBLAS")
    if isinstance(found, str):
        raise FailedError(f"with {case.variables}: {found}")
    if case.core_type and found["core_types"] != [case.core_type]:
        raise ImpossibleError(f"OpenBLAS {', '.join(found['blas'])} runs {', '.join(found['core_types'])} instead")
    if found["threads"] != [case.blas_threads] or found["kernel"] != (case.kernel or usual["kernel"]):
        raise FailedError(f"with {case.variables}: {found}")
    return found, usual


def _probe(python: Path, variables: dict[str, str]) -> dict | str:
    """Return which kernels run with some variables set, or by what the process ended."""
    environment = {**os.environ, **variables}
    done = subprocess.run([python, "-c", PROBE], env=environment, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        return signal.Signals(-done.returncode).name
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr.strip().splitlines()[-1]
