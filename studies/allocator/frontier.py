"""The frontier of a layer: the allocator and its competitors at equal bytes.

``python -m studies.allocator.frontier studies/mobilenetv2-sample.toml --split classes`` writes records, a table and a
figure into ``results/``. Half of the images calibrate: the allocator's second moments, and everybody's correction of
the bias. The other half evaluates.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path

import numpy as np

from hmatrix._support.files import write_file
from hmatrix._support.store import default_cache
from hmatrix._support.typing import Flags, FloatArray, Integers64
from hmatrix.allocation import Allocation, Allocator, Budget
from hmatrix.assembly import quantize
from hmatrix.codes.precision import Activations
from hmatrix.errors import ArgumentError, HMatrixError
from hmatrix.study.config.studyfile import read_study
from hmatrix.study.measure.environment import environment
from hmatrix.study.measure.records import AccuracyEvidence
from hmatrix.study.measure.subject import Subject, load_subject, paired
from studies.allocator.competitors import PLAIN, Approximation, Competitors, Contender, of_matrix
from studies.allocator.frontier_plot import plot_frontier
from studies.allocator.frontier_records import FrontierRecord
from studies.allocator.frontier_table import frontier_summary, frontier_table

STORAGES = (0.03, 0.05, 0.07, 0.1, 0.125, 0.25, 0.5, 1.0)
"""Budgets, as fractions of the float32 matrix; beside them there are those of plain int2, int4 and int8."""


class Split(Enum):
    """Choices of the images that calibrate: every other one, or those of every other class."""

    IMAGES = "images"
    CLASSES = "classes"

    def calibrates(self, labels: Integers64) -> Flags:
        """Return which of the images with these labels calibrate, ``(samples,)``; the others evaluate."""
        even: Flags = (np.arange(len(labels)) if self is Split.IMAGES else labels) % 2 == 0
        return even


def run_frontier(
    subject: Subject,
    split: Split = Split.IMAGES,
    storages: Sequence[float] = STORAGES,
) -> Iterator[FrontierRecord]:
    """Measure the allocator and its competitors at equal bytes.

    Parameters
    ----------
    subject
        The layer; without features errors are those of the weight.
    split
        Choice of the images that calibrate.
    storages
        Budgets, as fractions of the float32 matrix. Those of plain int2, int4 and int8 are added.

    Yields
    ------
    FrontierRecord
        Budget by budget, the allocator first.

    Raises
    ------
    ArgumentError
        If all images would calibrate, or all evaluate; or a budget cannot be met.
    """
    weight = subject.weight.astype(np.float32, copy=False)
    evaluation = Evaluation(subject, split)
    calibration = evaluation.calibration
    exact = Allocator(weight, calibration=calibration)
    allocators = {Contender.ALLOCATOR: exact}
    if calibration is not None:
        allocators[Contender.ALLOCATOR_UNBIASED] = exact
        allocators[Contender.ALLOCATOR_INT8] = Allocator(weight, calibration=calibration, activations=Activations.INT8)
    others = Competitors(weight)
    plain = {quantize(weight, precision).storage().total for precision in PLAIN.values()}
    smallest, largest = exact.limits
    asked = {min(int(storage * 4 * weight.size), largest) for storage in storages} | plain
    for budget in sorted(nbytes for nbytes in asked if nbytes >= smallest):
        for contender, allocator in allocators.items():
            start = time.perf_counter()
            allocation = allocator.allocate(Budget(bytes=budget), unbiased=contender is Contender.ALLOCATOR_UNBIASED)
            made = of_matrix(contender, allocation.matrix, leaf_shares(allocation), start)
            yield evaluation.record(budget, made, allocation)
        for made in others.within(budget):
            yield evaluation.record(budget, made, None)


class Evaluation:
    """Judges approximations of one layer on the images that do not calibrate."""

    def __init__(self, subject: Subject, split: Split) -> None:
        self._subject = subject
        self._environment = environment(1)
        self.calibration: FloatArray | None = None
        features = subject.features
        if features is None:
            return
        calibrates = split.calibrates(features.labels)
        if calibrates.all() or not calibrates.any():
            came = f"leaves {int(calibrates.sum())} of {len(calibrates)} images to calibrate"
            raise ArgumentError("split", came, "give images of both halves")
        self.calibration = features.inputs[calibrates]
        self._evaluates = ~calibrates
        self._mean = self.calibration.mean(axis=0)
        self._dense = features.inputs @ subject.weight.T + subject.bias
        self._right = self._rightly(self._dense)

    def record(self, budget: int, made: Approximation, allocation: Allocation | None) -> FrontierRecord:
        """Return the record of an approximation; `allocation` is the allocator's."""
        subject = self._subject
        difference = subject.weight - made.dense
        output_error, accuracy = self._on_images(made, difference)
        damping = allocation.damping if allocation else None
        return FrontierRecord(
            network=subject.network,
            layer=subject.layer,
            rows=len(subject.weight),
            columns=subject.weight.shape[1],
            budget=budget,
            contender=made.contender,
            nbytes=made.nbytes,
            form=made.form,
            weight_error=float(np.linalg.norm(difference) / np.linalg.norm(subject.weight)),
            output_error=output_error,
            accuracy=accuracy,
            predicted_error=allocation.predicted_error if allocation else None,
            measured_error=allocation.measured_error if allocation else None,
            damping=(damping.correlations, damping.weight, damping.variances) if damping else None,
            arrangement=allocation.arrangement if allocation else None,
            seconds=made.seconds,
            environment=self._environment,
        )

    def _on_images(self, made: Approximation, difference: FloatArray) -> tuple[float | None, AccuracyEvidence | None]:
        """Return output error and accuracy, with the bias corrected by the mean output lost in calibration."""
        features = self._subject.features
        if features is None:
            return None, None
        outputs = made.apply(features.inputs) + (self._subject.bias + difference @ self._mean)
        error = output_error(outputs[self._evaluates], self._dense[self._evaluates])
        return error, paired(self._rightly(outputs), self._right)

    def _rightly(self, outputs: FloatArray) -> Flags:
        """Return which of the images that evaluate are classified rightly."""
        features = self._subject.features
        if features is None:
            raise ArgumentError("subject", "has no images", "give one with features")
        right: Flags = features.classifier.predictions(outputs) == features.labels
        return right[self._evaluates]


