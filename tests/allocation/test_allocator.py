import os
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from allocated import INPUTS, MATRICES, M, N, allocator_of, competitors, error_of, every_matrix
from correlations import correlated
from marks import slow
from matrices import relative
from safetensors.numpy import load_file

import hmatrix as hm
from hmatrix.allocation.error.moments import Moments
from hmatrix.allocation.search.arrangements import of_index
from hmatrix.allocation.search.costs import Bytes
from hmatrix.allocation.search.layout import Layout
from hmatrix.allocation.search.leaf_forms import Form
from hmatrix.codes.precision import Precision
from hmatrix.errors import ArgumentError


@every_matrix
@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("storage", [0.03, 0.125, slow(0.5), slow(1.0)])
def test_a_budget_is_kept_and_used(name, calibrated, storage):
    weight, allocator = MATRICES[name], allocator_of(name, calibrated)
    found = allocator.allocate(hm.Budget(storage=storage))
    total = found.matrix.storage().total
    assert total <= storage * 4 * M * N
    assert total >= 0.9 * storage * 4 * M * N or found.measured_error < 1e-6
    assert found.measured_error == pytest.approx(error_of(weight, found.matrix, allocator), abs=2e-6)


@every_matrix
@pytest.mark.parametrize("calibrated", [False, True])
def test_nothing_else_of_the_same_bytes_is_better(name, calibrated):
    weight, allocator = MATRICES[name], allocator_of(name, calibrated)
    others = [
        (matrix.storage().total, error_of(weight, matrix, allocator))
        for matrix in competitors(name, allocator.limits[1])
    ]
    sizes = sorted({size for size, _ in others})
    for most in sizes[:: max(1, len(sizes) // 5)]:
        found = allocator.allocate(hm.Budget(bytes=most))
        best = min(error for size, error in others if size <= most)
        assert found.measured_error <= best * (1 + 1e-6) + 1e-7


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif("HMATRIX_DATA" not in os.environ, reason="HMATRIX_DATA names no folder")
def test_nothing_else_is_better_on_the_head_of_a_real_network():
    path = Path(os.environ["HMATRIX_DATA"]) / "models/resnet_fc_1000x512.safetensors"
    resnet_head = load_file(path)["fc.weight"]
    allocator = hm.Allocator(resnet_head)
    for most in (0.066, 0.13, 0.26):
        found = allocator.allocate(hm.Budget(storage=most))
        others = [hm.quantize(resnet_head, precision) for precision in ("int8", "int4", "int2")]
        m, n = resnet_head.shape
        for precision, bits in (("float32", 32), ("int4", 4)):
            rank = int(most * 32 / bits * m * n / (m + n) * 0.9)
            others.append(hm.global_svd(resnet_head, hm.Truncation(max_rank=min(rank, n))).astype(precision))
        others += [hm.build(resnet_head, truncation=hm.Truncation(max_rank=k)) for k in (1, 10)]
        errors = [hm.relative_error(resnet_head, o) for o in others if o.storage().ratio <= most]
        assert len(errors) >= 2
        assert found.measured_error <= min(errors)


def test_errors_fall_as_budgets_grow():
    budgets = [hm.Budget(storage=storage) for storage in (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)]
    found = allocator_of("structured").frontier(budgets)
    errors = [allocation.measured_error for allocation in found]
    assert all(b < a or b < 1e-6 for a, b in pairwise(errors))


def test_the_output_is_better_with_calibration_data():
    weight = MATRICES["random"]
    X = correlated(400, N, seed=1)
    train, test = X[:200], X[200:]
    output = {}
    for calibration in (None, train):
        found = hm.allocate(weight, hm.Budget(storage=0.1), calibration=calibration)
        wrong = (test - test.mean(axis=0)) @ (weight - found.matrix.to_dense()).T
        output[calibration is None] = np.linalg.norm(wrong)
    assert output[False] < 0.7 * output[True]


@pytest.mark.parametrize("samples", [2, slow(4), 6, slow(12), 25])
def test_few_samples_are_not_worse_than_none(samples):
    weight, test = MATRICES["random"], correlated(300, N, seed=7)
    errors = []
    for calibration in (None, correlated(samples, N, seed=8)):
        H = hm.allocate(weight, hm.Budget(storage=0.1), calibration=calibration).matrix
        errors.append(np.linalg.norm((test - test.mean(axis=0)) @ (weight - H.to_dense()).T))
    assert errors[1] <= 1.02 * errors[0]


def test_the_bias_correction_is_the_mean_that_is_lacking():
    weight, X = MATRICES["random"], INPUTS + 3
    found = hm.allocate(weight, hm.Budget(storage=0.07), calibration=X)
    lacking = (X @ (weight - found.matrix.to_dense()).T).mean(axis=0)
    np.testing.assert_allclose(found.bias_correction, lacking, rtol=1e-3, atol=1e-3)
    assert not hm.allocate(weight, hm.Budget(storage=0.07)).bias_correction.any()


@pytest.mark.slow
def test_a_hidden_order_is_found():
    """Blocks of rows and columns that belong together, shuffled.

    They take 0.8 % of the storage and their order 0.4 %; a global rank of 8, which is exact too, takes 3.1 %.
    """
    rng = np.random.default_rng(0)
    A = np.zeros((512, 512), np.float32)
    for k in range(4):
        part = slice(128 * k, 128 * k + 128)
        A[part, part] = rng.standard_normal((128, 2)) @ rng.standard_normal((2, 128))
    shuffled = A[rng.permutation(512)][:, rng.permutation(512)]
    found = hm.allocate(shuffled, hm.Budget(storage=0.015))
    assert found.arrangement != ("index", "index")
    assert hm.relative_error(shuffled, found.matrix) == pytest.approx(found.measured_error, abs=1e-6)
    given = hm.allocate(shuffled, hm.Budget(storage=0.015), coordinates=hm.Index())
    assert found.measured_error < 0.1 * given.measured_error
    assert given.arrangement == ("given", "given")


def test_less_storage_than_blocks_of_fixed_accuracy():
    points = np.random.default_rng(0).standard_normal((600, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    A = 1 / np.where(distances > 0, distances, np.inf)
    place = hm.Points(points)
    blocks = hm.build(
        A.astype(np.float32),
        coordinates=place,
        splitter=hm.Cardinality(32),
        truncation=hm.Truncation(rtol=1e-3),
    )
    allocator = hm.Allocator(A, coordinates=place, splitter=hm.Cardinality(32))
    found = allocator.allocate(hm.Budget(bytes=int(0.8 * blocks.storage().total)))
    assert found.measured_error < hm.relative_error(A, blocks)
    assert relative(A, found.matrix.to_dense()) == pytest.approx(found.measured_error, rel=1e-2, abs=1e-6)


def test_the_same_input_gives_the_same_bits():
    first, second = (
        hm.allocate(MATRICES["structured"], hm.Budget(storage=0.1), calibration=INPUTS).matrix.pack().data
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_nothing_is_changed():
    weight, X = MATRICES["structured"].copy(), INPUTS.copy()
    hm.allocate(weight, hm.Budget(storage=0.5), calibration=X)
    np.testing.assert_array_equal(weight, MATRICES["structured"])
    np.testing.assert_array_equal(X, INPUTS)


@pytest.mark.parametrize("activations", ["exact", "int8"])
def test_activations_are_those_of_the_matrix(activations):
    found = hm.allocate(MATRICES["random"], hm.Budget(storage=0.2), activations=activations)
    assert found.matrix.activations.value == activations
    assert found.matrix.storage().ratio <= 0.2


@pytest.mark.parametrize("weight", [np.zeros((40, 50)), np.ones((1, 9)), np.ones((9, 1)), np.eye(3), [[2.0]]])
def test_small_and_simple_matrices(weight):
    allocator = hm.Allocator(weight)
    for most in allocator.limits:
        found = allocator.allocate(hm.Budget(bytes=most))
        assert found.matrix.shape == np.shape(weight)
        assert found.matrix.storage().total <= most
    assert found.measured_error == 0
    np.testing.assert_array_equal(found.matrix.to_dense(), weight)


@pytest.mark.parametrize("max_drop", [0.5, 2.0, 1e9])
def test_a_budget_of_accuracy(max_drop):
    weight, calls = MATRICES["random"], []

    def score(matrix, correction):
        assert correction.shape == (M,)
        calls.append(100 * (1 - relative(weight, matrix.to_dense())))
        return calls[-1]

    found = hm.allocate(weight, hm.Budget(max_drop=max_drop), evaluate=score)
    assert len(calls) <= 12
    assert calls[0] == pytest.approx(100)
    assert 100 * (1 - relative(weight, found.matrix.to_dense())) >= 100 - max_drop
    # Nothing that was tried and found good enough is smaller.
    assert found.matrix.storage().ratio < (0.45 if max_drop < 1e9 else 0.02)


def test_other_bad_arguments():
    weight, budget = MATRICES["random"], hm.Budget(storage=0.1)
    with pytest.raises(ArgumentError, match="evaluate: is given without max_drop"):
        hm.allocate(weight, budget, evaluate=lambda matrix, correction: 0.0)  # noqa: ARG005
    finite = "return a finite score, or one a sample"
    for score, message in (
        (np.nan, f"returned nan; {finite}"),
        (None, f"returned nothing; {finite}"),
        ("x", "returned a str; return a score"),
    ):
        with pytest.raises(ArgumentError, match=f"evaluate: {message}"):
            hm.allocate(weight, hm.Budget(max_drop=1), evaluate=lambda matrix, correction, s=score: s)  # noqa: ARG005
    with pytest.raises(ArgumentError, match="calibration: is a generator; give a NumPy array"):
        hm.allocate(weight, budget, calibration=(x for x in weight))
    with pytest.raises(ArgumentError, match=r"calibration: has the shape \(5, 3\)"):
        hm.allocate(weight, budget, calibration=np.ones((5, 3)))
    with pytest.raises(ArgumentError, match="calibration: has 1 sample"):
        hm.allocate(weight, budget, calibration=np.ones((1, N)))
    with pytest.raises(ArgumentError, match="weight: has 1 entries that are NaN"):
        hm.allocate(np.where(np.eye(4) > 5, 0, [[np.nan, 1, 1, 1], *[[1.0] * 4] * 3]), budget)
    with pytest.raises(ArgumentError, match="activations: got 'int4'"):
        hm.allocate(weight, budget, activations="int4")
    with pytest.raises(ArgumentError, match="coordinates: has 3 parts"):
        hm.allocate(weight, budget, coordinates=(hm.Index(),) * 3)
    with pytest.raises(ArgumentError, match="points: has 5 points"):
        hm.allocate(weight, budget, coordinates=hm.Points(np.arange(5.0)))


def test_seconds_are_told():
    start = time.perf_counter()
    found = hm.allocate(MATRICES["random"], hm.Budget(storage=0.1))
    assert 0 < found.seconds <= time.perf_counter() - start


@pytest.mark.parametrize(("values", "bits"), [((-1, 1), 1), (range(-8, 8), 4)])
def test_a_weight_on_a_grid_is_stored_on_it(values, bits):
    weight = (np.random.default_rng(0).choice(values, (64, 300)) * np.float32(0.37)).astype(np.float32)
    found = hm.allocate(weight, hm.Budget(storage=bits / 32 + 0.01))
    assert found.predicted_error == 0
    # Its scales are float32.
    assert found.measured_error < 4 * np.finfo(np.float32).eps


def test_a_single_leaf_has_no_more_rank_than_there_is():
    rng = np.random.default_rng(0)
    weight = (0.37 * rng.integers(-4, 5, (48, 3)) @ rng.integers(-4, 5, (3, 40))).astype(np.float32)
    index = of_index(64)
    layout = Layout(weight, Moments.of_root(None, 40), index, index, quantized=False)
    assert layout.whole(Bytes(), weight.nbytes).form == Form(None, 3, Precision.FLOAT32)
