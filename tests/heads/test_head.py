from dataclasses import replace

import numpy as np
import pytest
from heads import capped, check_agreement, largest, layer, outputs
from marks import slow
from multiplying import KERNELS, every_kernel

import hmatrix as hm
from hmatrix.heads.choice import FIRST
from hmatrix.heads.cost import conservative_quantile
from hmatrix.heads.head import ProgressiveHead
from hmatrix.heads.levels import Bound
from hmatrix.heads.native import REFERENCE
from hmatrix.heads.reference import ReferenceHead

RULES = [hm.Margin(), hm.FixedRows(20), hm.Rigorous()]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("coarse", ["int8", "int4"])
@pytest.mark.parametrize("shape", [(200, 90), slow((33, 128)), (7, 5)], ids=str)
def test_kernels_agree_with_the_reference(rule, precision, coarse, shape):
    weight, bias, X, held_out = layer(*shape, rank=5)
    head = hm.progressive(
        weight,
        bias,
        calibration=X,
        agreement=0.9,
        rule=rule,
        ranks=[8],
        precisions=[precision, "float32"],
        coarse_precisions=[coarse],
    )
    assert head.coarse_precision.name.lower() == coarse
    check_agreement(head, held_out, (1, 3))


@every_kernel
def test_refined_outputs_are_those_of_the_layer(kernel):
    weight, bias, X, held_out = layer()
    head = hm.progressive(weight, bias, calibration=X, agreement=0.95, precisions=["float32"])
    dense = held_out.astype(float) @ weight.T.astype(float) + bias
    values, indices, _ = largest(head, kernel, held_out, 2)
    np.testing.assert_allclose(values, np.take_along_axis(dense, indices, axis=1), atol=1e-3)
    y = outputs(head, kernel, held_out)
    np.testing.assert_array_equal(y.argmax(axis=1), largest(head, kernel, held_out, 1)[1][:, 0])


@every_kernel
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_tiny_inputs_have_the_rows_of_ordinary_ones(kernel, precision):
    weight, _, X, held_out = layer()
    head = capped(hm.progressive(weight, calibration=X, agreement=0.95, precisions=[precision]), 12)
    ordinary, tiny = (largest(head, kernel, held_out * np.float32(power), 1) for power in (1, 2.0**-124))
    assert np.abs(held_out).max() * 2.0**-124 < 3e-37
    np.testing.assert_array_equal(tiny[1], ordinary[1])
    np.testing.assert_allclose(tiny[0] * 2.0**124, ordinary[0], rtol=1e-3)


@pytest.mark.parametrize("agreement", [0.8, 0.95, 0.99])
def test_agreement_on_held_out_inputs(agreement):
    weight, bias, X, held_out = layer(noise=0.5, samples=4000)
    head = hm.progressive(weight, bias, calibration=X, agreement=agreement)
    agreed = np.mean(head.topk(held_out)[1][:, 0] == (held_out @ weight.T + bias).argmax(axis=1))
    # Three standard deviations of a proportion of 2,000, and of the calibrated quantile of as many.
    assert agreed >= agreement - 3 * np.sqrt(2 * agreement * (1 - agreement) / 2000)


def test_where_inputs_say_less_more_rows_are_refined():
    weight, bias, X, held_out = layer(noise=0.5, samples=4000)
    head = hm.progressive(weight, bias, calibration=X, agreement=0.99, ranks=(6,))
    # Of the part that the coarse factors see a fifth is left.
    seen = np.linalg.svd(weight)[2][:6]
    unlike = (held_out - 0.8 * held_out @ seen.T @ seen).astype(np.float32)
    _, indices, counts = largest(head, REFERENCE, unlike, 1)
    agreed = np.mean(indices[:, 0] == (unlike @ weight.T + bias).argmax(axis=1))
    assert agreed >= 0.97
    assert counts.mean() > 2 * largest(head, REFERENCE, held_out, 1)[2].mean()


