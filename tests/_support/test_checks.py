"""Masked entries have values that mean nothing: no array that a user gives may have them."""

import numpy as np
import pytest
from hmatrices import make
from matrices import random_matrix

import hmatrix as hm
from hmatrix.errors import ArgumentError
from hmatrix.packed.packing import PackedLeaf

A = random_matrix(40, 30, np.float32)
VALUES = A[:, 0]
RANK = hm.Truncation(max_rank=2)


def masked(array):
    """An array with one entry masked."""
    mask = np.zeros(np.shape(array), bool)
    mask.flat[3] = True
    return np.ma.masked_array(array, mask)


def head():
    return hm.progressive(A, rule=hm.Rigorous(), ranks=[4], precisions=["float32"], coarse_precisions=["int8"])


USES = {
    "build": lambda: hm.build(masked(A), truncation=hm.Truncation(max_rank=2)),
    "build of entries": lambda: hm.build(
        hm.Entries(lambda i, j: masked(A[np.ix_(i, j)]), A.shape), truncation=hm.Truncation(max_rank=2)
    ),
    "global_svd": lambda: hm.global_svd(masked(A), hm.Truncation(max_rank=2)),
    "quantize": lambda: hm.quantize(masked(A), "int8"),
    "relative_error": lambda: hm.relative_error(masked(A), hm.quantize(A, "int8")),
    "allocate": lambda: hm.allocate(masked(A), hm.Budget(storage=0.5)),
    "calibration": lambda: hm.allocate(A, hm.Budget(storage=0.5), calibration=masked(random_matrix(9, 30))),
    "calibration by samples": lambda: hm.allocate(A, hm.Budget(storage=0.5), calibration=masked(np.ones((4, 2, 30)))),
    "row_weights": lambda: hm.allocate(A, hm.Budget(storage=0.5), row_weights=masked(np.ones(40))),
    "derivatives": lambda: hm.allocate(
        A, hm.Budget(storage=0.5), calibration=random_matrix(9, 30), derivatives=masked(np.ones((2, 3, 30)))
    ),
    "row_derivatives": lambda: hm.allocate(A, hm.Budget(storage=0.5), row_derivatives=masked(np.ones((2, 3, 40)))),
    "evaluate": lambda: hm.allocate(A, hm.Budget(max_drop=1.0), evaluate=lambda _, __: masked(np.ones(5))),
    "points": lambda: hm.Points(masked(np.arange(9.0))),
    "H @ x": lambda: make()[0] @ masked(np.ones(70)),
    "H @ X": lambda: make()[0] @ masked(np.ones((70, 3))),
    "H.T @ x": lambda: make()[0].T @ masked(np.ones(90)),
    "x @ H": lambda: masked(np.ones(90)) @ make()[0],
    "apply": lambda: make()[0].apply(masked(np.ones((3, 70)))),
    "rmatvec": lambda: make()[0].rmatvec(masked(np.ones(90))),
    "leaf": lambda: hm.HMatrix.from_leaves(A.shape, [PackedLeaf(slice(0, 40), slice(0, 30), masked(A))]),
    "factor": lambda: hm.HMatrix.from_leaves(
        A.shape,
        [PackedLeaf(slice(0, 40), slice(0, 30), hm.LowRank(masked(A[:, :2]), random_matrix(30, 2, np.float32)))],
    ),
    "recompress": lambda: hm.recompress(hm.LowRank(A[:, :2], masked(A[:, :2])), hm.Truncation(max_rank=1)),
    "progressive": lambda: hm.progressive(masked(A)),
    "bias of a head": lambda: hm.progressive(A, masked(VALUES)),
    "calibration of a head": lambda: hm.progressive(A, calibration=masked(random_matrix(9, 30))),
    "head": lambda: head()(masked(np.ones(30))),
    "topk": lambda: head().topk(masked(np.ones(30))),
    "refined": lambda: head().refined(masked(np.ones((2, 30)))),
    **{
        f"block of {type(compressor).__name__}": lambda compressor=compressor: compressor(masked(A), RANK)
        for compressor in (hm.TruncatedSVD(), hm.PivotedQR(), hm.RandomizedSVD(), hm.FullACA(), hm.PartialACA())
    },
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_masked_entries_are_refused(use):
    with pytest.raises(ArgumentError, match=r"masked array|MaskedArray"):
        use()


def test_a_mask_that_hides_nothing_is_no_matter():
    H, _ = make()
    np.testing.assert_array_equal(H @ np.ma.masked_array(np.ones(70), False), H @ np.ones(70))
