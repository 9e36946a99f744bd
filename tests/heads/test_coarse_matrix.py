"""Progressive heads whose coarse part is an H-matrix: their products, and how they are chosen."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from coarse_heads import EXACT, INTEGERS, M, N, coarse_of, head_of
from heads import capped, check_agreement, largest, layer, outputs
from multiplying import every_kernel

import hmatrix as hm
from hmatrix.heads.native import REFERENCE
from hmatrix.heads.reference import ReferenceHead

FLOAT32 = hm.Precision.FLOAT32


@pytest.mark.parametrize("rule", [hm.Margin(), hm.FixedRows(80)], ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("name", INTEGERS)
def test_kernels_agree_with_the_reference(rule, precision, name):
    held_out = layer()[3]
    head = head_of(name, agreement=0.6, rule=rule, precisions=(precision,))
    assert (head.precision.name.lower(), head.rank) == (precision, 0)
    check_agreement(head, held_out[:50], (1, 3))


@every_kernel
@pytest.mark.parametrize("name", INTEGERS)
def test_coarse_outputs_of_integers_have_the_bits_of_the_reference(kernel, name):
    held_out = layer()[3][:50]
    head = head_of(name, precisions=("int8",))
    np.testing.assert_array_equal(outputs(head, kernel, held_out), outputs(head, REFERENCE, held_out))
    own, expected = largest(head, kernel, held_out, 5), largest(head, REFERENCE, held_out, 5)
    for found, other in zip(own, expected, strict=True):
        np.testing.assert_array_equal(found, other)


@every_kernel
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("rule", [hm.Margin(), hm.Rigorous()], ids=lambda rule: type(rule).__name__)
def test_floating_point_sums_agree_but_for_rows_at_the_threshold(kernel, name, rule):
    """Each output is the reference's fine one, or its coarse one (below the largest), up to rounding."""
    weight, bias, _, held_out = layer()
    held_out = held_out[:50]
    head = head_of(name, rule=rule, precisions=("float32",))
    fine = held_out.astype(float) @ head.pack().rows_of(np.arange(M)).astype(float).T + bias
    coarse = held_out.astype(float) @ head.coarse.to_dense().astype(float).T + bias
    y = outputs(head, kernel, held_out)
    size = 1e-5 * np.linalg.norm(weight, axis=1).max() * np.linalg.norm(held_out, axis=1).max()
    refined = np.abs(y - fine) <= size
    kept = np.abs(y - np.minimum(coarse, y.max(axis=1, keepdims=True))) <= size
    assert (refined | kept).all()
    np.testing.assert_allclose(y.max(axis=1), np.where(refined, y, -np.inf).max(axis=1))
    # Rows whose coarse output is further from the threshold than rounding are refined by both, or by neither.
    counts = [largest(head, kind, held_out, 1)[2] for kind in (kernel, REFERENCE)]
    reference = ReferenceHead(head.pack())
    lower, upper = (a[:, :M] for a in reference.look(head.pack().places, reference.take_in(held_out)))
    first = np.take_along_axis(fine, lower.argmax(axis=1)[:, None], axis=1)
    near = np.abs(upper - first + reference.slack(reference.take_in(held_out))[:, None]) <= 4 * size
    assert (np.abs(counts[0] - counts[1]) <= near.sum(axis=1)).all()
    assert near.sum(axis=1).mean() < 1


@every_kernel
@pytest.mark.parametrize("name", INTEGERS + EXACT)
def test_more_outputs_than_the_rule_refines(kernel, name):
    weight, bias, _, held_out = layer()
    held_out = held_out[:30]
    head = capped(head_of(name, agreement=0.5, precisions=("float32",)), 20)
    assert head.most < M
    dense = held_out @ weight.T + bias
    for k in (head.most + 1, M):
        values, indices, counts = largest(head, kernel, held_out, k)
        assert (counts >= k).all()
        np.testing.assert_allclose(values, np.take_along_axis(dense, indices, axis=1), atol=1e-3)
    np.testing.assert_array_equal(np.sort(indices, axis=1), np.tile(np.arange(M), (len(held_out), 1)))


