"""Predicted errors of blocks in each form."""

import numpy as np
import pytest
from matrices import random_matrix

import hmatrix as hm
from hmatrix.allocation.error.moments import Moments
from hmatrix.allocation.search.candidates import Candidates
from hmatrix.allocation.search.depths import Depth
from hmatrix.allocation.search.sides import Side
from hmatrix.codes.encoding import decode, encode
from hmatrix.partitions.cluster import build_cluster_tree


@pytest.mark.parametrize("size", [1, 1000])
def test_what_trellises_leave_of_rows_with_outliers_is_known(size):
    weight = random_matrix(60, 300, np.float32)
    weight[::2, 7] = size
    sides = [Side(build_cluster_tree(hm.Index()(n), hm.Cardinality(300))) for n in weight.shape]
    pieces = Candidates(weight, Moments.of_root(None, 300), *sides).whole()
    for piece in pieces:
        if piece.form.dense in (Depth.FOUR, Depth.FAST_FOUR, Depth.THREE) and not piece.form.rank:
            (precision,) = piece.form.dense.value
            error = np.square(weight - decode(encode(weight, precision))).sum()
            assert piece.error == pytest.approx(error, rel=0.1)
