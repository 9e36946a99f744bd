import numpy as np
import pytest

from hmatrix.errors import ArgumentError
from hmatrix.partitions.coordinates import Index, Points, ScaledIndex


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_index_fills_one_interval_each(size):
    supports = Index()(size)
    np.testing.assert_array_equal(supports.points, np.arange(size)[:, None] + 0.5)
    assert supports.radius == 0.5


@pytest.mark.parametrize("size", [1, 3, 1280])
def test_scaled_index_fills_the_unit_interval(size):
    supports = ScaledIndex()(size)
    np.testing.assert_allclose(supports.points * size, Index()(size).points)
    lower, upper = supports.points - supports.radius, supports.points + supports.radius
    assert (lower[0, 0], upper[-1, 0]) == pytest.approx((0.0, 1.0))
    np.testing.assert_allclose(upper[:-1], lower[1:])


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([3, 1, 2], [[3.0], [1.0], [2.0]]),
        (np.array([[0, 1], [2, 3]]), [[0.0, 1.0], [2.0, 3.0]]),
        (np.array([0.5], dtype=np.float16), [[0.5]]),
    ],
)
def test_points(points, expected):
    supports = Points(points, radius=0.25)(len(expected))
    np.testing.assert_array_equal(supports.points, expected)
    assert supports.points.dtype in (np.float32, np.float64)
    assert supports.radius == 0.25


@pytest.mark.parametrize("size", [1, 3, 5])
def test_another_number_of_points(size):
    with pytest.raises(ArgumentError, match=f"points: has 4 points; give {size}"):
        Points(np.zeros((4, 2)))(size)


@pytest.mark.parametrize(
    ("points", "came"),
    [
        (np.zeros((2, 2, 2)), "3 dimensions"),
        (7.0, "0 dimensions"),
        ([], "got 0"),
        ([1.0, np.nan], "1 entries that are NaN"),
        ([1j], "complex128"),
        (["a"], "<U1"),
    ],
)
def test_unusable_points(points, came):
    with pytest.raises(ArgumentError, match=f"points.*{came}"):
        Points(points)


@pytest.mark.parametrize("radius", [-1.0, np.nan, "1"])
def test_unusable_radii(radius):
    with pytest.raises(ArgumentError, match="radius"):
        Points([1.0], radius)
