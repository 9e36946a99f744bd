"""Processes that write one entry of a store again and again, forked from one that has imported the package already."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

_SOURCE = """
import os, sys
from pathlib import Path
import numpy as np
from hmatrix._support.store import Shelf, Store
for line in sys.stdin:
    folder, times = line.rstrip().rsplit(" ", 1)
    process = os.fork()
    if process == 0:
        store = Store(Path(folder), Shelf.LAYERS)
        for _ in range(int(times)):
            store.keep("kept", {"a": np.arange(100_000.0)}, {"error": 0.1})
        os._exit(0)
    print(process, flush=True)
    if int(times) > 10**6:
        os.waitpid(process, 0)
        print("ended", flush=True)
for _ in range(int(sys.argv[1])):
    assert os.wait()[1] == 0
"""


@contextmanager
def writers(finite):
    """Give a function that starts a writer into a folder; so many of them end by themselves, and end well."""
    command = [sys.executable, "-c", _SOURCE, str(finite)]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(folder, times):
        parent.stdin.write(f"{folder} {times}\n")
        parent.stdin.flush()
        return int(parent.stdout.readline())

    def kill(process):
        os.kill(process, signal.SIGKILL)
        assert parent.stdout.readline() == "ended\n"

    try:
        yield start, kill, parent
    finally:
        parent.communicate()
    assert parent.returncode == 0
