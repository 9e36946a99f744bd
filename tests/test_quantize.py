"""One dense leaf in any precision."""

import numpy as np
import pytest
from matrices import equal_bits, random_matrix, relative

import hmatrix as hm
from hmatrix.errors import ArgumentError

RANDOM = random_matrix(200, 260)


@pytest.mark.parametrize("precision", [precision.name.lower() for precision in hm.Precision])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("activations", ["exact", "int8"])
def test_quantize(precision, dtype, activations):
    A = RANDOM.astype(dtype)
    H = hm.quantize(A, precision, activations=activations)
    (leaf,) = H.leaves()
    assert (leaf.rank, leaf.precision, H.activations.value) == (None, hm.Precision.of(precision), activations)
    assert H.dtype == (np.float64 if precision == "float64" else np.float32)
    assert (H.pack().row_permutation, H.pack().column_permutation) == (None, None)
    largest = {
        "float64": 0.0,
        "float32": 1e-7,
        "bfloat16": 3e-3,
        "int8": 0.01,
        "int4": 0.15,
        "int2": 0.42,
        "int1": 0.65,
        "lloyd4": 0.13,
        "trellis4": 0.11,
        "trellis2": 0.34,
        "trellis1": 0.6,
        "trellis3": 0.175,
        "trellis4p": 0.1,
    }[precision]
    assert relative(A, H.to_dense()) <= largest
    assert equal_bits(hm.quantize(A, hm.Precision.of(precision)).to_dense(), H.to_dense())


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_rounding_of_codes_is_within_half_a_step(precision):
    """Without the search of clipping ranges: the least squared error is no more than that of plain rounding."""
    A = RANDOM
    most = {"int8": 127, "int4": 7}[precision]
    steps = np.abs(A).max(axis=1, keepdims=True) / most
    plain = np.rint(A / steps) * steps
    error = np.linalg.norm(A - hm.quantize(A, precision).to_dense(), axis=1)
    assert (error <= 1.01 * np.linalg.norm(A - plain, axis=1)).all()


def test_groups_lessen_the_error_where_columns_differ_in_size():
    A = RANDOM * np.repeat([1.0, 100.0], 130)
    errors = [relative(A[:, :130], hm.quantize(A, "int4", group=group).to_dense()[:, :130]) for group in (0, 130)]
    assert errors[1] < 0.2 < 0.9 < errors[0]


def test_quantize_holds_zeros_and_representable_numbers():
    for precision in hm.Precision:
        np.testing.assert_array_equal(hm.quantize(np.zeros((5, 7)), precision).to_dense(), np.zeros((5, 7)))
    A = np.arange(-127.0, 128.0)[None].repeat(2, axis=0) * [[1.0], [2.0**-20]]
    np.testing.assert_array_equal(hm.quantize(A, "int8").to_dense(), A)


@pytest.mark.parametrize(
    ("weight", "came"), [(np.zeros(5), "has 1 dimensions"), (np.full((3, 3), np.nan), "has 9 entries"), ([], "has 1")]
)
def test_unusable_weights_of_quantize(weight, came):
    with pytest.raises(ArgumentError, match=f"weight.*{came}"):
        hm.quantize(weight, "int8")
