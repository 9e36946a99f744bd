"""Storage at one accuracy: blocks truncated to a tolerance against the allocator.

``python -m studies.allocator.fixed_accuracy`` takes the kernel 1/|x - y| on points of a sphere, and prints a table;
``python -m studies.allocator.fixed_accuracy --accuracy 0.01 studies/digits.toml`` takes the layer of a study.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from hmatrix._support.checks import check_number
from hmatrix._support.store import default_cache
from hmatrix._support.typing import FloatArray
from hmatrix.allocation import Allocator, Budget
from hmatrix.assembly import Sides, build, partition
from hmatrix.errors import HMatrixError
from hmatrix.lowrank.factors import Truncation
from hmatrix.matrix import HMatrix
from hmatrix.partitions.coordinates import Index, Points
from hmatrix.study.config.studyfile import read_study
from hmatrix.study.measure.subject import load_subject
from studies.allocator.frontier import leaf_shares
from studies.allocator.uniform import Uniform, fit_uniform

Found = TypeVar("Found")

_STEPS = 6
"""Corrections of a tolerance, or of a budget."""

_MARGIN = 0.02
"""Part of the accuracy by which they aim lower until one has reached it."""


@dataclass(frozen=True)
class AtAccuracy:
    """The bytes that one method needs for an accuracy.

    Parameters
    ----------
    method
        Its name.
    nbytes, dense_bytes
        Bytes of the matrix, and of the dense one in float32.
    error
        Relative, in the Frobenius norm.
    form
        For people.
    seconds
        Time of the search.
    """

    method: str
    nbytes: int
    dense_bytes: int
    error: float
    form: str
    seconds: float


def sphere(count: int) -> FloatArray:
    """Return points on the unit sphere, float64 ``(count, 3)``, evenly spread along a spiral (Fibonacci's)."""
    height = 1 - (2 * np.arange(count) + 1) / count
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)


def inverse_distance(points: FloatArray) -> FloatArray:
    """Return 1/|x - y| for all pairs of points ``(n, d)``, float32 ``(n, n)``, with zeros where x = y."""
    squares = np.square(points).sum(axis=1)
    distances = np.sqrt((squares[:, None] + squares - 2 * points @ points.T).clip(min=0))
    np.fill_diagonal(distances, np.inf)
    kernel: FloatArray = (1 / distances).astype(np.float32)
    return kernel


def at_accuracy(weight: FloatArray, coordinates: Sides | None, accuracy: float) -> Iterator[AtAccuracy]:
    """Measure the storage that a relative error needs: truncated blocks, shared bases, the allocator.

    Parameters
    ----------
    weight
        ``(m, n)``, float32.
    coordinates
        Coordinates of rows and columns; for ``None`` blocks are those of the index, and the allocator tries its own
        orders.
    accuracy
        Relative error, in the Frobenius norm.

    Yields
    ------
    AtAccuracy
        Nothing that misses the accuracy.

    Raises
    ------
    ArgumentError
        If an argument cannot be used.
    """
    check_number("accuracy", accuracy, above=0.0)
    given = Index() if coordinates is None else coordinates

    def truncated(rtol: float) -> HMatrix:
        return build(weight, coordinates=given, truncation=Truncation(rtol=rtol))

    start = time.perf_counter()
    matrix = truncated(accuracy)
    yield _row("SVD blocks, each to the accuracy", weight, matrix, _ranks(matrix), start)
    start = time.perf_counter()
    loose = search(truncated, lambda found: _error(weight, found), accuracy, start=accuracy)
    if loose:
        yield _row("SVD blocks, all together to the accuracy", weight, loose, _ranks(loose), start)
    start = time.perf_counter()
    tree = partition(weight.shape, coordinates=given)
    unit = float(np.sqrt(np.square(weight, dtype=np.float64).mean()))
    shared = search(
        lambda rtol: fit_uniform(weight, tree, rtol * unit), lambda found: _error(weight, found), accuracy, accuracy
    )
    if shared:
        yield _row("uniform H-matrix, all together to the accuracy", weight, shared, _bases(shared), start)
    start = time.perf_counter()
    allocator = Allocator(weight, coordinates=coordinates)
    costs, errors = allocator.curve()
    predicted = np.sqrt(errors.clip(min=0) / np.square(weight, dtype=np.float64).sum())
    smallest, largest = allocator.limits

    def allocated(wanted: float) -> tuple[HMatrix, str]:
        # The curve is convex in squares; between its corners a straight line in logarithms is near enough.
        logs = np.log(predicted.clip(min=1e-30))
        nbytes = float(np.exp(np.interp(-np.log(wanted), -logs, np.log(costs.clip(min=1)))))
        allocation = allocator.allocate(Budget(bytes=int(np.clip(nbytes, smallest, largest))))
        return allocation.matrix, leaf_shares(allocation)

    best = search(allocated, lambda found: _error(weight, found[0]), accuracy, start=accuracy)
    if best:
        yield _row("allocator", weight, *best, start)


