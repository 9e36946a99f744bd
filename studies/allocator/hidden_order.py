"""Whether the allocator finds an order that nobody tells it: a kernel matrix with rows and columns shuffled.

    python -m studies.allocator.hidden_order

prints the relative error in the Frobenius norm, for 1/|x - y| on a sphere: in the order found, in that of the index,
and in that of the points.
"""

import argparse

import numpy as np

import hmatrix as hm
from studies.allocator.fixed_accuracy import inverse_distance, sphere

STORAGES = (0.03, 0.05, 0.07, 0.1, 0.125)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1024, metavar="N")
    points = sphere(parser.parse_args().points)
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(len(points)), rng.permutation(len(points))
    shuffled = inverse_distance(points)[np.ix_(rows, columns)]
    allocators = {
        "found": hm.Allocator(shuffled),
        "index": hm.Allocator(shuffled, coordinates=hm.Index()),
        "points known": hm.Allocator(shuffled, coordinates=(hm.Points(points[rows]), hm.Points(points[columns]))),
    }
    print(f"| order | {' | '.join(f'{storage:.1%}' for storage in STORAGES)} |")
    print("| :-- |" + " --: |" * len(STORAGES))
    for name, allocator in allocators.items():
        errors = [allocator.allocate(hm.Budget(storage=storage)).measured_error for storage in STORAGES]
        print(f"| {name} | {' | '.join(f'{error:.2g}' for error in errors)} |", flush=True)


if __name__ == "__main__":
    main()
