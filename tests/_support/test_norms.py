"""The Frobenius norm."""

import numpy as np
import pytest
from matrices import random_matrix

from hmatrix._support.norms import frobenius


@pytest.mark.parametrize("scale", [1e-170, 1e170])
def test_squares_neither_overflow_nor_vanish(scale):
    A = random_matrix(30, 20)
    assert frobenius(scale * A) == pytest.approx(scale * np.sqrt((A**2).sum()), rel=1e-14)


def test_a_matrix_of_several_strips_has_the_norm_of_its_entries():
    A = random_matrix(2100, 3, np.float32)
    assert frobenius(A) == pytest.approx(np.sqrt((A.astype(np.float64) ** 2).sum()), rel=1e-14)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (2, 2)])
def test_nothing_has_the_norm_0(shape):
    assert frobenius(np.zeros(shape)) == 0


def test_an_infinite_entry_makes_the_norm_infinite():
    assert frobenius(np.array([[1.0, -np.inf]])) == np.inf
