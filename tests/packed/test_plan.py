"""What the native kernel refuses by itself."""

import numpy as np
import pytest
from matrices import equal_bits, leaf, permutation, random_leaves
from multiplying import CODES, FLOATS32, every_code, every_type, multiply

from hmatrix import _core
from hmatrix.codes.precision import Precision
from hmatrix.packed.kernels import native_product
from hmatrix.packed.packing import pack

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
INT8, INT4, INT2, INT1 = CODES[:4]
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
        *((near_run((0, FLAGS), precision | BEGINS), "unknown flags") for precision in range(len(Precision), 16)),
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
