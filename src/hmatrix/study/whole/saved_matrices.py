"""H-matrices in files: one of `hmatrix.save`, or the layers of a compressed network."""

from collections import Counter
from pathlib import Path

import hmatrix
import hmatrix.nn as hnn
from hmatrix.errors import ArgumentError
from hmatrix.io import is_matrix
from hmatrix.matrix import HMatrix


def saved_matrices(path: Path, layer: str | None) -> dict[str, HMatrix]:
    """Read the H-matrices of a file by the names of their layers, or one of them.

    Raises
    ------
    FormatError
        If the file holds neither a matrix nor a network.
    ArgumentError
        If there is no such layer, or no H-matrix at all.
    """
    if is_matrix(path):
        if layer is not None:
            raise ArgumentError("--layer", f"was given, but {path} holds a single matrix", "leave it out")
        return {path.stem: hmatrix.load(path)}
    header = hnn.read_header(path)
    if not header.layers:
        came = f"holds no H-matrix, but a progressive head, {', '.join(header.heads)}"
        raise ArgumentError(f"file {path}", came, "judge it by hmatrix evaluate")
    return {name: hnn.load_matrix(path, name) for name in (header.layers if layer is None else [layer])}


def describe(name: str, matrix: HMatrix) -> str:
    """Return one line that describes a matrix."""
    storage = matrix.storage()
    kinds = Counter(
        f"{'dense' if leaf.rank is None else f'rank {leaf.rank}'} {leaf.precision.name.lower()}"
        for leaf in matrix.leaves()
    )
    leaves = ", ".join(f"{count} x {kind}" if count > 1 else kind for kind, count in kinds.most_common(6))
    rest = f", and {len(kinds) - 6} other kinds" if len(kinds) > 6 else ""
    shape = f"{matrix.shape[0]} x {matrix.shape[1]}"
    return f"{name}: {shape}, {storage.total / 1e3:.1f} kB ({storage.ratio:.1%} of float32): {leaves}{rest}"
