"""Make the values of a trellis: those that Lloyd's iteration ends at, for normally distributed entries.

    python -m studies.allocator.trellis_values trellis1|trellis2|trellis3|trellis4|trellis4p [--all]

prints the values of a precision, as cpp/kernels/precision.hpp has them less 128, and what they leave of the square of
entries that were not used. The iteration begins at quantiles of the normal distribution, in an order of windows that is
among the best after a few steps; with `--all` all orders are tried once more, in some more minutes. All of it is in
NumPy, and the reference that the native encoder is tested with.
"""

import argparse
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from hmatrix._support.typing import Floats64, Integers64, Positions

TOP = 127


@dataclass(frozen=True)
class Code:
    """Words of 32 bits that are read as rings.

    Parameters
    ----------
    ring
        Bits of an entry in such a word.
    parallel
        Its bits that lie elsewhere: the lowest of its window.
    window
        Bits that choose a value.
    order
        Factor and shift of the order that the iteration begins with.
    """

    ring: int
    parallel: int
    window: int
    order: tuple[int, int]

    @property
    def visits(self) -> int:
        """Entries of a word."""
        return 32 // self.ring

    @property
    def count(self) -> int:
        """Windows."""
        return 1 << self.window

    @property
    def states(self) -> int:
        """States: what two neighbouring windows share."""
        return 1 << (self.window - self.parallel - self.ring)

    def source(self, windows: Positions) -> Positions:
        """Return the states that windows lead on from."""
        return (windows >> self.parallel) & (self.states - 1)

    def target(self, windows: Positions) -> Positions:
        """Return the states that windows lead to."""
        return windows >> (self.parallel + self.ring)

    def places(self) -> Positions:
        """Return where each window stands in the order of its bits with the parallel ones highest."""
        windows = np.arange(self.count)
        return windows >> self.parallel | (windows & ((1 << self.parallel) - 1)) << (self.window - self.parallel)


CODES = {
    "trellis1": Code(1, 0, 6, (29, 46)),
    "trellis2": Code(2, 0, 6, (25, 44)),
    "trellis3": Code(1, 2, 7, (19, 9)),
    "trellis4": Code(4, 0, 6, (23, 11)),
    "trellis4p": Code(2, 2, 7, (7, 3)),
}


def best_windows(values: Floats64, code: Code, words: Floats64, tries: int = 32) -> Positions:
    """Return the windows ``(words, visits)`` that leave the least, by the Viterbi algorithm from each first state.

    Parameters
    ----------
    values
        Values of the windows, ``(windows,)``.
    code
        Code by which words are read.
    words
        Entries in the order of their visits, ``(words, visits)``.
    tries
        First states that are tried, the most promising first.
    """
    everywhere = np.zeros((len(words), code.states))
    bounds = _walk(values, code, words, everywhere)[0]
    order = np.argsort(bounds, axis=1)
    best, found = np.full(len(words), np.inf), np.zeros(words.shape, np.intp)
    for start in order.T[:tries]:
        alone = np.where(np.arange(code.states) == start[:, None], 0.0, np.inf)
        costs, chosen = _walk(values, code, words, alone)
        cost = costs[np.arange(len(words)), start]
        better = cost < best
        best[better] = cost[better]
        found[better] = _trace(chosen, code, start)[better]
    return found


def _walk(values: Floats64, code: Code, words: Floats64, cost: Floats64) -> tuple[Floats64, Positions]:
    """Return the least cost of each last state, and the window that leads to each state at each visit."""
    windows = np.arange(code.count).reshape(code.states, -1)
    chosen = np.empty((words.shape[1], len(words), code.states), np.intp)
    for m, wanted in enumerate(words.T):
        costs = cost[:, code.source(windows)] + np.square(wanted[:, None, None] - values[windows])
        chosen[m] = windows[:, 0] + costs.argmin(axis=2)
        cost = costs.min(axis=2)
    return cost, chosen


def _trace(chosen: Positions, code: Code, state: Positions) -> Positions:
    """Return the windows of the paths that end in a state, one for each word."""
    windows = np.empty((len(state), len(chosen)), np.intp)
    for m in reversed(range(len(chosen))):
        windows[:, m] = chosen[m, np.arange(len(state)), state]
        state = code.source(windows[:, m])
    return windows


def iterate(values: Floats64, code: Code, words: Floats64, tries: int) -> tuple[Floats64, float]:
    """Return the means of what each window stands for, odd about the middle, and the error before."""
    windows = best_windows(values, code, words, tries)
    error = float(np.square(words - values[windows]).mean())
    sums = np.bincount(windows.ravel(), words.ravel(), len(values))
    counts = np.bincount(windows.ravel(), minlength=len(values))
    sums, counts = sums - sums[::-1], counts + counts[::-1]
    return np.where(counts > 0, sums / np.maximum(counts, 1), values), error


def rounded(values: Floats64) -> tuple[Integers64, float]:
    """Return values as integers to 127, and the scale that they have."""
    scale = float(np.abs(values).max()) / TOP
    return np.rint(values / scale).astype(np.int64), scale


def quantiles(code: Code, factor: int, shift: int) -> Floats64:
    """Return quantiles of the normal distribution, for each window: at place p the ``factor * p + shift``-th.

    With `shifts` the values are odd: those of a window and of its complement differ in the sign.
    """
    return norm.ppf(((code.places() * factor + shift) % code.count + 0.5) / code.count)


def shifts(code: Code, factor: int) -> tuple[int, int]:
    """Return the shifts with which quantiles are odd."""
    return (factor - 1) // 2, ((factor - 1) // 2 + code.count // 2) % code.count


def main() -> None:
    """Print the values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("precision", choices=CODES)
    parser.add_argument("--all", action="store_true", help="try all orders")
    options = parser.parse_args()
    code = CODES[options.precision]
    random = np.random.default_rng(1)
    few, many, unseen = (
        random.standard_normal((entries // code.visits, code.visits)) for entries in (24_000, 200_000, 200_000)
    )
    if options.all:
        ends = {}
        for factor in range(1, code.count, 2):
            for shift in shifts(code, factor):
                values = quantiles(code, factor, shift)
                for _ in range(15):
                    values, error = iterate(values, code, few, 2)
                ends[factor, shift] = error
        best = sorted(ends, key=ends.__getitem__)[:5]
        print("the best orders so far:", *best)
    values = quantiles(code, *code.order)
    for _ in range(40):
        values, _ = iterate(values, code, many, 8)
    integers, scale = rounded(values)
    error = np.square(unseen - integers[best_windows(integers * scale, code, unseen)] * scale).mean()
    print(integers.tolist())
    print(f"leave {error:.5f} of the square of normally distributed entries, of which 127 stands for {127 * scale:.3f}")


if __name__ == "__main__":
    main()