def test_kernels_agree_on_a_margin_with_room_for_fewer_rows():
    weight, bias, X, held_out = layer(noise=0.5)
    head = hm.progressive(weight, bias, calibration=X, agreement=0.9, ranks=(6,))
    check_agreement(capped(head, 12), held_out, (1, 3))


@every_kernel
def test_a_margin_with_room_for_fewer_rows_refines_the_best(kernel):
    weight, bias, X, held_out = layer(noise=0.5)
    head = hm.progressive(weight, bias, calibration=X, agreement=0.9, ranks=(6,))
    counts, free = (largest(one, kernel, held_out, 1)[2] for one in (capped(head, 12), head))
    assert free.max() > 12
    np.testing.assert_array_equal(counts, np.minimum(free, 12))


@pytest.mark.parametrize("top", [3, 200])
def test_agreement_of_more_outputs(top):
    weight, bias, X, held_out = layer(noise=0.3, samples=2000)
    head = hm.progressive(weight, bias, calibration=X, agreement=0.95, top=top)
    indices = np.sort(head.topk(held_out, top)[1], axis=1)
    dense = np.sort(np.argsort(-(held_out @ weight.T + bias), axis=1)[:, :top], axis=1)
    assert (indices == dense).all(axis=1).mean() >= 0.92


@every_kernel
@pytest.mark.parametrize("rank", [0, slow(4), 40, slow(90)])
@pytest.mark.parametrize(
    ("precision", "coarse"), [("float32", "int8"), slow("bfloat16", "int8"), ("int8", "int8"), slow("float32", "int4")]
)
def test_the_rigorous_largest_are_those_of_the_fine_rows(kernel, rank, precision, coarse):
    weight, bias, _, X = layer(noise=0.5)
    options = {"ranks": [rank], "precisions": [precision], "coarse_precisions": [coarse]}
    head = hm.progressive(weight, bias, rule=hm.Rigorous(), **options)
    fine = head.pack().rows_of(np.arange(200)).astype(float)
    # Adversarial inputs: rows of the remainder, and differences of rows, which nearly tie two outputs.
    V = np.linalg.svd(weight)[2][:rank]
    remainder = weight - weight @ V.T @ V
    differences = weight[:50] - weight[50:100]
    bad = np.concatenate([X, 10 * remainder, differences, 1e-20 * X, 1e10 * X, np.sign(X)]).astype(np.float32)
    for k in (1, 5):
        dense = np.sort(bad.astype(float) @ fine.T + bias, axis=1)[:, : -k - 1 : -1]
        values = largest(head, kernel, bad, k)[0]
        size = 1e-5 * (np.linalg.norm(fine, axis=1).max() * np.linalg.norm(bad.astype(float), axis=1)[:, None] + 4)
        assert (np.abs(values - dense) <= size).all()


@pytest.mark.parametrize("coarse", ["int8", "int4"])
def test_the_rigorous_bound_holds(coarse):
    weight, bias, _, X = layer(noise=0.5)
    for rank in (0, 4, 40, 90):
        options = {"ranks": [rank], "precisions": ["bfloat16"], "coarse_precisions": [coarse]}
        head = hm.progressive(weight, bias, rule=hm.Rigorous(), **options)
        fine = X.astype(float) @ head.pack().rows_of(np.arange(200)).astype(float).T + bias
        reference = ReferenceHead(head.pack())
        lower, upper = (outputs[:, :200] for outputs in reference.look(head.pack().places, reference.take_in(X)))
        assert (fine <= upper).all()
        assert (fine >= lower - (upper - lower)).all()
        assert (upper - lower).max() < 3 * np.linalg.norm(weight, axis=1).max() * np.linalg.norm(X, axis=1).max()


def test_the_rigorous_rule_refines_fewer_rows_where_the_rank_allows():
    weight, bias, X, held_out = layer(m=2000, noise=0.001)
    head = hm.progressive(weight, bias, calibration=X, rule=hm.Rigorous())
    assert head.refined(held_out).mean() < 300


