"""One entry far out spoils no row: codes of 4 bits that are not evenly spaced are no worse than those that are."""

import numpy as np
import pytest
from matrices import random_matrix

import hmatrix as hm

UNEVEN = ("lloyd4", "trellis4", "trellis4p")


def with_outliers(m, n, size, count=1):
    weight = random_matrix(m, n, np.float32)
    for row in weight[::2]:
        row[3 : 3 + count] = size * np.array([1, -1] * count)[:count]
    return weight


def error(weight, precision, **options):
    return hm.relative_error(weight, hm.quantize(weight, precision, **options))


@pytest.mark.parametrize("precision", UNEVEN)
@pytest.mark.parametrize(
    ("n", "size", "count"), [(64, 100, 1), (64, 1000, 2), (300, 1000, 3), (300, -50, 1), (40, 1e30, 1)]
)
def test_no_outlier_makes_uneven_values_worse_than_even_ones(precision, n, size, count):
    weight = with_outliers(9, n, size, count)
    assert error(weight, precision) <= error(weight, "int4") * (1 + 1e-6)
    assert error(weight, precision, group=24 * count) <= error(weight, "int4", group=24 * count) * (1 + 1e-6)


@pytest.mark.parametrize("precision", UNEVEN)
def test_outliers_are_leaves_of_their_own(precision):
    weight = with_outliers(9, 64, 1000)
    matrix = hm.quantize(weight, precision)
    leaves = list(matrix.leaves())
    assert [leaf.precision.name.lower() for leaf in leaves] == [precision] + ["float32"] * 5
    x = random_matrix(3, 64, np.float32)
    np.testing.assert_allclose(matrix.apply(x), x @ matrix.to_dense().T, rtol=1e-4, atol=1e-2)
    of_build = hm.quantize(weight, "float32").astype(precision)
    np.testing.assert_array_equal(of_build.to_dense(), matrix.to_dense())


@pytest.mark.parametrize("precision", UNEVEN)
def test_a_unit_matrix_is_exact(precision):
    assert error(np.eye(70), precision) == 0


@pytest.mark.parametrize("precision", [*UNEVEN, "int4", "trellis2"])
def test_ordinary_rows_are_one_leaf(precision):
    assert len(list(hm.quantize(random_matrix(200, 300), precision).leaves())) == 1
