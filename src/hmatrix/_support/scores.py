"""Scores that a user's function gives."""

from typing import Any

import numpy as np

from hmatrix._support.checks import as_array
from hmatrix._support.typing import Scores
from hmatrix.errors import ArgumentError


def scores_of(value: Any) -> Scores:
    """Return the scores of a user's function as an array: one, or one for each sample.

    Raises
    ------
    ArgumentError
        If it is neither, or not finite.
    """
    try:
        scores = np.atleast_1d(np.asarray(as_array("evaluate", value), np.float64))
    except (TypeError, ValueError) as error:
        raise ArgumentError("evaluate", f"returned a {type(value).__name__}", "return a score") from error
    if scores.ndim != 1 or not scores.size:
        raise ArgumentError(
            "evaluate", f"returned scores of the shape {np.shape(value)}", "return a finite score, or one a sample"
        )
    if not np.isfinite(scores).all():
        wrong = "nothing" if value is None else f"{scores[~np.isfinite(scores)][0]}"
        raise ArgumentError("evaluate", f"returned {wrong}", "return a finite score, or one a sample")
    return scores
