import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from matrices import assembled, equal_bits, leaf, permutation, random_leaves, stored

import hmatrix as hm
from hmatrix import _core
from hmatrix.errors import ArgumentError
from hmatrix.kernels import LEAST_LARGEST, REFERENCE, ReferenceProduct, native_product, quantize_activations
from hmatrix.lowrank import LowRank
from hmatrix.packing import PackedLeaf, pack
from hmatrix.precision import Precision

KERNELS = (*_core.instruction_sets(), REFERENCE)
BATCHES = [None, 0, 1, 2, 7, 130]
"""Rows of a batch; ``None`` is a vector."""

SHAPES = [
    (1, 1),
    (1, 1000),
    (3, 31),
    (31, 3),
    (33, 65),
    (64, 64),
    (65, 33),
    (65, 1001),
    (1000, 64),
    (1001, 1000),
]

LARGEST = 10**6

every_kernel = pytest.mark.parametrize("kernel", KERNELS)
every_type = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture
def threads():
    """Sets the number of threads; puts it back at the end."""
    before = hm.backend().threads
    yield hm.set_num_threads
    hm.set_num_threads(before)


def product(packed, kernel):
    return ReferenceProduct(packed) if kernel == REFERENCE else native_product(packed, kernel)


def guarded(shape, dtype, inside):
    """An array with NaN before and after it in memory, and what surrounds it."""
    size = int(np.prod(shape))
    memory = np.full(size + 256, np.nan, dtype)
    array = memory[128 : 128 + size].reshape(shape)
    array[:] = inside
    return array, (memory[:128], memory[128 + size :])


def multiply(packed, kernel, x, transposed):
    """``x A^T``, or ``x A`` where `transposed`, with NaN around x and y."""
    name = f"multiply{'_transposed' * transposed}{'_batch' * (x.ndim == 2)}"
    source, _ = guarded(x.shape, packed.dtype, x)
    target, outside = guarded((*x.shape[:-1], packed.shape[transposed]), packed.dtype, np.nan)
    getattr(product(packed, kernel), name)(source, target)
    np.testing.assert_array_equal(source, x)
    assert all(np.isnan(memory).all() for memory in outside)
    return target


def check(packed, dense, magnitude, kernel, batches=BATCHES):
    """Compare with the dense product in float64.

    Each entry is a sum of at most ``w = m + n + intermediate`` products of at most three factors, added in
    some order: its error is below ``(w + 3) eps`` times the same sum of absolute values.
    """
    rng = np.random.default_rng(1)
    m, n = packed.shape
    bound = (m + n + packed.schedule.intermediate + 3) * np.finfo(packed.dtype).eps
    for transposed, size in ((False, n), (True, m)):
        A, B = (dense, magnitude) if transposed else (dense.T, magnitude.T)
        for batch in batches:
            x = rng.standard_normal(size if batch is None else (batch, size)).astype(packed.dtype)
            y = multiply(packed, kernel, x, transposed)
            assert (np.abs(y - x.astype(float) @ A) <= bound * (np.abs(x.astype(float)) @ B)).all()


def checked(shape, leaves, kernel, permuted=False, batches=BATCHES):
    permutations = [permutation(size, seed=3) for size in shape] if permuted else [None, None]
    dense, magnitude = (assembled(shape, leaves, *permutations, of=of) for of in (np.asarray, np.abs))
    check(pack(shape, leaves, *permutations), dense, magnitude, kernel, batches)


@every_kernel
@every_type
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("permuted", [False, True], ids=["", "permuted"])
def test_product(kernel, dtype, shape, permuted):
    # The largest shape takes its time in the tests themselves.
    batches = BATCHES if shape[0] * shape[1] < LARGEST else [None, 7]
    checked(shape, random_leaves(shape, dtype=dtype, seed=sum(shape)), kernel, permuted, batches)


@every_kernel
@every_type
@pytest.mark.parametrize("rank", [None, 0, 1, 33])
@pytest.mark.parametrize("shape", [(1, 1), (33, 65), (130, 33)], ids=str)
def test_one_leaf(kernel, dtype, rank, shape):
    rng = np.random.default_rng(0)
    checked(shape, [leaf((0, shape[0]), (0, shape[1]), rank, rng, dtype)], kernel)


