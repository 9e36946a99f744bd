"""The table of the leaves that pieces become."""

from collections.abc import Iterator, Sequence

import numpy as np

from hmatrix._support.typing import IndexArray
from hmatrix.allocation.search.candidates import Piece
from hmatrix.allocation.search.leaf_forms import Form
from hmatrix.codes.precision import Precision
from hmatrix.packed.schedule import DENSE


def leaf_table(pieces: Sequence[Piece]) -> IndexArray:
    """Return the table of the leaves that pieces become, before they are made."""
    rows = []
    for piece in pieces:
        place = (piece.rows.start, piece.rows.stop, piece.columns.start, piece.columns.stop)
        rows += [(*place, rank, precision, 0) for rank, precision in _leaves(piece.form)]
    return np.array(rows, np.int32)


def _leaves(form: Form) -> Iterator[tuple[int, Precision]]:
    """Iterate over ranks and precisions of a form's leaves."""
    if form.rank:
        yield form.rank, form.factors
    for plane in form.planes:
        yield DENSE, plane
    if not form.rank and not form.planes:
        yield 0, Precision.FLOAT32
