"""Predicted errors of every form of every block of two cluster trees."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from hmatrix._support.strips import strips
from hmatrix._support.typing import FloatArray, Floats64
from hmatrix.allocation.error.moments import Moments
from hmatrix.allocation.search.depths import Depth, errors_of, even_errors
from hmatrix.allocation.search.leaf_forms import DENSE_FORMS, Form, rank_errors, rank_forms, rank_grid
from hmatrix.allocation.search.sides import Side
from hmatrix.allocation.search.spectra import energies
from hmatrix.codes.precision import Precision, from_words, to_words
from hmatrix.packed.outliers import far_rows

_SUMS = 3
"""Levels whose blocks may be sums of low rank and a dense rest: small ones hardly ever gain by it."""

_ARE_INTEGERS = np.array([isinstance(form.dense, Depth) for form in DENSE_FORMS])

Levels: TypeAlias = tuple[int, int]
"""Levels of a block's clusters: that of the rows, that of the columns."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A block and its form.

    Parameters
    ----------
    rows, columns
        Ranges of tree positions.
    form
        Form in which it is stored.
    error
        Predicted error of that form.
    dense
        Errors of `DENSE_FORMS`, ``(forms,)``.
    """

    rows: slice
    columns: slice
    form: Form
    error: float
    dense: Floats64


class Candidates:
    """The error that matters of each form, for all pairs of clusters.

    The error is the one after error feedback: each column counts by its conditional variance (`Moments.innovations`).

    Parameters
    ----------
    weight
        ``(m, n)`` in tree order, float32.
    moments
        Moments of the columns in tree order.
    rows, columns
        The cluster trees.
    """

    def __init__(self, weight: FloatArray, moments: Moments, rows: Side, columns: Side) -> None:
        self.rows, self.columns = rows, columns
        self._starts = np.array([cluster.start for cluster in rows.levels[-1]])
        self._dense = [self._dense_errors(weight, moments, level) for level in range(columns.depth + 1)]
        self._rounded = [self._added_by_rounding(weight, moments, level) for level in range(columns.depth + 1)]
        self._ranks: dict[int, tuple[int, ...]] = {}
        self._low_rank: dict[int, FloatArray] = {}
        for level in range(min(rows.depth, columns.depth) + 1):
            self._add_low_rank(weight, moments, level)

    @property
    def rounds(self) -> bool:
        """Whether products with integers round their inputs."""
        return self._rounded[0] is not None

    def forms(self, levels: Levels) -> tuple[Form, ...]:
        """Return the forms that blocks of a pair of levels may take."""
        row_level, column_level = levels
        ranks = rank_forms(self._ranks[row_level], sums=row_level < _SUMS) if row_level == column_level else ()
        return (*DENSE_FORMS, *ranks)

    def errors(self, levels: Levels, chosen: slice = slice(None)) -> Floats64:
        """Return the errors of the blocks of some row clusters, ``(row clusters, column clusters, forms)``."""
        row_level, column_level = levels
        dense = self._of_blocks(self._dense[column_level], row_level, chosen)
        rounded = self._rounded[column_level]
        if rounded is not None:
            dense = dense + self._of_blocks(rounded, row_level, chosen)[:, :, None] * _ARE_INTEGERS
        if row_level != column_level:
            return dense
        return np.concatenate([dense, self._low_rank[row_level][chosen]], axis=2)

    def whole(self) -> list[Piece]:
        """Return the matrix as a single block in each form."""
        forms, errors = self.forms((0, 0)), self.errors((0, 0))[0, 0]
        place = self.rows.levels[0][0].slice, self.columns.levels[0][0].slice
        dense = errors[: len(DENSE_FORMS)]
        return [Piece(*place, form, float(error), dense) for form, error in zip(forms, errors, strict=True)]

    def _of_blocks(self, sums: Floats64, row_level: int, chosen: slice = slice(None)) -> Floats64:
        """Return the blocks' shares of sums over rows, ``(row clusters, column clusters, ...)``."""
        clusters = self.rows.levels[row_level][chosen]
        start = np.searchsorted(self._starts, [cluster.start for cluster in clusters])
        stop = np.searchsorted(self._starts, [cluster.stop for cluster in clusters])
        return sums[stop] - sums[start]

    def _add_low_rank(self, weight: FloatArray, moments: Moments, level: int) -> None:
        rows, columns = self.rows.levels[level], self.columns.levels[level]
        ranks = rank_grid(int(min(self.rows.sizes[level].max(), self.columns.sizes[level].max())))
        dense = self._of_blocks(self._dense[level], level)
        sums = self._rounded[level]
        rounded = None if sums is None else self._of_blocks(sums, level)
        scales = np.sqrt(moments.innovations)
        with_sums = level < _SUMS
        errors = np.empty((len(rows), len(columns), len(rank_forms(ranks, sums=with_sums))), np.float32)
        for c, column in enumerate(columns):
            strip = weight[:, column.slice]
            weighted = strip if moments.root is None else strip @ moments.root[column.slice, column.slice]
            for r, row in enumerate(rows):
                of_outputs = energies(weighted[row.slice])
                of_entries = of_outputs if with_sums else None
                if with_sums and moments.root is not None:
                    of_entries = energies(strip[row.slice] * scales[column.slice])
                added = None if rounded is None else float(rounded[r, c])
                errors[r, c] = rank_errors(of_outputs, of_entries, dense[r, c], ranks, added)
        self._ranks[level], self._low_rank[level] = ranks, errors

    def _dense_errors(self, weight: FloatArray, moments: Moments, level: int) -> Floats64:
        """Return the errors of `DENSE_FORMS`, summed over rows, ``(last row clusters + 1, column clusters, forms)``."""
        m = len(weight)
        weights = moments.innovations
        clusters = self.columns.levels[level]
        errors = np.zeros((m, len(clusters), len(DENSE_FORMS)))
        for c, cluster in enumerate(clusters):
            block, own = weight[:, cluster.slice], weights[cluster.slice]
            even = {precision: even_errors(block, precision, own, every=4) for precision in {d.even for d in Depth}}
            far = far_rows(block)
            for f, form in enumerate(DENSE_FORMS):
                if isinstance(form.dense, Depth):
                    errors[:, c, f] = form.dense.left * even[form.dense.even]
                    # What a trellis leaves of rows with an outlier is no fixed part of what even values leave.
                    if len(far) and form.dense.value[0] is not form.dense.even:
                        errors[far, c, f] = errors_of(block[far], form.dense, own)
                elif form.dense is None:
                    strip = block if moments.root is None else block @ moments.root[cluster.slice, cluster.slice]
                    errors[:, c, f] = np.square(strip).sum(axis=1)
                elif form.dense is Precision.BFLOAT16:
                    errors[:, c, f] = _errors_of_bfloat16(block, own)
        return self._summed(errors)

    def _added_by_rounding(self, weight: FloatArray, moments: Moments, level: int) -> Floats64 | None:
        """Return the errors of int8 activations, summed over rows, ``(last row clusters + 1, column clusters)``."""
        if moments.rounded is None:
            return None
        clusters = self.columns.levels[level]
        added = np.empty((len(weight), len(clusters)))
        for c, cluster in enumerate(clusters):
            of_inputs = moments.rounded.added(cluster.slice)
            for rows in strips(len(weight)):
                added[rows, c] = np.square(weight[rows, cluster.slice]) @ of_inputs
        return self._summed(added)

    def _summed(self, of_rows: Floats64) -> Floats64:
        """Return sums over the last level's row clusters, up to each of them."""
        blocks = np.add.reduceat(of_rows, self._starts, axis=0)
        return np.concatenate([np.zeros_like(blocks[:1]), np.cumsum(blocks, axis=0)])


def _errors_of_bfloat16(block: FloatArray, weights: FloatArray) -> Floats64:
    """Return the weighted squared error of each row in bfloat16 ``(m,)``."""
    errors = np.empty(len(block))
    # Conversion takes several arrays as large as what is converted.
    for rows in strips(len(block)):
        strip = block[rows]
        rounded = from_words(to_words(strip, Precision.BFLOAT16), Precision.BFLOAT16, strip.shape[1])
        errors[rows] = np.square(strip - rounded) @ weights
    return errors
