"""H-matrices whose leaves have other precisions: conversion, storage, products, copies."""

import copy
import pickle
from functools import cache

import numpy as np
import pytest
from hmatrices import PERMUTATIONS, SHAPE, close, m, make, n
from matrices import equal_bits, random_leaves, random_matrix, relative

import hmatrix as hm
from hmatrix.errors import ArgumentError
from hmatrix.lowrank.factors import LowRank
from hmatrix.packed.packing import PackedLeaf

pytestmark = pytest.mark.usefixtures("any_kernel")

PRECISIONS = [precision.name.lower() for precision in hm.Precision]
INTEGERS = [precision.name.lower() for precision in hm.Precision if precision.is_integer]
STEPS = {
    "float64": 2.0**-52,
    "float32": 2.0**-23,
    "bfloat16": 2.0**-8,
    "int8": 0.015,
    "int4": 0.2,
    "int2": 0.6,
    "int1": 1.0,
    "lloyd4": 0.2,
    "trellis4": 0.2,
    "trellis2": 0.5,
    "trellis1": 0.8,
    "trellis3": 0.3,
    "trellis4p": 0.2,
}
"""Relative Frobenius errors of normally distributed coefficients, at most."""


def parts_of(block):
    return (block.U, block.V) if isinstance(block, LowRank) else (block,)


@cache
def _packed(precision, group, activations, dtype):
    return make(dtype)[0].astype(precision, group=group, activations=activations).pack()


def converted(precision, group=0, activations="exact", dtype=np.float32):
    """Return the matrix of `make` in a precision, encoded once for all kernels."""
    return hm.HMatrix(_packed(precision, group, activations, dtype))


@cache
def quantised(precision, activations):
    return hm.quantize(random_matrix(512, 1024), precision, activations=activations)


def dense_of(block):
    """The block in float64."""
    factors = [part.astype(float) for part in parts_of(block)]
    return factors[0] @ factors[1].T if len(factors) == 2 else factors[0]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", [str.lower, str.upper, hm.Precision.of])
def test_astype_of_every_precision(both, precision, kind):
    H, _ = both
    other = H.astype(kind(precision))
    assert other.dtype == (np.float64 if precision == "float64" else np.float32)
    assert {leaf.precision for leaf in other.leaves()} == {hm.Precision.of(precision)}
    assert other.shape == H.shape
    for ours, theirs in zip(H.leaves(), other.leaves(), strict=True):
        assert (ours.rows, ours.columns, ours.rank) == (theirs.rows, theirs.columns, theirs.rank)
        if ours.rank == 0:
            continue
        expected, actual = (dense_of(leaf.block) for leaf in (ours, theirs))
        assert relative(expected, actual) <= 1.5 * STEPS[precision] * len(parts_of(ours.block)) ** 0.5
    x = random_matrix(n, 3)
    close(other @ x, other.to_dense().astype(float) @ x, np.float32)
    close(other.T @ (other @ x), other.to_dense().T.astype(float) @ (other @ x), np.float32)
    assert other.astype(precision) is other


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("wide", ["float32", "float64"])
def test_astype_and_back(precision, wide):
    """A wider type holds what a narrow one stands for; going back loses nothing that it had not lost."""
    narrow = make(np.float32)[0].astype(precision)
    back = narrow.astype(wide)
    assert back.astype(wide) is back
    for ours, theirs in zip(narrow.leaves(), back.leaves(), strict=True):
        for a, b in zip(parts_of(ours.block), parts_of(theirs.block), strict=True):
            np.testing.assert_array_equal(a, b)
    if precision in ("float32", "bfloat16"):
        assert equal_bits(back.astype(precision).pack().data, narrow.pack().data)


@pytest.mark.parametrize("group", [1, 3, 8, 16, 64, 2**14, 2**40])
@pytest.mark.parametrize("precision", INTEGERS)
def test_groups(precision, group):
    H, _ = make(np.float32)
    grouped, whole = converted(precision, group), converted(precision)
    x = random_matrix(n, 2)
    close(grouped @ x, grouped.to_dense().astype(float) @ x, np.float32)
    errors = [relative(H.to_dense(), other.to_dense()) for other in (grouped, whole)]
    # Of words that are not filled a trellis makes little.
    if hm.Precision.of(precision).trellis is None or group >= hm.Precision.of(precision).per_word:
        assert errors[0] <= 1.1 * errors[1]
    assert grouped.storage().total >= whole.storage().total
    assert grouped.astype(precision, group=group) is grouped


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
def test_groups_mean_nothing_without_scales(precision):
    H, _ = make(np.float32)
    assert equal_bits(H.astype(precision, group=8).pack().leaves, H.astype(precision).pack().leaves)
    assert H.astype("float32", group=8) is H


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("batch", [None, 1, 5])
def test_int8_activations(precision, batch):
    exact, other = converted(precision), converted(precision, activations=hm.Activations.INT8)
    assert (exact.activations, other.activations) == (hm.Activations.EXACT, hm.Activations.INT8)
    assert equal_bits(exact.to_dense(), other.to_dense())
    x = random_matrix(n, 1)[:, 0] if batch is None else random_matrix(n, batch)
    error = relative(exact @ x, other @ x)
    assert error <= (0.03 if hm.Precision.of(precision).is_integer else 1e-5)
    # The transpose has exact activations.
    close(other.T @ (exact @ x), exact.T @ (exact @ x), np.float32)
    # What is not said is kept.
    assert other.astype("int4").activations is hm.Activations.INT8
    assert other.astype("int4", activations="exact").activations is hm.Activations.EXACT


