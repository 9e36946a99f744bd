"""Outputs that differ by less than the rounding of their sums are equal, on every kernel and every BLAS."""

from fractions import Fraction

import blas
import numpy as np
import pytest
from heads import largest, outputs, with_copies
from hypothesis import given, settings
from hypothesis import strategies as st
from multiplying import KERNELS, every_kernel

import hmatrix as hm
from hmatrix.heads.native import REFERENCE
from hmatrix.heads.rules import FixedRows, Margin, Rigorous
from hmatrix.heads.samples import Samples, largest_rows
from hmatrix.heads.sums import fused
from hmatrix.heads.ties import equal, largest_outputs, sum_rounding

RULES = [Margin(), FixedRows(12), Rigorous()]


def winners_are_right(weight, x, values, rows, codes):
    """By sums in float64: no output is larger by more than rounding, and no equal row comes before."""
    dense = x.astype(np.float64) @ weight.T.astype(np.float64)
    size = np.linalg.norm(x.astype(np.float64), axis=1) * np.linalg.norm(weight, axis=1).max()
    # Both the winner and the largest are off by rounding, and by norms that are bounded from above.
    n = weight.shape[1]
    # Rows in codes meet an x whose entries are off by half a step, of which 127 * 254 are its largest entry.
    room = 2 * (4 * float(sum_rounding(n)) + codes * np.sqrt(n) * 0.5 / (127 * 254)) * size
    found = np.take_along_axis(dense, rows, axis=1)
    assert (found[:, 0] >= dense.max(axis=1) - room).all()
    assert (np.abs(values - found) <= room[:, None]).all()
    assert (np.diff(values, axis=1) <= 0).all()
    for b, row in enumerate(rows[:, 0]):
        assert not (weight[:row] == weight[row]).all(axis=1).any(), (b, row)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.integers(1, 90),
    n=st.integers(1, 150),
    kinds=st.integers(1, 30),
    precision=st.sampled_from(["float32", "bfloat16", "int8"]),
    clusters=st.sampled_from([0, 20]),
    rule=st.sampled_from(RULES),
)
def test_every_kernel_finds_the_same_winners(seed, m, n, kinds, precision, clusters, rule):
    weight, X = with_copies(seed, m, n, kinds)
    options = {"ranks": [min(m, n, 6)], "coarse_precisions": ["int8"], "rule": rule}
    if isinstance(rule, Margin):
        options |= {"calibration": X, "agreement": 0.5, "precisions": [precision, "float32"], "top": min(2, m)}
    else:
        options |= {"precisions": [precision]}
    if not isinstance(rule, FixedRows) and m > clusters:
        options |= {"cluster_rows": [clusters]}
    head = hm.progressive(weight, **options)
    k = min(3, m)
    expected = largest(head, REFERENCE, X, k)
    for kernel in KERNELS:
        for own, other in zip(largest(head, kernel, X, k), expected, strict=True):
            np.testing.assert_array_equal(own, other)
        y = outputs(head, kernel, X)
        np.testing.assert_array_equal(y, outputs(head, REFERENCE, X))
        np.testing.assert_array_equal(y.argmax(axis=1), largest(head, kernel, X, 1)[1][:, 0])
    if isinstance(rule, Rigorous):
        winners_are_right(head.pack().rows_of(np.arange(m)), X, *expected[:2], codes=precision == "int8")