@every_kernel
@pytest.mark.parametrize("ranks", [(0,), (0, 1), (None,), (33,), (64, 65)], ids=str)
def test_leaves_of_the_same_kind(kernel, ranks):
    checked((150, 130), random_leaves((150, 130), ranks=ranks), kernel, batches=[None, 2, 7])


@every_kernel
@every_type
def test_dense_leaf_at_the_right_of_the_first_low_rank_one(kernel, dtype):
    # In the source of the second stage the last column of x is next to the first entry of t.
    rng = np.random.default_rng(0)
    leaves = [leaf((0, 70), (0, 40), 3, rng, dtype), leaf((0, 70), (40, 90), None, rng, dtype)]
    checked((70, 90), leaves, kernel)


@every_kernel
def test_rank_0_everywhere_gives_zeros(kernel):
    packed = pack((70, 50), random_leaves((70, 50), ranks=(0,)))
    for transposed, size in ((False, 50), (True, 70)):
        np.testing.assert_array_equal(multiply(packed, kernel, np.ones((3, size)), transposed), 0.0)


@every_kernel
@pytest.mark.parametrize("seed", range(20))
def test_many_partitions(kernel, seed):
    shape = tuple(np.random.default_rng(seed).integers(1, 300, 2).tolist())
    leaves = random_leaves(shape, seed=seed, most=40, dtype=(np.float32, np.float64)[seed % 2])
    checked(shape, leaves, kernel, permuted=seed % 3 == 0, batches=[None, 3])


# All precisions.

FLOATS32 = [Precision.FLOAT32, Precision.BFLOAT16]
CODES = [precision for precision in Precision if precision.is_integer]
SMALL_BATCHES = [None, 0, 1, 2, 7, 64]

every_code = pytest.mark.parametrize("precision", CODES)


def decoded(packed):
    """The leaves of a packed matrix as it gives them back."""
    return [
        PackedLeaf(slice(first, end), slice(left, right), packed.block(number))
        for number, (first, end, left, right, *_) in enumerate(packed.leaves.tolist())
    ]


def magnitude_of(packed, of=np.abs):
    """The matrix of the decoded blocks in float64; `of` is applied to their coefficients."""
    return assembled(packed.shape, decoded(packed), packed.row_permutation, packed.column_permutation, of)


def quantisation_bound(packed, x):
    """How far quantised activations may be from exact ones at most, for x ``(batch, n)``; ``(batch, m)``.

    An entry of a vector that is quantised with the largest magnitude M is off by M / 254 at most, and M is
    no more than the largest of all entries that the leaf meets, in x and in t.
    """
    x = np.abs(x.astype(float))
    x = x if packed.column_permutation is None else x[:, packed.column_permutation]
    error = np.zeros((len(x), packed.shape[0]))
    for part, precision in zip(decoded(packed), packed.leaves[:, 5].tolist(), strict=True):
        if not Precision(precision).is_integer or part.rank == 0:
            continue
        mine = x[:, part.columns]
        step = mine.max(axis=1, keepdims=True) / 254
        if isinstance(part.block, LowRank):
            U, V = np.abs(part.block.U.astype(float)), np.abs(part.block.V.astype(float))
            of_t = step * V.sum(axis=0)
            largest = (mine @ V + of_t).max(axis=1, keepdims=True)
            error[:, part.rows] += (of_t + largest / 254) @ U.T
        else:
            error[:, part.rows] += step * np.abs(part.block).sum(axis=1)
    if packed.row_permutation is None:
        return error
    result = np.empty_like(error)
    result[:, packed.row_permutation] = error
    return result


