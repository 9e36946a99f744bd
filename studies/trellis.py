"""Make the values of a trellis: those that Lloyd's iteration ends at, for normally distributed entries.

    python studies/trellis.py 1|2|4 [--all]

prints the 64 values of as many bits, as cpp/packed.hpp has them less 128, and what they leave of the square of entries
that were not used. The iteration begins at quantiles of the normal distribution, in the order of windows that ends best
of 64; with `--all` they are tried once more, in some more minutes. All of it is in NumPy, and the reference that the
native encoder is tested with.
"""

import argparse

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

WINDOW = 6
COUNT = 1 << WINDOW
TOP = 127

BEST = {1: (29, 46), 2: (25, 44), 4: (23, 11)}
"""Factor and shift of the order that ends best."""

Floats = npt.NDArray[np.float64]
Windows = npt.NDArray[np.intp]


def best_windows(values: Floats, bits: int, words: Floats, tries: int = 32) -> Windows:
    """Return the windows ``(words, visits)`` that leave the least, by the Viterbi algorithm from each first state.

    Parameters
    ----------
    values
        Of the windows, ``(64,)``.
    bits
        Of an entry.
    words
        Entries in the order of their visits, ``(words, 32 / bits)``.
    tries
        First states that are tried, the most promising first.
    """
    states = 1 << (WINDOW - bits)
    everywhere = np.zeros((len(words), states))
    bounds = _walk(values, bits, words, everywhere)[0]
    order = np.argsort(bounds, axis=1)
    best, found = np.full(len(words), np.inf), np.zeros(words.shape, np.intp)
    for start in order.T[:tries]:
        alone = np.where(np.arange(states) == start[:, None], 0.0, np.inf)
        costs, lowest = _walk(values, bits, words, alone)
        cost = costs[np.arange(len(words)), start]
        better = cost < best
        best[better] = cost[better]
        found[better] = _trace(lowest, bits, start)[better]
    return found


def _walk(values: Floats, bits: int, words: Floats, cost: Floats) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Return the least cost of each last state, and the lowest bits of the window that leads to each state."""
    states, branches = cost.shape[1], 1 << bits
    windows = np.arange(states)[:, None] << bits | np.arange(branches)
    lowest = np.empty((words.shape[1], len(words), states), np.intp)
    for m, wanted in enumerate(words.T):
        costs = cost[:, windows & (states - 1)] + np.square(wanted[:, None, None] - values[windows])
        lowest[m] = costs.argmin(axis=2)
        cost = costs.min(axis=2)
    return cost, lowest


def _trace(lowest: npt.NDArray[np.intp], bits: int, state: npt.NDArray[np.intp]) -> Windows:
    """Return the windows of the paths that end in a state, one for each word."""
    mask = (1 << (WINDOW - bits)) - 1
    windows = np.empty((len(state), len(lowest)), np.intp)
    for m in reversed(range(len(lowest))):
        windows[:, m] = state << bits | lowest[m, np.arange(len(state)), state]
        state = windows[:, m] & mask
    return windows


def iterate(values: Floats, bits: int, words: Floats, tries: int) -> tuple[Floats, float]:
    """Return the means of what each window stands for, odd about the middle, and the error before."""
    windows = best_windows(values, bits, words, tries)
    error = float(np.square(words - values[windows]).mean())
    sums = np.bincount(windows.ravel(), words.ravel(), len(values))
    counts = np.bincount(windows.ravel(), minlength=len(values))
    sums, counts = sums - sums[::-1], counts + counts[::-1]
    return np.where(counts > 0, sums / np.maximum(counts, 1), values), error


def rounded(values: Floats) -> tuple[npt.NDArray[np.int64], float]:
    """Return values as integers to 127, and the scale that they have."""
    scale = float(np.abs(values).max()) / TOP
    return np.rint(values / scale).astype(np.int64), scale


def quantiles(factor: int, shift: int) -> Floats:
    """Return quantiles of the normal distribution, that of window w the ``factor * w + shift``-th of 64.

    With `shifts` the values are odd: those of a window and of its complement differ in the sign.
    """
    return norm.ppf(((np.arange(COUNT) * factor + shift) % COUNT + 0.5) / COUNT)


def shifts(factor: int) -> tuple[int, int]:
    """Return the shifts with which quantiles are odd."""
    return (factor - 1) // 2, ((factor - 1) // 2 + COUNT // 2) % COUNT


def main() -> None:
    """Print the values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bits", type=int, choices=(1, 2, 4))
    parser.add_argument("--all", action="store_true", help="try all orders")
    options = parser.parse_args()
    bits = options.bits
    random = np.random.default_rng(1)
    few, many, unseen = (
        random.standard_normal((entries * bits // 32, 32 // bits)) for entries in (24_000, 200_000, 200_000)
    )
    order = BEST[bits]
    if options.all:
        ends = {}
        for factor in range(1, COUNT, 2):
            for shift in shifts(factor):
                values = quantiles(factor, shift)
                for _ in range(15):
                    values, error = iterate(values, bits, few, 2)
                ends[factor, shift] = error
        order = min(ends, key=ends.__getitem__)
        print("the best order:", order)
    values = quantiles(*order)
    for _ in range(40):
        values, _ = iterate(values, bits, many, 8)
    integers, scale = rounded(values)
    error = np.square(unseen - integers[best_windows(integers * scale, bits, unseen)] * scale).mean()
    print(integers.tolist())
    print(f"leave {error:.5f} of the square of normally distributed entries, of which 127 stands for {127 * scale:.3f}")


if __name__ == "__main__":
    main()
