"""Scores of two networks, compared."""

import numpy as np

from hmatrix.study.whole.compared import compare


def test_scores_are_compared():
    right, wrong = np.array([100.0, 100.0, 0.0, 100.0]), np.array([100.0, 0.0, 0.0, 100.0])
    assert compare(right, wrong).startswith("lost     25.00 of 75.00 (95 % interval")
    assert compare(np.array([99.5]), np.array([99.0])) == "lost     0.50 of 99.50"