def leaf_shares(allocation: Allocation) -> str:
    """Return which leaves an allocation has: precision, whether of low rank, and the share of the entries."""
    shares: dict[str, float] = {}
    for leaf in allocation.matrix.leaves():
        entries = (leaf.rows.stop - leaf.rows.start) * (leaf.columns.stop - leaf.columns.start)
        kind = leaf.precision.name.lower() if leaf.rank is None else f"rank in {leaf.precision.name.lower()}"
        name = "dropped" if leaf.rank == 0 else kind
        shares[name] = shares.get(name, 0.0) + entries / np.prod(allocation.matrix.shape)
    ordered = sorted(shares.items(), key=lambda share: -share[1])
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in ordered if share >= 0.005)


def output_error(outputs: FloatArray, dense: FloatArray) -> float:
    """Return the relative error of outputs ``(samples, out)``, each sample's mean over the outputs removed."""
    lost, kept = (array - array.mean(axis=1, keepdims=True) for array in (dense - outputs, dense))
    return float(np.linalg.norm(lost) / np.linalg.norm(kept))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study of a file's first network, and write ``frontier-NETWORK-LAYER`` records, table and figure."""
    parser = argparse.ArgumentParser(description="The allocator and its competitors at equal bytes.")
    parser.add_argument("study", type=Path, help="a study file (.toml)")
    parser.add_argument("--split", type=Split, choices=list(Split), default=Split.IMAGES, metavar="images|classes")
    parser.add_argument("--storages", type=float, nargs="+", default=STORAGES, metavar="X", help="0.03 0.05 ...")
    parser.add_argument("--output", type=Path, default=Path("results"), metavar="DIR")
    parser.add_argument("--cache", type=Path, default=default_cache(), metavar="DIR", help="where features are kept")
    options = parser.parse_args(arguments)
    try:
        study = read_study(options.study)
        subject = load_subject(study.networks[0], study.data, options.cache)
        records = []
        for record in run_frontier(subject, options.split, options.storages):
            records.append(record)
            print(f"{record.budget} {record.contender.value}: {record.seconds:.1f} s", file=sys.stderr, flush=True)
        prefix = f"frontier-{subject.network}-{subject.layer}".replace(":", "-")
        write_frontier(records, options.output, prefix)
    except HMatrixError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def write_frontier(records: Sequence[FrontierRecord], folder: Path, prefix: str) -> None:
    """Write ``<prefix>.jsonl``, ``<prefix>.md``, and the figure as ``<prefix>.png`` and ``<prefix>.svg``.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    plot_frontier(records, folder / prefix)
    write_file(folder / f"{prefix}.jsonl", "".join(f"{record.to_json()}\n" for record in records))
    write_file(folder / f"{prefix}.md", f"{frontier_summary(records)}\n{frontier_table(records)}")


if __name__ == "__main__":
    sys.exit(main())