HEADS = """
import hmatrix as hm
from heads import largest, with_copies
from multiplying import KERNELS

found = []
for seed in range(6):
    weight, X = with_copies(seed, 60, 70 + seed, 9)
    made = hm.progressive(weight, ranks=[6], precisions=["float32"], coarse_precisions=["int8"], rule=hm.Rigorous())
    fixed = hm.ProgressiveHead.load(f"{sys.argv[2]}/{seed}")
    hm.progressive(weight, calibration=X, agreement=0.9)
    for kernel in KERNELS:
        found += [largest(made, kernel, X, 3)[1].tolist(), *(part.tolist() for part in largest(fixed, kernel, X, 3))]
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(len(blas.CORES) < 2, reason="OpenBLAS's kernels are chosen by name on x86 alone")
def test_every_blas_finds_the_same_winners(tmp_path):
    for seed in range(6):
        weight, X = with_copies(seed, 60, 70 + seed, 9)
        hm.progressive(weight, calibration=X, agreement=0.9).save(tmp_path / str(seed))
    found = {core: blas.run(core, HEADS, tmp_path) for core in blas.CORES}
    assert [core for core in found if found[core] != found[blas.CORES[0]]] == []


@every_kernel
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_equal_rows_agree_whatever_a_blas_makes_of_them(kernel, rule, monkeypatch):
    """A dense layer whose outputs of equal rows differ by rounding, as those of a BLAS do."""
    rng = np.random.default_rng(0)
    weight = np.tile(rng.standard_normal(40), (50, 1)).astype(np.float32)
    X = rng.standard_normal((60, 40)).astype(np.float32)
    of = Samples.of

    def shaken(inputs, weight, bias, top):
        dense = inputs @ weight.T + bias
        off_by = sum_rounding(40) * np.linalg.norm(inputs, axis=1)[:, None] * np.linalg.norm(weight, axis=1)
        return of(inputs, weight, bias, top, dense + off_by * rng.uniform(-0.5, 0.5, dense.shape).astype(np.float32))

    monkeypatch.setattr(Samples, "of", shaken)
    head = hm.progressive(weight, calibration=X, agreement=0.99, rule=rule)
    assert largest(head, kernel, X, 3)[1].tolist() == [[0, 1, 2]] * 60


def test_groups_of_equal_outputs_are_ordered_by_rows():
    values = np.array([1.0, 3.0, 2.0, 3.0001, 2.9999, 2.0001], np.float32)
    rows, off_by = np.array([9, 5, 8, 7, 6, 4]), np.full(6, 1e-4, np.float32)
    np.testing.assert_array_equal(equal(values, off_by, 3), [False, True, False, True, True, False])
    found, order = largest_outputs(values, off_by, rows, 5)
    assert order.tolist() == [5, 6, 7, 4, 8]
    np.testing.assert_array_equal(found, values[[3, 3, 3, 5, 5]])
    apart, alone = largest_outputs(values, 0 * off_by, rows, 6)
    assert alone.tolist() == [7, 5, 6, 4, 8, 9]
    np.testing.assert_array_equal(apart, np.sort(values)[::-1])


def test_rows_of_larger_norm_are_equal_sooner():
    values, rows = np.array([1.0, 0.999, 0.999], np.float32), np.array([2, 0, 1])
    off_by = np.array([1e-4, 1e-4, 1e-3], np.float32)
    assert largest_outputs(values, off_by, rows, 3)[1].tolist() == [1, 2, 0]


@pytest.mark.parametrize("top", [1, 2, 4])
def test_samples_accept_any_of_equal_rows(top):
    weight = np.eye(6, 40, dtype=np.float32)[[0, 1, 1, 1, 2, 3]]
    x = np.zeros((1, 40), np.float32)
    x[0, :4] = 5, 4, 3, 2
    samples = Samples.of(x, weight, np.zeros(6, np.float32), top)
    assert samples.wanted.tolist() == [{1: [0], 2: [0, 1], 4: [0, 1, 2, 3]}[top]]
    assert samples.tied.tolist() == [top == 2]
    good = {1: [[0]], 2: [[0, 1], [0, 2], [0, 3]], 4: [[0, 1, 2, 3]]}[top]
    bad = {1: [[1], [4]], 2: [[1, 2], [0, 4]], 4: [[0, 1, 2, 4]]}[top]
    assert [samples.agree(np.array([rows])).tolist() for rows in good] == [[True]] * len(good)
    assert [samples.agree(np.array([rows])).tolist() for rows in bad] == [[False]] * len(bad)
    if top == 2:
        coarse = np.array([[9.0, 1, 2, 3, 0, 0]], np.float32)
        assert samples.easiest(coarse, np.array([[0]])).tolist() == [[0, 3]]
        assert samples.easiest(coarse, np.array([[0, 2]])).tolist() == [[0, 2]]


def test_the_rounding_of_sums_holds_for_every_blas():
    """The outputs of equal rows, at all places of a tile, differ by no more than twice the bound."""
    rng = np.random.default_rng(0)
    for n in (1, 7, 40, 576, 1280):
        x = np.abs(rng.standard_normal((33, n))).astype(np.float32)
        row = np.abs(rng.standard_normal(n)).astype(np.float32)
        products = x @ np.tile(row, (70, 1)).T
        size = np.linalg.norm(x, axis=1) * np.linalg.norm(row)
        assert (np.ptp(products, axis=1) <= 2 * sum_rounding(n) * size).all()


def test_the_largest_rows_are_the_first_of_equal_ones():
    values = np.array([[1, 3, 3, 2, 3], [0, 0, 0, 0, 0]], np.float32)
    assert largest_rows(values, 2).tolist() == [[1, 2], [0, 1]]
    assert largest_rows(values, 1).tolist() == [[1], [0]]
    assert largest_rows(values, 5).tolist() == [[0, 1, 2, 3, 4]] * 2


def test_fused_steps_round_once():
    """Against sums of fractions: random ones, halfway cases, and those that rounding twice gets wrong."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(500).astype(np.float32) for _ in range(2))
    c = (rng.standard_normal(500) * 2.0 ** rng.integers(-40, 40, 500)).astype(np.float32)
    one, ulp = np.float32(1), np.finfo(np.float32).eps
    a, b = np.append(a, [one + ulp, one, ulp / 2, 0]), np.append(b, [one + ulp, ulp / 2, one - ulp / 2, 3])
    c = np.append(c, [np.float32(2.0**24), one, one + ulp, 0])
    found = fused(*(array.astype(np.float32)[None] for array in (a, b, c)))[0]
    for value, *factors in zip(found, a, b, c, strict=True):
        x, y, z = (Fraction(float(factor)) for factor in factors)
        around = [value, np.nextafter(value, np.float32(-np.inf)), np.nextafter(value, np.float32(np.inf))]
        errors = [abs(Fraction(float(other)) - (x * y + z)) for other in around]
        assert errors[0] <= min(errors[1:])
        if errors[0] == min(errors[1:]):
            assert value.view(np.uint32) % 2 == 0