def check_all(packed, batches=SMALL_BATCHES, kernels=KERNELS):
    """Compare all kernels with the dense product in float64, and with the reference."""
    m, n = packed.shape
    rng = np.random.default_rng(2)
    dense, magnitude = magnitude_of(packed, np.asarray), magnitude_of(packed)
    # As in `check`; each factor is decoded and scaled with up to four roundings more.
    rounding = (m + n + packed.schedule.intermediate + 12) * np.finfo(packed.dtype).eps
    codes_only = all(Precision(precision).is_integer for precision in packed.leaves[:, 5])
    for transposed, size in ((False, n), (True, m)):
        A, B = (dense, magnitude) if transposed else (dense.T, magnitude.T)
        for batch in batches:
            x = rng.standard_normal(size if batch is None else (batch, size)).astype(packed.dtype)
            bound = rounding * (np.abs(x.astype(float)) @ B)
            quantised = np.zeros(())
            if packed.quantized and not transposed:
                quantised = quantisation_bound(packed, np.atleast_2d(x)).reshape(bound.shape)
            reference = multiply(packed, REFERENCE, x, transposed)
            for kernel in kernels:
                y = multiply(packed, kernel, x, transposed)
                assert (np.abs(y - x.astype(float) @ A) <= bound + quantised * (1 + 4 * rounding)).all()
                assert (np.abs(y.astype(float) - reference) <= 2 * bound + 4 * rounding * quantised).all()
                if packed.quantized and codes_only and not transposed:
                    np.testing.assert_array_equal(y, reference)


RANKS = {"dense": (None,), "low rank": (1, 5, 33), "both": (None, 0, 1, 5, 33)}


@pytest.mark.parametrize("group", [0, 13])
@pytest.mark.parametrize("quantized", [False, True], ids=["exact", "int8"])
@pytest.mark.parametrize("kind", RANKS)
@pytest.mark.parametrize("precision", Precision, ids=lambda precision: precision.name)
def test_precisions(precision, kind, quantized, group):
    shape = (97, 133)
    leaves = stored(random_leaves(shape, ranks=RANKS[kind], seed=3, most=7), [precision], [group])
    check_all(pack(shape, leaves, permutation(shape[0]), permutation(shape[1]), quantized=quantized))


@pytest.mark.parametrize("groups", [(0,), (13,), (0, 1, 64, 13)], ids=str)
@pytest.mark.parametrize("quantized", [False, True], ids=["exact", "int8"])
@pytest.mark.parametrize("precisions", [list(Precision)[1:], CODES], ids=["all", "codes"])
@pytest.mark.parametrize("seed", range(2))
def test_precisions_together(precisions, quantized, groups, seed):
    shape = (130, 101)
    leaves = stored(random_leaves(shape, seed=seed, most=14), precisions, groups)
    check_all(pack(shape, leaves, permutation(130), permutation(101), quantized=quantized), [None, 2, 7])


ODD_SHAPES = [(1, 1), (1, 3), (3, 1), (3, 31), (31, 3), (33, 31), (1, 1001), (1001, 1), (33, 1000), (1000, 33)]


@pytest.mark.parametrize("quantized", [False, True], ids=["exact", "int8"])
@pytest.mark.parametrize("shape", ODD_SHAPES, ids=str)
@pytest.mark.parametrize("precision", [*FLOATS32, *CODES], ids=lambda precision: precision.name)
def test_precisions_of_odd_shapes(precision, shape, quantized):
    rng = np.random.default_rng(0)
    one = leaf((0, shape[0]), (0, shape[1]), None, rng)
    for leaves in ([one], random_leaves(shape, ranks=RANKS["both"], seed=sum(shape))):
        check_all(pack(shape, stored(leaves, [precision], [0, 13]), quantized=quantized), [None, 3])


@pytest.mark.parametrize("quantized", [False, True], ids=["exact", "int8"])
@pytest.mark.parametrize("shape", [(1001, 1000), (1000, 1001)], ids=str)
def test_precisions_of_large_shapes(shape, quantized):
    leaves = stored(random_leaves(shape, ranks=(1, 5, 33), most=9), [*CODES, *FLOATS32], [0, 64])
    check_all(pack(shape, leaves, quantized=quantized), [None, 7])


@every_code
def test_the_largest_sums_of_codes_stay_within_32_bits(precision):
    # All codes at an end, all activations at 127 or -127, in the longest run.
    n = 1 << 14
    block = np.ones((3, n), np.float32)
    block[1] = -1
    packed = pack((3, n), [PackedLeaf(slice(0, 3), slice(0, n), block, precision)], quantized=True)
    check_all(packed, [])
    for x in (np.ones(n, np.float32), -np.ones(n, np.float32)):
        for kernel in KERNELS:
            np.testing.assert_allclose(multiply(packed, kernel, x, False), x[0] * n * block[:, 0], rtol=1e-5)


