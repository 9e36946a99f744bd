"""The peak of memory that a piece of code takes, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

needs_peaks = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists() or "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="Linux alone tells the peak of a part of a process, and a sanitizer takes memory of its own",
)

_MEASURED = """
def memory(key):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(key)))

{before}
open("/proc/self/clear_refs", "w").write("5")  # the peak begins here
start = memory("VmRSS")
{code}
print(memory("VmHWM") - start)
"""


def peak_of(before, code):
    """Run code after other code, and return by how many bytes its peak lies above what was there."""
    script = _MEASURED.format(before=dedent(before), code=dedent(code))
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return int(run.stdout.splitlines()[-1])
