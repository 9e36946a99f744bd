"""What cannot fit into the machine's memory is refused before it is asked for; arrays begin on a cache line."""

import tracemalloc

import numpy as np
import pytest

import hmatrix as hm
from hmatrix._support.memory import aligned, check_memory, machine_memory
from hmatrix.errors import ArgumentError

RANK = hm.Truncation(max_rank=1)
HUGE = np.broadcast_to(np.float32(1), (10**7, 10**7))


def of_entries(rows, columns, **options):
    return hm.build(hm.Entries(lambda i, j: np.ones((len(i), len(j))), (rows, columns)), truncation=RANK, **options)


USES = {
    "rows and columns": (lambda: of_entries(10**12, 10**12), "shape: has 1000000000000 rows or columns; give at most"),
    "rows": (lambda: of_entries(2**31, 5), "shape: .*give at most 2147483647"),
    "beyond 64 bits": (lambda: of_entries(2**63, 2**63), "shape: .*give at most 2147483647"),
    "partition": (lambda: hm.partition((2**40, 9)), "shape"),
    "index": (lambda: hm.Index()(2**50), "size: .*GB"),
    "scaled index": (lambda: hm.ScaledIndex()(2**50), "size: .*GB"),
    "weight": (lambda: hm.build(HUGE, truncation=RANK), "weight: .*GB"),
    "quantize": (lambda: hm.quantize(HUGE, "int8"), "weight: .*GB"),
    "allocate": (lambda: hm.allocate(HUGE, hm.Budget(storage=0.1)), "weight: .*GB"),
    "calibration": (
        lambda: hm.allocate(np.ones((2, 9)), hm.Budget(storage=1.0), calibration=np.broadcast_to(1.0, (2**50, 9))),
        "calibration: .*GB",
    ),
    "head": (lambda: hm.progressive(HUGE), "weight: .*GB"),
    "inputs of a head": (
        lambda: hm.progressive(np.eye(9), calibration=np.broadcast_to(1.0, (2**50, 9))),
        "calibration",
    ),
    "points": (lambda: hm.Points(np.broadcast_to(1.0, (2**50, 2))), "points: .*GB"),
}


@pytest.mark.parametrize(("use", "message"), USES.values(), ids=USES)
def test_what_cannot_fit_is_refused_before_memory_is_taken(use, message):
    tracemalloc.start()
    try:
        with pytest.raises(ArgumentError, match=message):
            use()
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


@pytest.fixture
def small(monkeypatch):
    """A machine of 1 MB."""
    monkeypatch.setattr("hmatrix._support.memory.machine_memory", lambda: 10**6)
    monkeypatch.setattr("hmatrix.partitions.blocktree.machine_memory", lambda: 10**6)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: of_entries(10**5, 5), "shape: has 100000 rows"),
        (lambda: of_entries(5, 5000, splitter=hm.Cardinality(1)), "leaf_size: is 1: .* give a larger one"),
        (lambda: hm.partition((900, 900), splitter=hm.Cardinality(2), admissibility=hm.Weak()), None),
        (lambda: hm.partition((900, 900), splitter=hm.Cardinality(2)), "splitter: leaves more than 4,000 blocks"),
        (lambda: of_entries(900, 900, splitter=hm.Cardinality(900)), "weight: has dense blocks: 1, .*0.0 GB"),
        (
            lambda: hm.allocate(np.ones((2, 900)), hm.Budget(storage=0.5), calibration=np.ones((2, 900))),
            "calibration: has vectors of 900 entries",
        ),
        (
            lambda: hm.allocate(np.ones((900, 2)), hm.Budget(storage=0.5), row_derivatives=np.ones((2, 1, 900))),
            "row_derivatives: has vectors of 900 entries",
        ),
    ],
)
@pytest.mark.usefixtures("small")
def test_bytes_that_are_needed_at_least_are_counted(use, message):
    if message is None:
        use()
        return
    with pytest.raises(ArgumentError, match=message):
        use()


def test_the_memory_of_this_machine():
    assert 2**28 < machine_memory() < 2**50
    check_memory("x", "is small", machine_memory(), "")
    with pytest.raises(ArgumentError, match=r"x: is large, which takes .* GB at least, and .* GB; make it small"):
        check_memory("x", "is large", machine_memory() + 1, "make it small")


def test_alignment_copies_only_where_it_must():
    memory = np.arange(100.0)
    for place in range(9):
        array = memory[place : place + 80]
        copy = aligned(array)
        assert copy.ctypes.data % 64 == 0
        assert (copy is array) == (array.ctypes.data % 64 == 0)
        np.testing.assert_array_equal(copy, array)
