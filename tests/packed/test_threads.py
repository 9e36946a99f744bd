"""What runs around the kernels: threads, forked processes, and the kernel that the environment forces."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from matrices import equal_bits, leaf, permutation, stored
from multiplying import KERNELS, multiply

import hmatrix as hm
from hmatrix import _core
from hmatrix.codes.precision import Precision
from hmatrix.errors import ArgumentError
from hmatrix.packed.kernels import REFERENCE, native_product
from hmatrix.packed.packing import pack

LARGE = (1300, 1700)
"""More than 3 * 2^19 entries: enough work for three threads at any batch."""


@pytest.fixture(scope="module", params=[Precision.FLOAT32, Precision.FLOAT64, Precision.INT8], ids=lambda p: p.name)
def large(request):
    """A partition whose stages both have that many entries."""
    rng = np.random.default_rng(0)
    half = LARGE[1] // 2
    # The same number of words, more or less; batches of more than one are enough for codes.
    leaves = [leaf((0, LARGE[0]), (0, half), 1900, rng), leaf((0, LARGE[0]), (half, LARGE[1]), None, rng)]
    packed = pack(LARGE, stored(leaves, [request.param]), permutation(LARGE[0]), permutation(LARGE[1]), quantized=True)
    few = 4 if request.param.is_integer else 1
    for stage in (packed.schedule.far, packed.schedule.near):
        assert sum(panel.height * panel.width for panel in stage.panels) * few > 3 * 2**19
    return packed


@pytest.mark.parametrize("kernel", _core.instruction_sets())
@pytest.mark.parametrize("batch", [None, 7])
def test_threads_do_not_change_bits(large, kernel, batch, threads):
    size = LARGE[1] if batch is None else (batch, LARGE[1])
    x = np.random.default_rng(2).standard_normal(size).astype(large.dtype)
    results = []
    for count in (1, 2, 3, 1):
        threads(count)
        results.append(multiply(large, kernel, x, transposed=False))
    assert np.isfinite(results[0]).all()
    assert all(equal_bits(results[0], result) for result in results[1:])


def tasks():
    """Return the identifiers of all threads of this process."""
    return [int(task.name) for task in Path("/proc/self/task").iterdir()]


def wait_until_all_may_run_on(cores):
    """A thread that has yet to wake up is still kept from the caller's core."""
    end = time.monotonic() + 30
    while any(os.sched_getaffinity(task) != cores for task in tasks()):
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has to be told where threads wake up")
def test_threads_wake_up_beside_the_caller_and_may_run_everywhere_afterwards(large, threads):
    threads(2)
    allowed = os.sched_getaffinity(0)
    native = native_product(large, _core.instruction_sets()[0])
    x, y = np.ones(LARGE[1], large.dtype), np.empty(LARGE[0], large.dtype)
    for _ in range(5):
        time.sleep(0.01)
        native.multiply(x, y)
        assert os.sched_getaffinity(0) == allowed
    wait_until_all_may_run_on(allowed)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has to be told where threads wake up")
def test_threads_keep_to_the_cores_that_they_are_given(large, threads):
    threads(2)
    allowed = os.sched_getaffinity(0)
    native = native_product(large, _core.instruction_sets()[0])
    x = np.random.default_rng(2).standard_normal(LARGE[1]).astype(large.dtype)
    expected, y = np.empty(LARGE[0], large.dtype), np.empty(LARGE[0], large.dtype)
    native.multiply(x, expected)
    wait_until_all_may_run_on(allowed)
    core, pinned = {min(allowed)}, tasks()
    try:
        for task in pinned:
            os.sched_setaffinity(task, core)
        for _ in range(3):
            time.sleep(0.01)
            native.multiply(x, y)
            assert equal_bits(y, expected)
            assert {frozenset(os.sched_getaffinity(task)) for task in pinned} == {frozenset(core)}
    finally:
        for task in pinned:
            os.sched_setaffinity(task, allowed)


