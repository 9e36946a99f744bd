"""A study killed at random moments, again and again: the same records afterwards, and no file left over."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
from safetensors.numpy import save_file

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
]

KILLS = 60

# Each run is forked from a process that has imported everything: what is killed is the study, not an import.
SOURCE = """
import os, sys
from pathlib import Path
import hmatrix.study.figures.plots
from hmatrix.study.config.settings import Method, Network, Structure, Study, Timing
from hmatrix.study.run import run_study
for line in sys.stdin:
    folder = Path(line.rstrip("\\n"))
    process = os.fork()
    if process == 0:
        study = Study(
            title="small",
            networks=(Network(None, weights=folder.parent / "head.safetensors"),),
            data=None,
            methods=(Method.SVD, Method.QR),
            ranks=(1, 2, 3, 4),
            structure=Structure(leaf_size=10),
            timing=Timing(products=2),
            output=folder / "out",
        )
        list(run_study(study, folder / "cache"))
        os._exit(0)
    print(process, flush=True)
    print(os.waitpid(process, 0)[1], flush=True)
"""


def records(folder):
    rows = [json.loads(line) for line in (folder / "out/records.jsonl").read_text().splitlines()]
    return [[row[name] for name in ("key", "method", "rank", "leaves", "storage", "relative_error")] for row in rows]


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_study_that_is_killed_again_and_again(tmp_path):
    weight = np.random.default_rng(0).standard_normal((60, 80)) / np.arange(1, 81)
    save_file({"fc.weight": weight.astype(np.float32)}, tmp_path / "head.safetensors")
    parent = subprocess.Popen([sys.executable, "-c", SOURCE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(name, seconds=None):
        parent.stdin.write(f"{tmp_path / name}\n")
        parent.stdin.flush()
        process = int(parent.stdout.readline())
        if seconds is not None:
            time.sleep(seconds)
            # It may have come to its end just before.
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return os.waitstatus_to_exitcode(int(parent.stdout.readline()))

    assert run("first") == 0
    start = time.perf_counter()
    assert run("whole") == 0
    duration = time.perf_counter() - start
    rng, ends = random.Random(0), []
    while len(ends) < KILLS:
        # Where a study has come to its end, the next begins anew.
        name = f"killed {ends.count(0)}"
        ends.append(run(name, rng.uniform(0, duration)))
        assert ends[-1] in (0, -signal.SIGKILL)
    assert ends.count(-signal.SIGKILL) > KILLS / 4
    for number in range(ends.count(0) + 1):
        assert run(f"killed {number}") == 0
        assert records(tmp_path / f"killed {number}") == records(tmp_path / "whole")
        assert files(tmp_path / f"killed {number}") == files(tmp_path / "whole")
    parent.communicate()
    assert parent.returncode == 0