@pytest.mark.parametrize("precision", INTEGERS)
def test_inputs_that_are_not_finite_do_not_pass_unseen(precision):
    H = make(np.float32)[0].astype(precision, activations="int8")
    for value in (np.nan, np.inf):
        x = np.ones(n, np.float32)
        x[7] = value
        with np.errstate(invalid="ignore"):
            assert np.isnan(H @ x).any()


@pytest.mark.parametrize("activations", ["EXACT", "int4", 8, True, ["int8"], np.int8])
def test_bad_activations(activations):
    H, _ = make()
    for use in (
        lambda: H.astype("int8", activations=activations),
        lambda: hm.quantize(np.eye(3), "int8", activations=activations),
        lambda: hm.HMatrix.from_leaves(
            (1, 1), [PackedLeaf(slice(0, 1), slice(0, 1), np.eye(1))], activations=activations
        ),
    ):
        with pytest.raises(ArgumentError, match=r"^activations: got .*; give 'exact' or 'int8'"):
            use()


@pytest.mark.parametrize("group", [-1, 1.5, None, True, "8"])
@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_bad_groups(group, precision):
    for use in (
        lambda: make()[0].astype(precision, group=group),
        lambda: hm.quantize(np.eye(3), precision, group=group),
    ):
        with pytest.raises(ArgumentError, match=r"^group: got .*; give an integer of at least 0"):
            use()


@pytest.mark.parametrize("precision", ["int3", "", "half", "float", None, 7, object(), np.uint8, [], "int8 "])
def test_bad_precisions(precision):
    for use in (lambda: make()[0].astype(precision), lambda: hm.quantize(np.eye(3), precision)):
        with pytest.raises(ArgumentError, match=r"^precision: got .*; give one of float64, float32, bfloat16, int8"):
            use()


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_coefficients_too_large_for_a_precision(precision):
    H = hm.quantize(np.diag([1e300, 1.0]), "float64")
    with pytest.raises(ArgumentError, match=r"matrix: has entries up to 1e\+300; .* at most: divide the matrix"):
        H.astype(precision)


def padded(columns, precision):
    return hm.Precision.of(precision).words(columns)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_storage_by_part_of_every_precision(precision):
    """Words of rows that are filled up, and scales of 32 bits: one of each row of D, U and V^T."""
    H = make(np.float32)[0].astype(precision)
    kind = hm.Precision.of(precision)
    size, scales = (8 if precision == "float64" else 4), int(kind.is_integer)
    near = far = 0
    for leaf in H.leaves():
        rows, columns = leaf.rows.stop - leaf.rows.start, leaf.columns.stop - leaf.columns.start
        if leaf.rank is None:
            near += rows * (padded(columns, precision) + scales)
        elif leaf.rank:
            far += rows * (padded(leaf.rank, precision) + scales) + leaf.rank * (padded(columns, precision) + scales)
    storage, packed = H.storage(), H.pack()
    assert (storage.near_field, storage.far_field) == (size * near, size * far)
    assert packed.dense_words * packed.data.itemsize == storage.near_field
    assert storage.near_field + storage.far_field == packed.schedule.words * packed.data.itemsize
    assert storage.index == packed.index_nbytes
    assert storage.uncompressed == m * n * size
    assert storage.total == storage.near_field + storage.far_field + storage.index


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("activations", ["exact", "int8"])
def test_ratio_is_nearly_that_of_the_bits(precision, activations):
    ratio = quantised(precision, activations).storage().ratio
    expected = 1.0 if precision == "float64" else hm.Precision.of(precision).bits / 32
    assert expected <= ratio <= expected + 1 / 1024 + 0.002


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("activations", ["exact", "int8"])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda H: pickle.loads(pickle.dumps(H))])
def test_copies_of_every_precision(precision, activations, duplicate):
    H = converted(precision, 16, activations, np.float64)
    other, x = duplicate(H), random_matrix(n, 2)
    assert equal_bits(other @ x, H @ x)
    assert (other.storage(), other.activations) == (H.storage(), H.activations)


def test_leaves_of_mixed_precision():
    leaves = random_leaves(SHAPE, dtype=np.float32, seed=5)
    kinds = list(hm.Precision)[1:]
    mixed = [
        PackedLeaf(leaf.rows, leaf.columns, leaf.block, kinds[number % len(kinds)])
        for number, leaf in enumerate(leaves)
    ]
    x = random_matrix(n, 3)
    for activations in hm.Activations:
        H = hm.HMatrix.from_leaves(SHAPE, mixed, *PERMUTATIONS, activations=activations)
        assert [leaf.precision for leaf in H.leaves()] == [leaf.precision for leaf in mixed]
        assert relative(H.to_dense().astype(float) @ x, H @ x) <= 0.03
        assert H.astype("float32").dtype == H.dtype == np.float32
        np.testing.assert_array_equal(H.astype("float32").to_dense(), H.to_dense())