def depends(packed, entry):
    """Which rows of the matrix have a leaf of a rank other than 0 at an entry of x."""
    place = entry if packed.column_permutation is None else np.flatnonzero(packed.column_permutation == entry)[0]
    rows = np.zeros(packed.shape[0], bool)
    for first, end, left, right, rank, *_ in packed.leaves.tolist():
        rows[first:end] |= rank != 0 and left <= place < right
    if packed.row_permutation is None:
        return rows
    result = np.empty_like(rows)
    result[packed.row_permutation] = rows
    return result


@every_code
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("group", [0, 13])
def test_quantised_activations_that_are_not_finite(precision, value, group):
    shape = (100, 90)
    leaves = stored(random_leaves(shape, seed=1, ranks=(None, 0, 3)), [precision], [group])
    packed = pack(shape, leaves, permutation(100), permutation(90), quantized=True)
    x = np.random.default_rng(0).standard_normal((3, 90)).astype(np.float32)
    for entry in (0, 17, 89):
        spoilt = x.copy()
        spoilt[1, entry] = value
        rows = depends(packed, entry)
        assert rows.any()
        for kernel in KERNELS:
            y, expected = multiply(packed, kernel, spoilt, False), multiply(packed, kernel, x, False)
            np.testing.assert_array_equal(np.isnan(y[1]), rows)
            assert equal_bits(y[1, ~rows], expected[1, ~rows])
            assert equal_bits(y[::2], expected[::2])
            np.testing.assert_array_equal(np.isnan(multiply(packed, kernel, spoilt[1], False)), rows)


@every_code
def test_quantised_activations_all_not_finite(precision):
    packed = pack((9, 7), stored([leaf((0, 9), (0, 7), 2, np.random.default_rng(0))], [precision]), quantized=True)
    for value in (np.nan, np.inf):
        for kernel in KERNELS:
            assert np.isnan(multiply(packed, kernel, np.full(7, value), False)).all()


@every_code
@pytest.mark.parametrize("size", [0.0, -0.0, 1e-45, 1e-38, 9.9e-37, 1.01e-36, 1e-30, 1e30])
def test_quantised_activations_of_any_size(precision, size):
    shape = (50, 40)
    packed = pack(shape, stored(random_leaves(shape), [precision], [0, 13]), quantized=True)
    x = (np.random.default_rng(0).uniform(-1, 1, (3, 40)) * size).astype(np.float32)
    x[:, ::7] = np.float32(size)
    reference = multiply(packed, REFERENCE, x, False)
    for kernel in KERNELS:
        y = multiply(packed, kernel, x, False)
        np.testing.assert_array_equal(y, reference)
        if size < LEAST_LARGEST:
            np.testing.assert_array_equal(y, 0)
        elif size >= 1e-30:
            bound = quantisation_bound(packed, x) + 1e-4 * np.abs(x.astype(float)) @ magnitude_of(packed).T
            assert (np.abs(y - x.astype(float) @ magnitude_of(packed, np.asarray).T) <= bound).all()


