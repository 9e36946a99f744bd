"""Ablation of the forms of a leaf: the allocator without one kind after another.

    python -m studies.allocator.ablation digits|mobilenetv2|sphere|low-rank

prints a table of the output's error, relative: on the images that evaluate, or of the weight where there are none.
A form that is off keeps its cost, and gets the error of a dropped block, so that it is never chosen. This reaches
into the allocator; the package has no switch for it.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hmatrix._support.store import default_cache
from hmatrix._support.typing import Floats64
from hmatrix.allocation import Allocator, Budget
from hmatrix.allocation.search.candidates import Candidates, Levels
from hmatrix.allocation.search.depths import Depth
from hmatrix.allocation.search.leaf_forms import Form
from hmatrix.codes.precision import Precision
from hmatrix.partitions.coordinates import Points
from hmatrix.study.config.studyfile import read_study
from hmatrix.study.measure.subject import Subject, load_subject
from studies.allocator.blast import fit_blast, largest_rank
from studies.allocator.competitors import Approximation, Contender
from studies.allocator.fixed_accuracy import inverse_distance, sphere
from studies.allocator.frontier import Evaluation, Split
from studies.allocator.frontier_table import error

STORAGES = (0.03, 0.05, 0.07, 0.1, 0.125)
FOLDER = Path(__file__).parents[1]

Allowed = Callable[[Form, Levels], bool]

VARIANTS: dict[str, Allowed] = {
    "all forms": lambda _, __: True,
    "no sums of low rank and dense": lambda form, _: not (form.rank and form.dense is not None),
    "no int8, int4 factors (nor sums)": lambda form, _: not (form.rank and form.factors.is_integer),
    "no sums of two trellises": lambda form, _: form.dense not in (Depth.FIVE, Depth.SIX, Depth.SEVEN),
    "no parallel bits (nor 5 to 7)": lambda form, _: not set(form.planes) & {Precision.TRELLIS3, Precision.TRELLIS4P},
    "evenly spaced values only": lambda form, _: (
        not any(precision.trellis for precision in (*form.planes, form.factors))
    ),
    "no low rank": lambda form, _: not form.rank,
    "no dense integers": lambda form, _: not isinstance(form.dense, Depth),
    "float32 only": lambda form, _: (not form.planes and form.factors.bits == 32) or form.planes == (1,),
    "one block": lambda _, levels: levels == (0, 0),
}

_errors = Candidates.errors


def restrict(allowed: Allowed) -> None:
    """Turn off the forms that are not allowed."""

    def errors(self: Candidates, levels: Levels, chosen: slice = slice(None)) -> Floats64:
        found = _errors(self, levels, chosen)
        on = np.array([allowed(form, levels) for form in self.forms(levels)])
        return np.where(on, found, found[:, :, :1])

    Candidates.errors = errors  # type: ignore[method-assign]


def subject_of(name: str, cache: Path) -> tuple[Subject, Split, Points | None]:
    """Return what a name stands for, how its images are split, and its geometry."""
    if name in ("digits", "mobilenetv2"):
        study = read_study(FOLDER / {"digits": "digits.toml", "mobilenetv2": "mobilenetv2-sample.toml"}[name])
        split = Split.CLASSES if name == "mobilenetv2" else Split.IMAGES
        return load_subject(study.networks[0], study.data, cache), split, None
    if name == "sphere":
        points = sphere(1024)
        weight, coordinates = inverse_distance(points), Points(points)
    else:
        rng = np.random.default_rng(0)
        factors = rng.standard_normal((2, 1024, 16)).astype(np.float32)
        weight = factors[0] @ factors[1].T / 4 + 0.1 * rng.standard_normal((1024, 1024)).astype(np.float32)
        coordinates = None
    subject = Subject(name, "weight", "", weight, np.zeros(len(weight), np.float32), None)
    return subject, Split.IMAGES, coordinates


def main() -> int:
    """Print the table of one subject."""
    parser = argparse.ArgumentParser()
    parser.add_argument("subject", choices=("digits", "mobilenetv2", "sphere", "low-rank"))
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="VARIANT")
    options = parser.parse_args()
    subject, split, coordinates = subject_of(options.subject, options.cache)
    weight = subject.weight
    evaluation = Evaluation(subject, split)
    allocator = Allocator(weight, calibration=evaluation.calibration, coordinates=coordinates)
    smallest = allocator.limits[0]
    print("| without | " + " | ".join(f"{100 * storage:g} %" for storage in STORAGES) + " |")
    print("| :-- |" + " --: |" * len(STORAGES))
    for name in options.only:
        restrict(VARIANTS[name])
        # What was found with other forms.
        for layout in allocator._layouts.values():
            layout._pruners.clear()
        cells = []
        for storage in STORAGES:
            start = time.perf_counter()
            nbytes = max(smallest, int(storage * 4 * weight.size))
            allocation = allocator.allocate(Budget(bytes=nbytes))
            matrix = allocation.matrix
            made = Approximation(Contender.ALLOCATOR, matrix.to_dense(), matrix.apply, matrix.storage().total, "", 0.0)
            cells.append(error(evaluation.record(nbytes, made, allocation)))
            print(f"{name}, {storage}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
        print(f"| {name} | " + " | ".join(f"{cell:.4g}" for cell in cells) + " |", flush=True)
    for blocks in (4, 16):
        cells = []
        for storage in STORAGES:
            fit = fit_blast(weight, blocks, largest_rank(weight.shape, blocks, int(storage * 4 * weight.size)))
            dense = fit.to_dense()
            made = Approximation(Contender.BLAST, dense, lambda X, dense=dense: X @ dense.T, fit.nbytes, "", 0.0)
            cells.append(error(evaluation.record(fit.nbytes, made, None)))
        print(
            f"| BLAST, float32, {blocks} x {blocks} | " + " | ".join(f"{cell:.4g}" for cell in cells) + " |", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
