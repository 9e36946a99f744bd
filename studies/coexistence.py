"""Whether our threads and torch's slow each other: products that take turns.

Two products that take turns throw each other's matrix out of the caches, whatever their threads do. So each is timed
in turns with the other, and in turns with one thread that reads as many bytes as the other.

Run ``python -m studies.coexistence``.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch

from hmatrix._support.checks import check_integer
from hmatrix._support.clock import in_turns, mean_seconds
from hmatrix._support.machine import threads
from hmatrix.assembly import quantize
from hmatrix.packed.kernels import read_words

ROWS, COLUMNS = 2048, 2048
"""Large enough that both libraries use several threads, small enough that the caches hold both matrices."""


@dataclass(frozen=True)
class TimedProduct:
    """A product, and the bytes of its matrix."""

    name: str
    call: Callable[[], object]
    nbytes: int

    def reading(self) -> Callable[[], object]:
        """Return what reads as many bytes, on one thread."""
        words = np.ones(self.nbytes // 4, np.uint32)
        return lambda: read_words(words)


def pair() -> tuple[TimedProduct, TimedProduct]:
    """Return a product of ours and one of torch, each from its own matrix of the same shape."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    x = rng.standard_normal(COLUMNS).astype(np.float32)
    matrix = quantize(weight, "int8", activations="int8")
    linear, vector = torch.nn.Linear(COLUMNS, ROWS, bias=False), torch.from_numpy(x)
    return (
        TimedProduct("hmatrix int8", lambda: matrix @ x, matrix.storage().total),
        TimedProduct("torch float32", lambda: linear(vector), weight.nbytes),
    )


def timed(calls: Sequence[Callable[[], object]], count: int) -> list[tuple[float, ...]]:
    """Return the seconds of each of `count` calls of some functions that take turns."""
    return list(zip(*islice(in_turns([partial(mean_seconds, call) for call in calls]), count), strict=True))


def measure(products: tuple[TimedProduct, TimedProduct], rounds: int, calls: int) -> dict[str, tuple[float, float]]:
    """Return the median seconds of each product: in turns with a mere reading, and in turns with the other.

    Parameters
    ----------
    products
        Two of them.
    rounds
        Number of alternations between the ways.
    calls
        Calls of each product in a round and a way.
    """
    apart: dict[str, list[float]] = {product.name: [] for product in products}
    together: dict[str, list[float]] = {product.name: [] for product in products}
    readings = [product.reading() for product in reversed(products)]
    for _ in range(rounds):
        for product, reading in zip(products, readings, strict=True):
            apart[product.name] += timed([product.call, reading], calls)[0]
        both = timed([product.call for product in products], calls)
        for product, times in zip(products, both, strict=True):
            together[product.name] += times
    return {name: (float(np.median(apart[name])), float(np.median(together[name]))) for name in apart}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m studies.coexistence", description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="threads of each library (default: 2)")
    parser.add_argument("--rounds", type=int, default=40, help="alternations (default: 40)")
    given = parser.parse_args(arguments)
    check_integer("rounds", given.rounds, at_least=1)
    with torch.inference_mode(), threads(given.threads):
        found = measure(pair(), given.rounds, calls=25)
    print(f"{ROWS} x {COLUMNS}, one vector, {given.threads} threads\n")
    print("| product | with a reading, µs | with the other, µs | ratio |\n| --- | ---: | ---: | ---: |")
    for name, (apart, together) in found.items():
        print(f"| {name} | {apart * 1e6:.0f} | {together * 1e6:.0f} | {together / apart:.2f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