def test_steps_and_codes_of_activations():
    x = np.array([[1, -2, 0.5], [0, 0, 0], [1e-38, 0, 0], [np.nan, 1, 2], [np.inf, 1, 2]], np.float32)
    codes, steps = quantize_activations(x)
    assert (codes.dtype, steps.dtype) == (np.int8, np.float32)
    # 63.5 and 31.75 round to even, and up.
    assert codes.tolist() == [[64, -127, 32], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(steps, np.array([np.float32(2) / np.float32(127), 0, 0, np.nan, np.nan], np.float32))


@every_code
@pytest.mark.parametrize("quantized", [False, True], ids=["exact", "int8"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_of_a_batch_do_not_meet(precision, quantized, kernel):
    # More than go through the stages at once.
    shape = (40, 50)
    packed = pack(shape, stored(random_leaves(shape), [precision], [13]), quantized=quantized)
    x = np.random.default_rng(0).standard_normal((131, 50)).astype(np.float32)
    y = multiply(packed, kernel, x, False)
    for row in (0, 1, 127, 128, 130):
        alone = multiply(packed, kernel, x[row], False)
        if quantized:
            np.testing.assert_array_equal(y[row], alone)
        else:
            np.testing.assert_allclose(y[row], alone, rtol=1e-4, atol=1e-4)


def test_permutations_of_any_layout():
    shape = (30, 20)
    leaves, rows, columns = random_leaves(shape), permutation(30), permutation(20)
    expected = multiply(pack(shape, leaves, rows, columns), "portable", np.ones(20), False)
    spread = [np.repeat(order, 2)[::2] for order in (rows, columns)]
    assert equal_bits(multiply(pack(shape, leaves, *spread), "portable", np.ones(20), False), expected)


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


# What the native kernel refuses by itself.

FAR = (np.array([0]), np.array([[0, 2, 0, 1]], np.int32), np.array([[0, 4, -1, 0]], np.int32))
NEAR = (
    np.array([8, 32]),
    np.array([[0, 3, 0, 2], [3, 2, 2, 1]], np.int32),
    np.array([[0, 6, -1, 0], [6, 2, -1, 0], [1, 5, -1, 0]], np.int32),
)
PLAN = {
    "instruction_set": "portable",
    "shape": (5, 6),
    "intermediate": 2,
    "data": np.arange(42.0),
    "far": FAR,
    "near": NEAR,
    "segments": None,
    "row_permutation": None,
    "column_permutation": None,
}


def test_tables_of_the_tests_are_good():
    plan = _core.PlanFloat64(**PLAN)
    x, y, data = np.arange(6.0), np.empty(5), PLAN["data"]
    plan.multiply(x, y)
    t = data[:8].reshape(4, 2).T @ x[:4]
    np.testing.assert_allclose(y[:3], data[8:32].reshape(8, 3).T @ np.append(x, t))
    np.testing.assert_allclose(y[3:], data[32:].reshape(5, 2).T @ x[1:])


def changed(tables, table, index, value):
    """The tables of a stage with one entry changed."""
    copies = [array.copy() for array in tables]
    copies[table][index] = value
    return tuple(copies)


OFFSETS, PANELS, RUNS = 0, 1, 2
TARGET, HEIGHT, FIRST_RUN, RUN_COUNT = 0, 1, 2, 3
MOST = 2**31 - 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": np.arange(41.0)}, "outside the data"),
        ({"data": np.zeros(0)}, "outside the data"),
        ({"near": changed(NEAR, OFFSETS, 1, 33)}, "outside the data"),
        ({"near": changed(NEAR, OFFSETS, 1, 2**62)}, "outside the data"),
        ({"far": changed(FAR, OFFSETS, 0, -1)}, "in the data in order"),
        ({"far": changed(FAR, OFFSETS, 0, 9)}, "in the data in order"),
        ({"near": changed(NEAR, OFFSETS, slice(None), [10, 0])}, "in the data in order"),
        ({"far": changed(FAR, RUNS, (0, 0), 3)}, "outside the source"),
        ({"far": changed(FAR, RUNS, (0, 0), -1)}, "outside the source"),
        ({"far": changed(FAR, RUNS, (0, 1), 7)}, "outside the source"),
        ({"far": changed(FAR, RUNS, (0, 1), 0)}, "outside the source"),
        ({"far": changed(FAR, RUNS, (0, 1), -4)}, "outside the source"),
        ({"far": changed(FAR, RUNS, (0, slice(2)), [MOST, MOST])}, "outside the source"),
        ({"near": changed(NEAR, RUNS, (1, 0), 7)}, "outside the source"),
        ({"near": changed(NEAR, RUNS, (2, 0), 2)}, "crosses from x into t"),
        (
            {"near": (NEAR[0], NEAR[1], np.array([[0, 6, -1, 0], [6, 2, -1, 0], [MOST, 5, -1, 0]], np.int32))},
            "outside the source",
        ),
        ({"near": changed(NEAR, PANELS, (0, TARGET), 1)}, "cover the target"),
        ({"near": changed(NEAR, PANELS, (1, TARGET), 2)}, "cover the target"),
        ({"near": changed(NEAR, PANELS, (1, TARGET), 4)}, "cover the target"),
        ({"near": changed(NEAR, PANELS, (1, HEIGHT), 1)}, "cover the target"),
        ({"near": tuple(array[:1] for array in NEAR)}, "outside the table"),
        ({"near": (NEAR[0][:1], NEAR[1][:1], NEAR[2])}, "cover the target"),
        ({"far": changed(FAR, PANELS, (0, HEIGHT), 1)}, "cover the target"),
        ({"far": changed(FAR, PANELS, (0, HEIGHT), 0)}, "height"),
        ({"far": changed(FAR, PANELS, (0, HEIGHT), -2)}, "height"),
        ({"far": changed(FAR, PANELS, (0, HEIGHT), 65)}, "height"),
        ({"far": changed(FAR, PANELS, (0, FIRST_RUN), 1)}, "outside the table"),
        ({"far": changed(FAR, PANELS, (0, FIRST_RUN), -1)}, "outside the table"),
        ({"far": changed(FAR, PANELS, (0, RUN_COUNT), 2)}, "outside the table"),
        ({"far": changed(FAR, PANELS, (0, RUN_COUNT), -1)}, "outside the table"),
        ({"far": changed(FAR, PANELS, (0, slice(2, 4)), [MOST, MOST])}, "outside the table"),
        ({"far": (FAR[0], FAR[1][:, :3], FAR[2])}, "tables of a stage"),
        ({"far": (FAR[0], FAR[1], np.zeros((1, 3), np.int32))}, "tables of a stage"),
        ({"far": (FAR[0], FAR[1], np.zeros((1, 5), np.int32))}, "tables of a stage"),
        ({"far": (np.zeros(2, np.int64), FAR[1], FAR[2])}, "tables of a stage"),
        ({"intermediate": 1}, "cover the target|outside the source"),
        ({"intermediate": 3}, "cover the target"),
        ({"intermediate": -1}, "shape"),
        ({"shape": (0, 6)}, "shape"),
        ({"shape": (5, -6)}, "shape"),
        ({"shape": (6, 6)}, "cover the target"),
        ({"shape": (5, 3)}, "outside the source"),
        ({"row_permutation": np.array([0, 1, 2, 3, 5], np.int32)}, "permutation"),
        ({"row_permutation": np.array([0, 1, 2, 3, 3], np.int32)}, "permutation"),
        ({"row_permutation": np.array([0, 1, 2, 3, -1], np.int32)}, "permutation"),
        ({"row_permutation": np.arange(4, dtype=np.int32)}, "permutation"),
        ({"column_permutation": np.arange(5, dtype=np.int32)}, "permutation"),
        ({"instruction_set": "sse9"}, "instruction set sse9 is not available"),
    ],
)
def test_native_kernel_refuses_bad_tables(changes, message):
    with pytest.raises(ValueError, match=message):
        _core.PlanFloat64(**PLAN | changes)


def test_native_kernel_refuses_runs_from_x_into_t():
    # In the first stage's source, x alone, six columns; in the second's, entries 6 and 7 are t.
    near = (
        NEAR[0],
        np.array([[0, 3, 0, 1], [3, 2, 1, 1]], np.int32),
        np.array([[0, 8, -1, 0], [1, 5, -1, 0]], np.int32),
    )
    with pytest.raises(ValueError, match="crosses from x into t"):
        _core.PlanFloat64(**PLAN | {"near": near})


# Codes: runs of a group that two segments share, one of floats, and t; 2 x 8, intermediate 2.

BEGINS, ENDS, BOTH = 16, 32, 48
INT8, INT4, INT2 = CODES
FLAGS, SEGMENT = 3, 2
CODED = {
    "instruction_set": "portable",
    "shape": (2, 8),
    "intermediate": 2,
    "data": np.zeros(18, np.uint32),
    "far": (np.array([0]), np.array([[0, 2, 0, 1]], np.int32), np.array([[0, 8, 2, INT4 | BOTH]], np.int32)),
    "near": (
        np.array([4]),
        np.array([[0, 2, 0, 4]], np.int32),
        np.array(
            [[0, 3, 0, INT8 | BEGINS], [3, 3, 1, INT8 | ENDS], [6, 2, -1, Precision.FLOAT32], [8, 2, 3, INT2 | BOTH]],
            np.int32,
        ),
    ),
    "segments": np.array([[0, 3], [3, 3], [0, 8], [8, 2]], np.int32),
    "row_permutation": None,
    "column_permutation": None,
}


def near_run(index, value):
    return {"near": changed(CODED["near"], RUNS, index, value)}


def segments(index, value):
    table = CODED["segments"].copy()
    table[index] = value
    return {"segments": table}


def test_coded_tables_of_the_tests_are_good():
    y = np.full(2, np.nan, np.float32)
    _core.PlanFloat32(**CODED).multiply(np.ones(8, np.float32), y)
    np.testing.assert_array_equal(y, 0)
    exact = [
        (*CODED[stage][:2], (CODED[stage][2] * [1, 1, 0, 1] - [0, 0, 1, 0]).astype(np.int32))
        for stage in ("far", "near")
    ]
    _core.PlanFloat32(**CODED | {"far": exact[0], "near": exact[1], "segments": None}).multiply(np.ones(8, "f4"), y)
    np.testing.assert_array_equal(y, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": np.zeros(17, np.uint32)}, "outside the data"),
        ({"data": np.zeros(0, np.uint32)}, "outside the data"),
        # Flags.
        (near_run((0, FLAGS), -1), "unknown flags"),
        (near_run((0, FLAGS), 64 | INT8 | BEGINS), "unknown flags"),
        *((near_run((0, FLAGS), precision | BEGINS), "unknown flags") for precision in range(6, 16)),
        (near_run((0, FLAGS), 0), "wrong precision"),
        (near_run((2, FLAGS), 0), "wrong precision"),
        (near_run((2, FLAGS), Precision.FLOAT32 | BEGINS), "scales in vain"),
        (near_run((2, FLAGS), Precision.BFLOAT16 | ENDS), "scales in vain"),
        (near_run((2, SEGMENT), 0), "scales in vain"),
        # Groups.
        (near_run((0, FLAGS), INT8), "groups do not follow each other"),
        (near_run((1, FLAGS), INT8 | BOTH), "groups do not follow each other"),
        (near_run((1, FLAGS), INT8), "a group does not end"),
        (near_run((3, FLAGS), INT2 | BEGINS), "a group does not end"),
        (near_run((3, FLAGS), INT2 | ENDS), "groups do not follow each other"),
        (near_run((0, FLAGS), INT8 | BOTH), "groups do not follow each other"),
        # Segments.
        (near_run((0, SEGMENT), -1), "has no segment"),
        (near_run((0, SEGMENT), -2), "has no segment"),
        (near_run((0, SEGMENT), 4), "has no segment"),
        (near_run((0, SEGMENT), MOST), "has no segment"),
        (near_run((0, SEGMENT), 1), "is not its segment"),
        (near_run((0, 1), 2), "is not its segment"),
        (near_run((1, 0), 2), "is not its segment"),
        ({"segments": None}, "has no segment"),
        ({"segments": np.zeros((0, 2), np.int32)}, "has no segment"),
        ({"segments": CODED["segments"][:3].copy()}, "has no segment"),
        ({"segments": np.zeros((4, 3), np.int32)}, "segments must be"),
        (segments((0, 0), 1), "is not its segment"),
        (segments((0, 1), 4), "is not its segment"),
        (segments((0, 1), 0), "a segment lies outside the source"),
        (segments((0, 1), -3), "a segment lies outside the source"),
        (segments((0, 0), -1), "a segment lies outside the source"),
        (segments((3, 1), 3), "a segment lies outside the source"),
        (segments(3, [MOST, MOST]), "a segment lies outside the source"),
        (segments(3, [7, 2]), "a segment crosses from x into t"),
        # Runs.
        (near_run((2, 1), 3), "crosses from x into t"),
        (near_run((0, 0), -1), "outside the source"),
        (near_run((3, 1), 3), "outside the source"),
        (near_run((3, slice(2)), MOST), "outside the source"),
        (near_run((2, 1), 0), "outside the source"),
        ({"intermediate": 1}, "outside the source"),
        ({"intermediate": -2}, "shape"),
    ],
)
def test_native_kernel_refuses_bad_tables_of_codes(changes, message):
    with pytest.raises(ValueError, match=message):
        _core.PlanFloat32(**CODED | changes)