@every_kernel
@pytest.mark.parametrize("name", ["mixed", "floats"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_inputs_that_are_not_finite_or_overflow(kernel, name, value):
    head = head_of(name)
    x = layer()[3][:3].copy()
    # The rows are of both signs: a column of large entries makes outputs overflow in both directions.
    x[1] = value if value != 3e38 else np.sign(x[1]) * value
    y = outputs(head, kernel, x)
    np.testing.assert_array_equal(np.isnan(y), [[False] * M, [True] * M, [False] * M])
    values, indices, counts = largest(head, kernel, x, 3)
    assert np.isnan(values[1]).all()
    assert indices[1].tolist() == [0, 1, 2]
    assert counts[1] == 0 < min(counts[[0, 2]])


@every_kernel
@pytest.mark.parametrize("m", [1, 15, 16, 17])
def test_rows_that_do_not_fill_strips_and_batches_of_none(kernel, m):
    rng = np.random.default_rng(m)
    weight, X = rng.standard_normal((m, 20)).astype(np.float32), rng.standard_normal((60, 20)).astype(np.float32)
    # All outputs are far below zero: what fills up strips must not be larger.
    bias = np.full(m, -1000, np.float32)
    head = hm.progressive(weight, bias, calibration=X, agreement=0.9, coarse=hm.quantize(weight, "int4"))
    values, indices, _ = largest(head, kernel, X, m)
    assert (values < -900).all()
    np.testing.assert_array_equal(np.sort(indices, axis=1), np.tile(np.arange(m), (60, 1)))
    assert outputs(head, kernel, X[:0]).shape == (0, m)
    assert largest(head, kernel, X[:0], 1)[0].shape == (0, 1)


@pytest.mark.parametrize("agreement", [0.8, 0.95, 0.99])
def test_agreement_on_held_out_inputs(agreement):
    weight, bias, X, held_out = layer(noise=0.5, samples=4000)
    H = hm.allocate(weight, hm.Budget(storage=0.1), activations="int8").matrix
    head = hm.progressive(weight, bias, calibration=X, agreement=agreement, coarse=H)
    agreed = np.mean(head.topk(held_out)[1][:, 0] == (held_out @ weight.T + bias).argmax(axis=1))
    # Three standard deviations of a proportion of 2,000, and of the calibrated quantile of as many.
    assert agreed >= agreement - 3 * np.sqrt(2 * agreement * (1 - agreement) / 2000)
    assert head.refined(held_out).mean() < M


@pytest.mark.parametrize("name", ["mixed", "floats"])
def test_threads_change_no_bit(threads, name):
    held_out = layer(samples=600)[3]
    head = head_of(name)
    threads(1)
    alone, found = head(held_out), head.topk(held_out, 3)
    threads(3)
    np.testing.assert_array_equal(head(held_out), alone)
    for own, other in zip(head.topk(held_out, 3), found, strict=True):
        np.testing.assert_array_equal(own, other)
    for x, y in zip(held_out[:20], alone, strict=False):
        np.testing.assert_array_equal(head(x), y)


def test_a_large_coarse_product_is_shared_by_threads(threads):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3000, 300)).astype(np.float32)
    H = hm.quantize(weight, "int8", activations="int8")
    head = hm.progressive(weight, rule=hm.FixedRows(5), precisions=["int8"], coarse=H)
    X = rng.standard_normal((40, 300)).astype(np.float32)
    threads(1)
    alone = head(X)
    threads(4)
    np.testing.assert_array_equal(head(X), alone)
    np.testing.assert_array_equal(head(X[7]), alone[7])


@pytest.mark.parametrize("name", ["mixed", "floats"])
def test_calls_from_many_threads_at_once(threads, name):
    held_out = layer(samples=600)[3]
    head = head_of(name)
    expected = head(held_out)
    threads(3)
    with ThreadPoolExecutor(4) as pool:
        for y in pool.map(head, [held_out] * 12):
            np.testing.assert_array_equal(y, expected)
        for y, other in zip(pool.map(head, held_out), expected, strict=True):
            np.testing.assert_array_equal(y, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ranks": [8]}, "ranks: is given beside coarse"),
        ({"coarse_precisions": ["int8"]}, "coarse_precisions: is given beside coarse"),
        ({"cluster_rows": [0]}, "cluster_rows: is given beside coarse"),
        ({"coarse": np.ones((M, N))}, "coarse: is a ndarray"),
        ({"coarse": hm.quantize(np.ones((M, N)), "float64")}, "coarse: is of float64; .*astype"),
        ({"coarse": hm.quantize(np.ones((N, M)), "int8")}, "coarse: has the shape"),
        ({"rule": hm.Rigorous()}, "coarse: has int8 activations"),
        ({"calibration": None}, "calibration: is missing"),
        ({"calibration": None, "rule": hm.FixedRows(3)}, "calibration: is missing"),
        ({"rule": hm.FixedRows(1), "agreement": 0.999}, "coarse, precisions and rule: do not agree"),
        ({"precisions": []}, "precisions: are"),
    ],
)
def test_wrong_arguments(arguments, message):
    weight, bias, X, _ = layer()
    given = {"calibration": X, "coarse": coarse_of("mixed")} | arguments
    with pytest.raises(hm.HMatrixError, match=message):
        hm.progressive(weight, bias, **given)


def test_the_cost_of_an_h_matrix_is_that_of_its_bytes():
    cost, m, n = hm.Cost(), 1000, 1280
    bare = cost.seconds(n, 0, 0, m, m, 20.0, 8)
    assert cost.seconds(n, 0, 0, m, m, 20.0, 8, stored=10**5) == pytest.approx(bare + 1e5 * cost.coarse)
    large = cost.seconds(n, 0, 0, m, m, 20.0, 8, stored=10**7)
    outside = cost.seconds(n, 0, 0, m, m, 20.0, 8, stored=10**7 + 10**6)
    assert outside - large == pytest.approx(1e6 * cost.far)


def test_the_precision_of_the_rows_is_the_cheapest_that_agrees():
    assert head_of("mixed").precision is hm.Precision.INT8
    bytes_are_free = hm.Cost(fine=0.0)
    assert head_of("mixed", precisions=("float32", "int8"), cost=bytes_are_free).precision is FLOAT32
