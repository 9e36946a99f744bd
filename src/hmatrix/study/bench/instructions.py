"""The number of instructions of a call, counted one by one, so that it is the same on a machine that is busy.

The call is made in a forked process that is single-stepped (``ptrace``, Linux), which works for every instruction set,
and where a virtual machine hides the processor's counters. Where a call uses several threads, the instructions of the
calling thread alone are counted.
"""

import ctypes
import gc
import os
import platform
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from hmatrix.errors import BackendError

TRACEME, CONTINUE, SINGLESTEP = 0, 7, 9
"""Requests of ptrace."""

SUPPORTED = sys.platform == "linux" and platform.machine() == "x86_64"


def count_instructions(call: Callable[[], object]) -> int:
    """Return how many instructions `call` takes, less those of an empty Python function.

    A call is counted after it has been made twice in the same process, with its data warm.

    Raises
    ------
    BackendError
        If this system cannot single-step a process, or the call fails in it.
    """
    if not SUPPORTED:
        raise BackendError("instructions", f"cannot be counted on {sys.platform}", "use Linux on x86-64")
    return _count(call) - _count(lambda: None)


def _count(call: Callable[[], object]) -> int:
    ptrace = _ptrace()
    processors = os.sched_getaffinity(0)
    # Two processes that take turns do so fastest on one processor.
    os.sched_setaffinity(0, {min(processors)})
    try:
        return _steps(call, ptrace)
    finally:
        os.sched_setaffinity(0, processors)


def _steps(call: Callable[[], object], ptrace: Callable[[int, int, int, int], int]) -> int:
    child = os.fork()
    if child == 0:
        _be_traced(call, ptrace)
    steps, stops = 0, 0
    while True:
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            raise BackendError("instructions", f"the call ended with status {status}", "allow ptrace, or call it alone")
        # SIGSTOP says where the call begins and where it has ended; any other is a step, or somebody else's signal.
        stops += os.WSTOPSIG(status) == signal.SIGSTOP
        if stops == 2:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return steps
        steps += stops
        ptrace(SINGLESTEP if stops else CONTINUE, child, 0, 0)


def _be_traced(call: Callable[[], object], ptrace: Callable[[int, int, int, int], int]) -> NoReturn:
    """Make the call in this process between two stops."""
    status = 1
    try:
        gc.disable()
        call()
        call()
        me = os.getpid()
        if ptrace(TRACEME, 0, 0, 0) == 0:
            os.kill(me, signal.SIGSTOP)
            call()
            os.kill(me, signal.SIGSTOP)
            status = 0
    finally:
        os._exit(status)


def _ptrace() -> Callable[[int, int, int, int], int]:
    function = ctypes.CDLL(None, use_errno=True).ptrace
    function.restype = ctypes.c_long
    function.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    return function