@pytest.mark.parametrize("precision", [*FLOATS32, *CODES])
def test_native_kernel_of_float64_refuses_other_precisions(precision):
    with pytest.raises(ValueError, match="wrong precision"):
        _core.PlanFloat64(**PLAN | {"far": changed(FAR, RUNS, (0, FLAGS), precision)})


@every_code
def test_native_kernel_refuses_quantised_runs_that_are_too_long(precision):
    n = (1 << 14) + 1
    near = (np.array([0]), np.array([[0, 1, 0, 1]], np.int32), np.array([[0, n, 0, precision | BOTH]], np.int32))
    empty = (np.zeros(0, np.int64), np.zeros((0, 4), np.int32), np.zeros((0, 4), np.int32))
    changes = {"shape": (1, n), "intermediate": 0, "data": np.zeros(n, np.uint32), "near": near, "far": empty}
    with pytest.raises(ValueError, match="a run is too long"):
        _core.PlanFloat32(**CODED | changes | {"segments": np.array([[0, n]], np.int32)})
    with pytest.raises(ValueError, match="has no segment"):
        _core.PlanFloat32(**CODED | changes | {"segments": None})


@every_type
@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x.astype(np.float32 if x.dtype == np.float64 else np.float64),
        lambda x: x.astype(np.int32),
        lambda x: x.tolist(),
        lambda x: np.repeat(x, 2)[::2],
        lambda x: x[::-1],
        lambda x: x[None],
        lambda x: None if x.size else x,
    ],
)
@pytest.mark.parametrize("side", ["x", "y"])
def test_native_kernel_refuses_other_arrays(dtype, spoil, side):
    plan = native_product(pack((5, 6), [leaf((0, 5), (0, 6), 2, np.random.default_rng(0), dtype)]), "portable")
    vectors = {"x": np.zeros(6, dtype), "y": np.zeros(5, dtype)}
    with pytest.raises(TypeError, match="incompatible function arguments"):
        plan.multiply(**vectors | {side: spoil(vectors[side])})


