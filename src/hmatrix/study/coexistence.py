"""Whether our threads and torch's slow each other: products that take turns, against each by itself.

Run ``python -m hmatrix.study.coexistence``.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from hmatrix._validation import check_integer
from hmatrix.assembly import quantize
from hmatrix.study.timing import threads

ROWS, COLUMNS = 4096, 4096
"""Large enough that both libraries use several threads."""


def pair() -> dict[str, Callable[[], object]]:
    """Return a product of ours and one of torch, each from its own matrix of the same shape."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    x = rng.standard_normal(COLUMNS).astype(np.float32)
    matrix = quantize(weight, "int8", activations="int8")
    linear, vector = torch.nn.Linear(COLUMNS, ROWS, bias=False), torch.from_numpy(x)
    return {"hmatrix int8": lambda: matrix @ x, "torch float32": lambda: linear(vector)}


def seconds_of(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Return the seconds of each of some calls that follow each other."""
    seconds = []
    for call in calls:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def measure(products: dict[str, Callable[[], object]], rounds: int, calls: int) -> dict[str, tuple[float, float]]:
    """Return the median seconds of each product, by itself and taking turns with the other.

    Parameters
    ----------
    products
        Two products, by name.
    rounds
        How often to alternate between the two ways.
    calls
        Of each product in a round and a way.
    """
    alone: dict[str, list[float]] = {name: [] for name in products}
    together: dict[str, list[float]] = {name: [] for name in products}
    for _ in range(rounds):
        for name, call in products.items():
            alone[name] += seconds_of([call] * calls)
        turns = seconds_of(list(products.values()) * calls)
        for place, name in enumerate(products):
            together[name] += turns[place :: len(products)]
    return {name: (float(np.median(alone[name])), float(np.median(together[name]))) for name in products}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m hmatrix.study.coexistence", description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="threads of each library (default: 2)")
    parser.add_argument("--rounds", type=int, default=40, help="alternations (default: 40)")
    given = parser.parse_args(arguments)
    check_integer("rounds", given.rounds, at_least=1)
    with torch.inference_mode(), threads(given.threads):
        found = measure(pair(), given.rounds, calls=25)
    print(f"{ROWS} x {COLUMNS}, one vector, {given.threads} threads\n")
    print("| product | by itself, µs | in turns, µs | ratio |\n| --- | ---: | ---: | ---: |")
    for name, (alone, together) in found.items():
        print(f"| {name} | {alone * 1e6:.0f} | {together * 1e6:.0f} | {together / alone:.2f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
