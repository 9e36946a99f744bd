"""Budgets of time: what a head takes that was allocated by the model of this machine's kernel, and what it loses.

    HMATRIX_DATA=FOLDER python -m studies.allocator.times [studies/mobilenetv2-sample.toml]

The images of even-numbered classes calibrate, those of odd-numbered ones are evaluated; one vector, one thread, int8
activations, all products alternating in one run. Fractions are of the fastest dense float32 product.
"""

import argparse
from pathlib import Path

import numpy as np

import hmatrix as hm
from hmatrix._support.machine import threads
from hmatrix._support.memory import aligned
from hmatrix._support.store import default_cache
from hmatrix.study.config.studyfile import read_study
from hmatrix.study.measure.subject import load_subject
from hmatrix.study.measure.timing import WARMING, alternate, dense_products, product_with
from studies.allocator.frontier import output_error

BUDGETS = (
    *(hm.Budget(time=time) for time in (0.15, 0.17, 0.2, 0.25, 0.3, 0.5)),
    *(hm.Budget(storage=storage) for storage in (0.125, 0.2, 0.25)),
    *(hm.Budget(storage=storage, time=time) for storage, time in ((0.125, 0.2), (0.2, 0.25))),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, nargs="?", default=Path(__file__).parents[1] / "mobilenetv2-sample.toml")
    options = parser.parse_args()
    study = read_study(options.study)
    subject = load_subject(study.networks[0], study.data, default_cache())
    assert subject.features is not None
    weight, X, labels = subject.weight, subject.features.inputs, subject.features.labels
    seen = labels % 2 == 0
    wanted = X[~seen] @ weight.T + subject.bias
    allocator = hm.Allocator(weight, calibration=X[seen], activations="int8")
    found = [allocator.allocate(budget, unbiased=True) for budget in BUDGETS]
    x = aligned(X[~seen][0])
    with threads(1):
        dense = dense_products(weight, x)
        ours = {str(number): product_with(allocation.matrix, x) for number, allocation in enumerate(found)}
        times = {time.contender: time.median for time in alternate({**dense, **ours}, warming=WARMING)}
    fastest = min(times[name] for name in dense)
    print(f"fastest dense product: {1e6 * fastest:.1f} µs\n")
    print("| storage asked | time asked | storage | time | error of the output | top-1 lost |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    right = wanted.argmax(axis=1) == labels[~seen]
    for number, (budget, allocation) in enumerate(zip(BUDGETS, found, strict=True)):
        given = allocation.matrix.apply(X[~seen]) + subject.bias + allocation.bias_correction
        lost = 100 * (np.mean(right) - np.mean(given.argmax(axis=1) == labels[~seen]))
        asked = ["" if value is None else f"{value:.1%}" for value in (budget.storage, budget.time)]
        cells = [
            *asked,
            f"{allocation.matrix.storage().ratio:.1%}",
            f"{times[str(number)] / fastest:.1%}",
            f"{output_error(given, wanted):.4f}",
            f"{lost:z.1f}",
        ]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
