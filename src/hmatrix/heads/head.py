"""Progressive heads: the dense layer's largest outputs for a fraction of its time.

A coarse product, of low rank and in int8 or int4 or with any H-matrix, gives every output roughly; only the rows that
can still be among the largest are multiplied exactly. The idea is that of SVD-softmax [1]_, with a number of rows that
follows from each input and a bound that is calibrated, or rigorous.

References
----------
.. [1] K. Shim, M. Lee, I. Choi, Y. Boo, W. Sung, "SVD-Softmax: Fast Softmax Approximation on Large Vocabulary Neural
   Networks", NeurIPS 2017.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from hmatrix._support.checks import as_array, as_floating, check_integer, check_number
from hmatrix._support.typing import FloatArray, Integers64
from hmatrix.codes.precision import Precision
from hmatrix.errors import ArgumentError
from hmatrix.heads.choice import Asked, choose
from hmatrix.heads.coarse_arguments import CoarseArguments
from hmatrix.heads.coarse_error import coarse_error
from hmatrix.heads.cost import Cost
from hmatrix.heads.dense_layer import DenseLayer
from hmatrix.heads.head_file import read_head, write_head
from hmatrix.heads.native import prepare_head
from hmatrix.heads.packed_head import PackedHead
from hmatrix.heads.rules import Margin, Rule
from hmatrix.heads.sizes import FINE
from hmatrix.matrix import HMatrix
from hmatrix.packed.products import Products
from hmatrix.packed.storage import Storage


class ProgressiveHead:
    """A layer ``x A^T + b`` that computes only its largest outputs exactly.

    Parameters
    ----------
    packed
        Its arrays.

    Notes
    -----
    Outputs that differ by less than the rounding of their sums are equal: they have the largest of their values, and
    the first row comes first. Products have the same bits on every kernel, unless the coarse part is an H-matrix with
    floating-point sums. An input with NaN or infinity in it, or one so large that its outputs overflow, makes all
    outputs NaN, and the largest are then the first rows. A head of one class refines it always; equal rows are all
    within each other's margin, and all refined, but with `FixedRows` the first ones, or where there are clusters, those
    of the first clusters.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> weight, inputs = rng.standard_normal((100, 32)), rng.standard_normal((200, 32))
    >>> head = hm.progressive(weight, calibration=inputs, agreement=0.9, ranks=[8])
    >>> head.save("head.safetensors")
    >>> values, rows = hm.ProgressiveHead.load("head.safetensors").topk(inputs, 5)
    >>> values.shape, rows.shape
    ((200, 5), (200, 5))
    """

    def __init__(self, packed: PackedHead) -> None:
        self._packed = packed
        self._product = prepare_head(packed)
        self.shape = packed.shape
        """Rows and columns of the weight."""
        self._products = Products(packed.shape, _FLOAT32, self._product.multiply, self._product.multiply_batch)
        self.multiply_at: Callable[[int, int, int], None] | None = getattr(self._product, "multiply_at", None)
        """The native product by addresses of x and y and the size of the batch; ``None`` where no kernel is native."""

    def __repr__(self) -> str:
        return f"ProgressiveHead(shape={self.shape}, {self.point}, storage: {self.storage().ratio:.1%} of dense)"

    @property
    def point(self) -> str:
        """The operating point, in words."""
        coarse = f"rank {self.rank} in {self.coarse_precision.name.lower()}"
        if (matrix := self.coarse) is not None:
            coarse = f"an H-matrix of {len(matrix.pack().leaves)} leaves in {matrix.storage().ratio:.1%} of dense"
        clusters = f", {self.clusters} clusters" if self.clusters else ""
        most = f"at most {self.most} " if self.most < self.shape[0] else ""
        return f"{coarse}, {most}rows in {self.precision.name.lower()}{clusters}"

    def __reduce__(self) -> tuple[type[Self], tuple[PackedHead]]:
        return type(self), (self._packed,)

    def __call__(self, x: npt.ArrayLike) -> FloatArray:
        """Return all outputs ``(m,)`` of x ``(n,)``, or ``(batch, m)`` of ``(batch, n)``; float32.

        Refined rows have their fine outputs, all others their coarse ones, or the next number below the largest
        refined one where that is less: the largest output is always a refined one. The rows of a cluster that is
        not looked into have the output of its centre, with their own biases.

        Raises
        ------
        ArgumentError
            If x has another shape or is not of real numbers.
        """
        return self._products.multiply(x)

    def topk(self, x: npt.ArrayLike, k: int = 1) -> tuple[FloatArray, Integers64]:
        """Return the k largest fine outputs of x ``(n,)`` or ``(batch, n)``, the largest first.

        At least k rows are refined, whatever the rule says.

        Returns
        -------
        values
            float32 ``(k,)`` or ``(batch, k)``.
        indices
            int64, the rows.

        Raises
        ------
        ArgumentError
            If x has another shape or is not of real numbers, or k is not between 1 and the number of rows.
        """
        if self._products.takes(x) and type(k) is int and 1 <= k <= self.shape[0]:
            found, rows = np.empty(k, _FLOAT32), np.empty(k, _INT64)
            self._product.largest_one(x, found, rows)
            return found, rows
        values, indices, _ = self._largest(x, k, counted=False)
        return (values, indices) if np.ndim(x) == 2 else (values[0], indices[0])

    def refined(self, x: npt.ArrayLike, k: int = 1) -> Integers64:
        """Return how many rows are refined for the k largest outputs: ``()`` or ``(batch,)``.

        Raises
        ------
        ArgumentError
            As `topk` does.
        """
        counts = self._largest(x, k, counted=True)[2]
        assert counts is not None
        return counts if np.ndim(x) == 2 else counts[0]

    def storage(self) -> Storage:
        """Return the bytes of its parts: fine rows (near field), coarse coefficients (far field), and all else."""
        return self._packed.storage()

    def coarse_error(self) -> float:
        """Return the relative error of the coarse part in the Frobenius norm."""
        return coarse_error(self._packed)

    @property
    def coarse(self) -> HMatrix | None:
        """The H-matrix that is the coarse part; ``None`` where that is of low rank."""
        return None if self._packed.matrix is None else HMatrix(self._packed.matrix)

    @property
    def rank(self) -> int:
        """Rank of the coarse part; 0 where that is an H-matrix."""
        return self._packed.rank

    @property
    def coarse_precision(self) -> Precision:
        """Precision of the coarse part."""
        return self._packed.coarse

    @property
    def most(self) -> int:
        """Most rows that are refined, where no more outputs are asked for."""
        return self._packed.sizes.most

    @property
    def clusters(self) -> int:
        """Clusters of rows; 0 where all rows are looked at."""
        return self._packed.sizes.clusters

    @property
    def precision(self) -> Precision:
        """Precision of the fine rows."""
        return self._packed.precision

    def pack(self) -> PackedHead:
        """Return its arrays."""
        return self._packed

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the head to a safetensors file, all of it or nothing.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        write_head(self._packed, Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: bool = True) -> Self:
        """Read a head that `save` wrote.

        Parameters
        ----------
        path
            The file.
        verify
            Whether it is checked against the digests that `save` wrote into it.

        Raises
        ------
        FormatError
            If the file is missing, truncated, damaged, of another kind or version, or its arrays do not fit together.
        """
        return cls(read_head(Path(path), verify=verify))

    def _largest(self, x: npt.ArrayLike, k: int, *, counted: bool) -> tuple[FloatArray, Integers64, Integers64 | None]:
        m, n = self.shape
        if check_integer("k", k, at_least=1) > m:
            raise ArgumentError("k", f"is {k}", f"give at most the number of rows, {m}")
        x = as_array("x", x)
        if x.ndim not in (1, 2) or x.shape[-1] != n:
            raise ArgumentError("x", f"has the shape {x.shape}", f"give ({n},) or (batch, {n})")
        rows = x[None] if x.ndim == 1 else x
        if rows.dtype != np.float32 or not rows.flags.c_contiguous:
            rows = np.ascontiguousarray(as_floating("x", rows), np.float32)
        values, indices = np.empty((len(rows), k), np.float32), np.empty((len(rows), k), np.int64)
        counts = np.empty(len(rows), np.int64) if counted else None
        self._product.largest(rows, values, indices, counts)
        return values, indices, counts


_FLOAT32, _INT64 = np.dtype(np.float32), np.dtype(np.int64)


def progressive(
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    *,
    calibration: npt.ArrayLike | None = None,
    agreement: float = 0.999,
    top: int = 1,
    rule: Rule = Margin(),
    ranks: Sequence[int] | None = None,
    precisions: Sequence[Precision | str] = FINE,
    coarse: HMatrix | None = None,
    coarse_precisions: Sequence[Precision | str] | None = None,
    cluster_rows: Sequence[int] | None = None,
    cost: Cost = Cost(),
) -> ProgressiveHead:
    """Make a progressive head of a dense layer, choosing its operating point for the least time.

    Parameters
    ----------
    weight
        A ``(m, n)``.
    bias
        b ``(m,)``, or ``None``.
    calibration
        Inputs of the layer ``(samples, n)``, like those that it will get. A rarer disagreement needs more of them: one
        in a thousand needs a thousand.
    agreement
        Part of the samples in which the head's `top` largest outputs are to be the dense layer's, or equal to them but
        for rounding.
    top
        Number of outputs that are to be the dense layer's; at most m count.
    rule
        Rule that says which rows are refined: `Margin`, `FixedRows` or `Rigorous`.
    ranks
        Ranks of the coarse part, to choose from; ``None`` is a list from 0 to 512.
    precisions
        Precisions of the fine rows, to choose from: float32, bfloat16, int8.
    coarse
        An H-matrix of the weight ``(m, n)`` that is the coarse part, with coefficients of at most float32, in the place
        of one of low rank: no `ranks`, `coarse_precisions` or `cluster_rows` beside it. It is best made without the
        calibration inputs: it would fit these better than others. With `Rigorous` its activations are exact.
    coarse_precisions
        Precisions of the coarse part, to choose from; ``None`` is int8 and int4, and without calibration int8.
    cluster_rows
        Most rows of a cluster, to choose from, 0 being no clusters; ``None`` is a list from 0 to 256 where there are
        8,192 rows or more, and no clusters elsewhere. `FixedRows` has none.
    cost
        Model of the seconds of a product.

    Raises
    ------
    ArgumentError
        If an argument cannot be used, or no choice reaches the agreement.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> weight, inputs = rng.standard_normal((100, 32)), rng.standard_normal((200, 32))
    >>> head = hm.progressive(weight, calibration=inputs, agreement=0.9, top=3, ranks=[8, 16])
    >>> outputs = head(inputs)
    >>> agreed = head.topk(inputs, 1)[1][:, 0] == np.argmax(inputs @ weight.T, axis=1)
    >>> outputs.shape, bool(agreed.mean() >= 0.8)
    ((200, 100), True)
    """
    layer = DenseLayer.of(weight, bias, calibration)
    if not 0 < check_number("agreement", agreement, above=0.0) < 1:
        raise ArgumentError("agreement", f"is {agreement}", "give a number between 0 and 1; for certainty, Rigorous()")
    top = min(check_integer("top", top, at_least=1), len(layer.weight))
    fine = tuple(Precision.of(precision) for precision in precisions)
    if not fine or not set(fine) <= set(FINE):
        raise ArgumentError("precisions", f"are {list(precisions)}", "give float32, bfloat16, int8 or some of them")
    arguments = CoarseArguments(coarse, ranks, coarse_precisions, cluster_rows)
    part = arguments.checked(layer.weight.shape, rule, calibrated=layer.calibration is not None)
    asked = Asked(top, agreement, rule, part, fine, cost)
    return ProgressiveHead(choose(layer.weight, layer.bias, layer.calibration, asked))