def test_threads_of_the_interpreter_at_once(large, threads):
    threads(2)
    rng = np.random.default_rng(3)
    native = native_product(large, _core.instruction_sets()[0])
    xs = rng.standard_normal((8, LARGE[1])).astype(large.dtype)

    def multiply_often(x):
        results = [np.empty(LARGE[0], large.dtype) for _ in range(10)]
        for y in results:
            native.multiply(x, y)
        return results

    expected = [multiply_often(x)[0] for x in xs]
    with ThreadPoolExecutor(len(xs)) as executor:
        for first, results in zip(expected, executor.map(multiply_often, xs), strict=True):
            assert all(equal_bits(first, result) for result in results)


LAYER = """
import os, sys, threading
import numpy as np
import hmatrix as hm
weight = np.random.default_rng(0).standard_normal((1500, 1500)).astype(np.float32)
H = hm.build(weight, splitter=hm.Cardinality(1500), truncation=hm.Truncation(max_rank=1))
x = np.ones(1500, np.float32)
"""


def run(script, **environment):
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | environment,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads as Linux does")
def test_threads_are_used():
    script = """
count = lambda: len(os.listdir("/proc/self/task"))
before = count()
for threads in (1, 2, 3):
    hm.set_num_threads(threads)
    H @ x
    print(count() - before)
"""
    ended = run(LAYER + script, HMATRIX_KERNEL=_core.instruction_sets()[0])
    assert (ended.stdout.split(), ended.stderr) == (["0", "1", "2"], "")


FORK = """
hm.set_num_threads(2)
expected = H @ x

def child():
    for _ in range(3):
        if not np.array_equal(H @ x, expected):
            return 1
    return 0

stop = threading.Event()
def multiply():
    while not stop.is_set():
        H @ x
other = threading.Thread(target=multiply)
if {busy}:
    other.start()
codes = []
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        os._exit(child())
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
stop.set()
print(codes, np.array_equal(H @ x, expected))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("busy", [False, True])
def test_product_after_a_fork(busy):
    ended = run("import warnings; warnings.simplefilter('ignore')\n" + LAYER + FORK.format(busy=busy))
    assert (ended.stdout.strip(), ended.stderr) == ("[0, 0, 0, 0, 0] True", "")


@pytest.mark.parametrize("kernel", KERNELS)
def test_forced_kernel(kernel):
    ended = run("import hmatrix as hm; print(hm.backend().name)", HMATRIX_KERNEL=kernel)
    assert (ended.stdout.strip(), ended.stderr) == (kernel, "")


@pytest.mark.parametrize("kernel", ["sse9", ""])
def test_forced_kernel_that_is_not_there(kernel):
    ended = run("import hmatrix as hm; hm.quantize([[1.0]], 'float64') @ [1.0]", HMATRIX_KERNEL=kernel)
    assert ended.returncode == 1
    assert f"BackendError: HMATRIX_KERNEL={kernel}: is not available here; set one of" in ended.stderr


def test_all_kernels_of_this_machine_are_named(threads):
    threads(3)
    backend = hm.backend()
    assert (backend.available, backend.threads) == (KERNELS, 3)
    assert backend.name == os.environ.get("HMATRIX_KERNEL", KERNELS[0])
    assert {"portable", REFERENCE} <= set(backend.available)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True, None])
def test_bad_numbers_of_threads(threads):
    before = hm.backend().threads
    with pytest.raises(ArgumentError, match="threads"):
        hm.set_num_threads(threads)
    assert hm.backend().threads == before


@pytest.mark.parametrize("count", [10**6, 2**31, 2**70])
def test_threads_too_many_for_the_system_are_never_asked_for(threads, count):
    # The panels limit how many there are.
    threads(count)
    rng = np.random.default_rng(0)
    packed = pack((130, 20), [leaf((0, 130), (0, 20), None, rng)])
    y = multiply(packed, _core.instruction_sets()[0], np.ones((2000, 20)), transposed=False)
    assert np.isfinite(y).all()
