"""Scores of two networks on the same samples."""

import numpy as np

from hmatrix._support.typing import Scores
from hmatrix.study.measure.statistics import paired_interval


def compare(before: Scores, after: Scores) -> str:
    """Return the loss of score, with its paired 95 % interval where scores are right or wrong."""
    lost = f"lost     {before.mean() - after.mean():.2f} of {before.mean():.2f}"
    if not np.isin((before, after), (0.0, 100.0)).all():
        return lost
    low, high = paired_interval(len(before), int((before > after).sum()), int((after > before).sum()))
    return f"{lost} (95 % interval {100 * low:.2f} to {100 * high:.2f})"