@every_kernel
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_that_are_not_finite(kernel, value):
    weight, bias, X, held_out = layer()
    head = hm.progressive(weight, bias, calibration=X, agreement=0.9)
    x = held_out[:3].copy()
    x[1, 89] = value
    y = outputs(head, kernel, x)
    np.testing.assert_array_equal(np.isnan(y), [[False] * 200, [True] * 200, [False] * 200])
    values, indices, counts = largest(head, kernel, x, 3)
    assert np.isnan(values[1]).all()
    assert indices[1].tolist() == [0, 1, 2]
    assert counts[1] == 0 < min(counts[[0, 2]])


@every_kernel
def test_equal_rows(kernel):
    weight = np.tile(np.random.default_rng(0).standard_normal(40), (50, 1))
    X = np.random.default_rng(1).standard_normal((60, 40)).astype(np.float32)
    for rule in (hm.Margin(), hm.FixedRows(4), hm.Rigorous()):
        head = hm.progressive(weight, calibration=X, agreement=0.9, rule=rule)
        assert largest(head, kernel, X, 3)[1].tolist() == [[0, 1, 2]] * 60


@every_kernel
def test_a_matrix_of_zeros(kernel):
    X = np.ones((5, 40), np.float32)
    head = hm.progressive(np.zeros((30, 40)), np.arange(30.0), calibration=X, agreement=0.9)
    values, indices, _ = largest(head, kernel, X, 2)
    assert (values.tolist(), indices.tolist()) == ([[29, 28]] * 5, [[29, 28]] * 5)


@every_kernel
def test_one_class_and_batches_of_none(kernel):
    X = np.random.default_rng(0).standard_normal((9, 12)).astype(np.float32)
    weight = np.ones((1, 12))
    head = hm.progressive(weight, [2.0], calibration=X)
    values, indices, _ = largest(head, kernel, X, 1)
    np.testing.assert_allclose(values[:, 0], X.sum(axis=1) + 2, rtol=0.02, atol=0.02)
    assert not indices.any()
    assert outputs(head, kernel, X[:0]).shape == (0, 1)
    assert largest(head, kernel, X[:0], 1)[0].shape == (0, 1)


@every_kernel
def test_more_outputs_than_the_rule_refines(kernel):
    weight, bias, X, held_out = layer()
    head = hm.progressive(weight, bias, calibration=X, agreement=0.5, precisions=["float32"])
    values, indices, counts = largest(head, kernel, held_out, 200)
    assert (counts == 200).all()
    dense = held_out @ weight.T + bias
    np.testing.assert_array_equal(np.sort(indices, axis=1), np.tile(np.arange(200), (len(held_out), 1)))
    np.testing.assert_allclose(values, -np.sort(-dense, axis=1), atol=1e-3)


def test_one_vector_takes_a_shorter_way_to_the_same():
    weight, bias, X, held_out = layer()
    head = hm.progressive(weight, bias, calibration=X, agreement=0.9)
    for x in held_out[:5]:
        strided = np.repeat(x, 2)[::2]
        np.testing.assert_array_equal(head(x), head(x[None])[0])
        np.testing.assert_array_equal(head(strided), head(x))
        np.testing.assert_allclose(head(x.astype(float)), head(x))
        for k in (1, 4):
            for own, other in zip(head.topk(x, k), head.topk(strided, np.int64(k)), strict=True):
                np.testing.assert_array_equal(own, other)
                assert own.shape == (k,)
                assert own.dtype == other.dtype


def test_threads_change_no_bit(threads):
    weight, bias, X, held_out = layer(m=2000, samples=600)
    head = hm.progressive(weight, bias, calibration=X, agreement=0.9, ranks=[48])
    threads(1)
    alone = head(held_out)
    threads(3)
    np.testing.assert_array_equal(head(held_out), alone)
    np.testing.assert_array_equal(head(held_out[5]), alone[5])
    assert head(held_out[5]).shape == (2000,)
    assert [a.shape for a in head.topk(held_out[5], 4)] == [(4,), (4,)]


