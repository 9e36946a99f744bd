"""Confidence intervals of the difference of two accuracies on the same images.

Two networks see the same `n` images; `b` of them only the first classifies rightly, `c` only the
second. The difference of the accuracies is ``(b - c) / n``. Its images are matched pairs, so the
images that both get right, or both get wrong, say nothing about its sign: an interval for two
independent proportions would be far too wide.

References
----------
.. [1] A. Agresti, Y. Min, "Effects and non-effects of paired identical observations in comparing
   proportions with binary matched-pairs data", Statistics in Medicine 23 (2004) 65-75.
.. [2] A. Agresti, Y. Min, "Simple improved confidence intervals for comparing matched proportions",
   Statistics in Medicine 24 (2005) 729-740, doi:10.1002/sim.1781.
"""

import math
from statistics import NormalDist

from hmatrix.errors import ArgumentError

PSEUDO_PAIRS = 2
"""Pairs that the adjusted interval adds: half a pair to each of the four cells."""


def paired_interval(samples: int, lost: int, gained: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return an interval for the accuracy lost, baseline minus this, as fractions.

    This is the adjusted Wald interval for matched pairs, "Wald+2" [2]_: half a pair is added to each
    of the four cells, so that the interval has a width even where no pair differs.

    Parameters
    ----------
    samples
        Images that both networks classified.
    lost, gained
        Images that only the baseline, and only this network, classify rightly.
    confidence
        Probability with which the interval covers the true difference, between 0 and 1.

    Returns
    -------
    lower, upper
        Within [-1, 1]; positive is a loss.

    Raises
    ------
    ArgumentError
        If a count is negative, the pairs that differ outnumber the samples, or `confidence` is not
        a probability.
    """
    if samples < 1:
        raise ArgumentError("samples", f"is {samples}", "evaluate at least one image")
    for name, count in (("lost", lost), ("gained", gained)):
        if count < 0:
            raise ArgumentError(name, f"is {count}", "give the number of images, at least 0")
    if lost + gained > samples:
        raise ArgumentError(
            "lost and gained", f"are {lost} + {gained} of {samples} samples", "count each image once, in one of the two"
        )
    if not 0.0 < confidence < 1.0:
        raise ArgumentError("confidence", f"is {confidence}", "give a probability between 0 and 1, such as 0.95")
    pairs = samples + PSEUDO_PAIRS
    difference = (lost - gained) / pairs
    # The two half pairs in the cells of the differing pairs make the 1.
    deviation = math.sqrt((lost + gained + 1) - (lost - gained) ** 2 / pairs) / pairs
    margin = NormalDist().inv_cdf(0.5 + confidence / 2) * deviation
    return max(difference - margin, -1.0), min(difference + margin, 1.0)
