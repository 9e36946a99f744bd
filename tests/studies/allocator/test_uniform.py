import numpy as np
import pytest

import hmatrix as hm
from hmatrix.assembly import partition
from hmatrix.errors import ArgumentError
from studies.allocator.fixed_accuracy import inverse_distance, sphere
from studies.allocator.uniform import fit_uniform

POINTS = sphere(300)
WEIGHT = inverse_distance(POINTS)
TREE = partition(WEIGHT.shape, coordinates=hm.Points(POINTS), splitter=hm.Cardinality(20))


def test_without_a_tolerance_nothing_is_lost():
    found = fit_uniform(WEIGHT, TREE, 0.0)
    np.testing.assert_allclose(found.to_dense(), WEIGHT, atol=2e-5 * np.abs(WEIGHT).max())


def test_the_error_is_that_of_projections_onto_the_bases():
    found = fit_uniform(WEIGHT, TREE, 1e-2)
    ordered = WEIGHT[np.ix_(TREE.rows.permutation, TREE.columns.permutation)].astype(np.float64)
    squares = 0.0
    for block in TREE.far_field:
        dense = ordered[block.rows.slice, block.columns.slice]
        U, V = (basis.astype(np.float64) for basis in (found.row_bases[block.rows], found.column_bases[block.columns]))
        np.testing.assert_allclose(U.T @ U, np.eye(U.shape[1]), atol=1e-5)
        squares += np.square(dense - U @ (U.T @ dense @ V) @ V.T).sum()
    assert squares > 0
    error = np.linalg.norm(found.to_dense().astype(np.float64) - WEIGHT)
    assert error == pytest.approx(np.sqrt(squares), rel=1e-3)


def test_a_basis_leaves_out_what_is_below_the_tolerance():
    found = fit_uniform(WEIGHT, TREE, 1e-2)
    ordered = WEIGHT[np.ix_(TREE.rows.permutation, TREE.columns.permutation)]
    for cluster, basis in found.row_bases.items():
        side_by_side = np.hstack([ordered[b.rows.slice, b.columns.slice] for b in TREE.far_field if b.rows is cluster])
        singular = np.linalg.svd(side_by_side.astype(np.float64), compute_uv=False)
        assert basis.shape[1] == np.count_nonzero(singular > 1e-2 * np.sqrt(cluster.size))


def test_bytes_are_counted():
    found = fit_uniform(WEIGHT, TREE, 1e-2)
    entries = sum(U.size for U in found.row_bases.values()) + sum(V.size for V in found.column_bases.values())
    entries += sum(block.rows.size * block.columns.size for block in TREE.near_field)
    entries += sum(found.row_bases[b.rows].shape[1] * found.column_bases[b.columns].shape[1] for b in TREE.far_field)
    assert found.nbytes == 4 * (entries + 600)
    assert found.nbytes < fit_uniform(WEIGHT, TREE, 1e-3).nbytes


@pytest.mark.parametrize(
    ("weight", "atol", "name"),
    [(WEIGHT[:, :7], 0.1, "weight"), (WEIGHT, -1.0, "atol"), (WEIGHT * np.nan, 0.1, "weight")],
)
def test_wrong_arguments(weight, atol, name):
    with pytest.raises(ArgumentError, match=name):
        fit_uniform(weight, TREE, atol)