@pytest.mark.parametrize("clusters", [0, 50])
@pytest.mark.parametrize(("coarse", "rounding"), [("int8", 0.01), ("int4", 0.15)])
def test_the_error_of_the_coarse_part(clusters, coarse, rounding):
    weight, bias, _, _ = layer(noise=0.5)
    singular = np.linalg.svd(weight, compute_uv=False)
    for rank in (0, 8, 90):
        rule = {"rule": hm.Rigorous(), "ranks": [rank], "precisions": ["float32"], "cluster_rows": [clusters]}
        error = hm.progressive(weight, bias, coarse_precisions=[coarse], **rule).coarse_error()
        best = np.linalg.norm(singular[rank:]) / np.linalg.norm(singular)
        assert best - 1e-6 <= error <= (1 + rounding) * best + rounding


@pytest.mark.parametrize("k", [1, 5, FIRST, 16])
def test_the_rows_of_the_largest_coarse_outputs_are_refined_first(k):
    weight, bias, X, held_out = layer(noise=0.5)
    head = hm.progressive(weight, bias, calibration=X, agreement=0.9, precisions=["float32"])
    first = max(k, FIRST)
    sizes = replace(head.pack().sizes, most=FIRST)
    # Without a margin, and with room for no others, they are all.
    alone = ProgressiveHead(replace(head.pack(), sizes=sizes, limits=Bound(0.0)))
    np.testing.assert_array_equal(alone.refined(held_out, k), first)
    reference = ReferenceHead(head.pack())
    coarse = reference.look(head.pack().places, reference.take_in(held_out))[0][:, : len(weight)]
    rows = np.argsort(-coarse, axis=1)[:, :first]
    dense = np.take_along_axis(held_out @ weight.T + bias, rows, axis=1)
    best = np.take_along_axis(rows, np.argsort(-dense, axis=1), axis=1)[:, :k]
    np.testing.assert_array_equal(alone.topk(held_out, k)[1], best)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bias": np.ones(3)}, "bias: has 3 entries"),
        ({"calibration": np.ones((4, 3))}, "calibration: has the shape"),
        ({"calibration": None}, "calibration: is missing"),
        ({"agreement": 1.0}, "agreement: is 1.0"),
        ({"agreement": 0}, "agreement: got 0"),
        ({"ranks": []}, "ranks: are none"),
        ({"ranks": [-1]}, "ranks: got -1"),
        ({"precisions": ["int4"]}, "precisions: are .'int4'"),
        ({"coarse_precisions": []}, "coarse_precisions"),
        ({"coarse_precisions": ["int4", "int2"]}, "coarse_precisions: are .'int4', 'int2'"),
        ({"top": 0}, "top: got 0"),
        ({"rule": hm.FixedRows(1), "ranks": [0], "agreement": 0.99}, "do not agree"),
        ({"weight": np.ones((1, 40000))}, "has 40000 columns"),
    ],
)
def test_wrong_arguments(arguments, message):
    weight, bias, X, _ = layer()
    given = {"weight": weight, "bias": bias, "calibration": X} | arguments
    with pytest.raises(hm.HMatrixError, match=message):
        hm.progressive(given.pop("weight"), given.pop("bias"), **given)


def test_wrong_inputs():
    weight, bias, X, _ = layer()
    head = hm.progressive(weight, bias, calibration=X, agreement=0.9)
    for call in (
        lambda: head(X[:, 1:]),
        lambda: head.topk(X[:, 1:]),
        lambda: head.topk(X, 0),
        lambda: head.topk(X, 201),
    ):
        with pytest.raises(hm.HMatrixError):
            call()
    with pytest.raises(hm.HMatrixError, match="count: got 0"):
        hm.FixedRows(0)


def test_conservative_quantiles():
    values = np.arange(1.0, 101.0)
    assert conservative_quantile(values, 0.9) == 91
    assert conservative_quantile(values, 0.9999) > 100
    assert conservative_quantile(np.zeros(10), 0.9999) == 0
    assert KERNELS[-1] == REFERENCE
