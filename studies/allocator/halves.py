"""One split of few images says little: heads of a classifier on random halves of the classes, in turn.

    HMATRIX_DATA=FOLDER python -m studies.allocator.halves [studies/mobilenetv2-sample.toml] [--halves 6]

The images of one half of the classes calibrate, those of the other are evaluated. It prints, on average over the
halves, what the allocator loses with the least error and with outputs that keep their size, and how often the largest
output of a progressive head is the dense layer's.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.special import log_softmax

import hmatrix as hm
from hmatrix._support.store import default_cache
from hmatrix._support.typing import Flags, FloatArray, Integers64
from hmatrix.study.config.studyfile import read_study
from hmatrix.study.measure.subject import load_subject
from studies.allocator.frontier import output_error

STORAGES = (0.03, 0.05, 0.07, 0.1, 0.125)
AGREEMENTS = (0.99, 0.995, 0.999)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, nargs="?", default=Path(__file__).parents[1] / "mobilenetv2-sample.toml")
    parser.add_argument("--halves", type=int, default=6, help="an even number: each half calibrates once")
    options = parser.parse_args()
    hm.set_num_threads(1)
    study = read_study(options.study)
    subject = load_subject(study.networks[0], study.data, default_cache())
    assert subject.features is not None
    weight, bias, X, labels = subject.weight, subject.bias, subject.features.inputs, subject.features.labels
    dense = X @ weight.T + bias
    allocated: dict[tuple[float, bool], list[tuple[float, ...]]] = defaultdict(list)
    agreed: dict[float, list[float]] = defaultdict(list)
    for seen in halves(labels, options.halves):
        wanted = dense[~seen]
        allocator = hm.Allocator(weight, calibration=X[seen])
        for storage in STORAGES:
            for unbiased in (False, True):
                found = allocator.allocate(hm.Budget(storage=storage), unbiased=unbiased)
                given = found.matrix.apply(X[~seen]) + bias + found.bias_correction
                allocated[storage, unbiased].append(compared(given, wanted, labels[~seen]))
        for agreement in AGREEMENTS:
            head = hm.progressive(weight, bias, calibration=X[seen], agreement=agreement)
            largest = head.topk(X[~seen])[1][:, 0]
            agreed[agreement].append(float(np.mean(largest == wanted.argmax(axis=1))))
    print("| storage | outputs | error | divergence | same largest output | top-1 lost |")
    print("| ---: | :-- | ---: | ---: | ---: | ---: |")
    for (storage, unbiased), values in allocated.items():
        error, divergence, same, lost = np.mean(values, axis=0)
        name = "of their own size" if unbiased else "of least error"
        print(f"| {storage:.1%} | {name} | {error:.4f} | {divergence:.4f} | {same:.1%} | {lost:z.2f} |")
    print("\n| progressive head, asked | same largest output | least, most |")
    print("| ---: | ---: | ---: |")
    for agreement, parts in agreed.items():
        print(f"| {agreement:.1%} | {np.mean(parts):.2%} | {min(parts):.1%}, {max(parts):.1%} |")


def halves(labels: Integers64, count: int) -> Iterator[Flags]:
    """Iterate over which images calibrate: even and odd classes first, then random halves and what they leave."""
    rng = np.random.default_rng(0)
    classes = int(labels.max()) + 1
    chosen = np.arange(classes) % 2 == 0
    for number in range(count):
        if number and number % 2 == 0:
            chosen = rng.permutation(classes) < classes / 2
        yield (chosen if number % 2 == 0 else ~chosen)[labels]


def compared(given: FloatArray, wanted: FloatArray, labels: Integers64) -> tuple[float, ...]:
    """Return error (means over classes removed), Kullback-Leibler divergence, same largest output, top-1 lost."""
    ours, theirs = (log_softmax(outputs.astype(np.float64), axis=1) for outputs in (given, wanted))
    divergence = (np.exp(theirs) * (theirs - ours)).sum(axis=1).mean()
    largest, dense = given.argmax(axis=1), wanted.argmax(axis=1)
    lost = 100 * (np.mean(dense == labels) - np.mean(largest == labels))
    return (
        output_error(given, wanted),
        float(divergence),
        float(np.mean(largest == dense)),
        float(lost),
    )


if __name__ == "__main__":
    main()