def search(
    make: Callable[[float], Found], error: Callable[[Found], float], accuracy: float, start: float
) -> Found | None:
    """Return what `make` makes of the largest tolerance that is found to reach an accuracy; ``None`` if none did.

    The tolerance is corrected by how far the error missed, aiming a little lower until one does not miss, then halved
    between two of them.
    """
    best: Found | None = None
    low, high = 0.0, np.inf
    tolerance = start
    for _ in range(_STEPS):
        found = make(tolerance)
        reached = error(found)
        if reached <= accuracy:
            if tolerance >= low:
                best, low = found, tolerance
        else:
            high = min(high, tolerance)
        aim = accuracy if best is not None else (1 - _MARGIN) * accuracy
        guess = tolerance * aim / max(reached, accuracy * 1e-3)
        tolerance = guess if low < guess < high and abs(guess / tolerance - 1) > 1e-3 else float(np.sqrt(low * high))
        if not np.isfinite(tolerance) or tolerance <= 0:
            tolerance = guess
    return best


def markdown_lines(rows: Iterable[AtAccuracy]) -> Iterator[str]:
    """Iterate over the lines of a table, each as soon as its row is known."""
    yield "| method | bytes | of float32, % | error | form | s |"
    yield "| :-- | --: | --: | --: | :-- | --: |"
    for row in rows:
        share = f"{100 * row.nbytes / row.dense_bytes:.2f}"
        cells = [row.method, f"{row.nbytes:,}", share, f"{row.error:.2e}", row.form, f"{row.seconds:.0f}"]
        yield f"| {' | '.join(cells)} |"


def _row(method: str, weight: FloatArray, matrix: HMatrix | Uniform, form: str, start: float) -> AtAccuracy:
    seconds = time.perf_counter() - start
    nbytes = matrix.nbytes if isinstance(matrix, Uniform) else matrix.storage().total
    return AtAccuracy(method, nbytes, 4 * weight.size, _error(weight, matrix), form, seconds)


def _error(weight: FloatArray, matrix: HMatrix | Uniform) -> float:
    return float(np.linalg.norm(weight - matrix.to_dense()) / np.linalg.norm(weight))


def _ranks(matrix: HMatrix) -> str:
    ranks = [leaf.rank for leaf in matrix.leaves() if leaf.rank is not None]
    return f"{len(ranks)} blocks of rank up to {max(ranks, default=0)}, {len(matrix.near_field)} dense"


def _bases(matrix: Uniform) -> str:
    ranks = [basis.shape[1] for basis in matrix.row_bases.values()]
    return f"{len(ranks)} row bases of rank up to {max(ranks, default=0)}, {len(matrix.near)} dense blocks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of a study's first layer, or of the kernel on a sphere."""
    parser = argparse.ArgumentParser(description="Storage at one accuracy, of a layer or of 1/|x - y| on a sphere.")
    parser.add_argument("study", type=Path, nargs="?", help="a study file (.toml), for the layer of its first network")
    parser.add_argument("--points", type=int, default=4096, metavar="N", help="on the sphere")
    parser.add_argument("--accuracy", type=float, default=1e-4, metavar="X", help="relative, Frobenius norm")
    parser.add_argument("--cache", type=Path, default=default_cache(), metavar="DIR", help="where features are kept")
    options = parser.parse_args(arguments)
    try:
        weight, coordinates = _matrix(options)
        for line in markdown_lines(at_accuracy(weight, coordinates, options.accuracy)):
            print(line, flush=True)
    except HMatrixError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _matrix(options: argparse.Namespace) -> tuple[FloatArray, Points | None]:
    """Return the matrix that the command line names, and where its rows and columns lie, if they lie anywhere."""
    if options.study is None:
        points = sphere(options.points)
        return inverse_distance(points), Points(points)
    study = read_study(options.study)
    subject = load_subject(study.networks[0], study.data, options.cache)
    return subject.weight.astype(np.float32, copy=False), None


if __name__ == "__main__":
    sys.exit(main())