@pytest.mark.parametrize("transposed", [False, True])
def test_native_kernel_refuses_other_batches(transposed):
    plan = _core.PlanFloat64(**PLAN)
    multiply_batch = plan.multiply_transposed_batch if transposed else plan.multiply_batch
    n, m = (5, 6) if transposed else (6, 5)
    for bad in (np.zeros((3, 4, n)), np.zeros((n, 3)).T, np.zeros((3, 2 * n))[:, ::2], np.zeros(n)):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            multiply_batch(bad, np.zeros((3, m)))
    for x, y in (((3, n - 1), (3, m)), ((3, n), (3, m + 1)), ((3, n), (2, m))):
        with pytest.raises(ValueError, match="x and y must have the shapes of the product"):
            multiply_batch(np.zeros(x), np.zeros(y))


@pytest.mark.parametrize("name", ["multiply", "multiply_transposed"])
def test_native_kernel_refuses_other_sizes(name):
    plan = _core.PlanFloat64(**PLAN)
    for x, y in ((5, 5), (6, 6), (0, 0)):
        with pytest.raises(ValueError, match="x and y must have the shapes of the product"):
            getattr(plan, name)(np.zeros(x), np.zeros(y))


def test_native_kernel_writes_to_no_array_that_may_not_be():
    y = np.zeros(5)
    y.flags.writeable = False
    with pytest.raises(TypeError, match="incompatible function arguments"):
        _core.PlanFloat64(**PLAN).multiply(np.zeros(6), y)


@pytest.mark.parametrize(
    "data", [np.arange(42), np.zeros(42, np.float32), np.zeros(42, np.uint32), np.arange(84.0)[::2], [0.0] * 42]
)
def test_native_kernel_refuses_other_data(data):
    with pytest.raises(TypeError, match="incompatible function arguments"):
        _core.PlanFloat64(**PLAN | {"data": data})


@pytest.mark.parametrize("data", [np.zeros(18, np.float32), np.zeros(18), np.zeros(18, np.int32), [0] * 18])
def test_native_kernel_refuses_other_words(data):
    with pytest.raises(TypeError, match="incompatible function arguments"):
        _core.PlanFloat32(**CODED | {"data": data})


def test_a_plan_keeps_its_arrays_alive():
    packed = pack((300, 200), random_leaves((300, 200)), permutation(300), permutation(200))
    expected = multiply(packed, "portable", np.ones(200), transposed=False)
    plan = native_product(packed, "portable")
    del packed
    rubbish = [np.full(60_000, np.nan) for _ in range(20)]
    y = np.empty(300)
    plan.multiply(np.ones(200), y)
    assert equal_bits(y, expected)
    assert len(rubbish) == 20
