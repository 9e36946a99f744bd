"""The H-matrices of a network's layers, each computed once for a budget, and kept in a folder if there is one."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hmatrix._support.machine import code_digest
from hmatrix._support.store import Shelf, Store
from hmatrix._support.typing import AnyArray, FloatArray, Floats64, Integers64
from hmatrix.allocation import Allocator, Budget
from hmatrix.matrix import HMatrix
from hmatrix.nn.network.derivatives import Factors
from hmatrix.nn.network.frequencies import frequencies
from hmatrix.nn.network.targets import Target
from hmatrix.packed.packed_blocks import PackedBlocks

_Result = TypeVar("_Result")

_CORRECTION = "bias_correction"


@dataclass(frozen=True, eq=False)
class Fitted:
    """The H-matrix of a layer, and the evidence for it; see `hmatrix.Allocation`."""

    matrix: HMatrix
    bias_correction: FloatArray
    predicted_error: float
    measured_error: float
    arrangement: tuple[str, str]
    seconds: float


class Fitter:
    """Fits H-matrices to one weight.

    Parameters
    ----------
    target
        The weight.
    inputs
        Inputs of its layer, ``(rows, n)``, or ``None``.
    counts
        Number of times its layer selected each row, ``(m,)``, or ``None``.
    derivatives
        Derivatives of the network's output by the weight, or ``None``.
    folder
        Folder of the results, so that an interrupted search goes on; ``None`` for none.
    """

    def __init__(
        self,
        target: Target,
        inputs: FloatArray | None = None,
        counts: Integers64 | None = None,
        derivatives: Factors | None = None,
        folder: Path | None = None,
    ) -> None:
        self._target = target
        self._inputs = inputs
        self._counts = counts
        self._derivatives = derivatives
        self._store = None if folder is None else Store(folder, Shelf.LAYERS)

    @property
    def selects(self) -> bool:
        """Whether its rows count as often as they were selected."""
        return self._counts is not None

    def curve(self) -> tuple[Floats64, Floats64]:
        """Return the predicted frontier: bytes, and squares of the relative error, ``(points,)``."""
        known = self._recall("curve", lambda arrays, _: (arrays["sizes"], arrays["errors"]))
        if known is not None:
            return known
        sizes, errors = self._allocator.curve()
        # No budget may ask for less than the smallest matrix, whatever the curve estimates.
        smallest = self._allocator.limits[0]
        first = max(int(np.searchsorted(sizes, smallest, side="right")) - 1, 0)
        sizes = np.append(float(smallest), sizes[first + 1 :])
        errors = errors[first:]
        # The first point drops the whole matrix.
        errors = errors / errors[0] if errors[0] > 0 else errors
        self._keep("curve", {"sizes": sizes, "errors": errors}, {})
        return sizes, errors

    def fit(self, budget: Budget) -> Fitted:
        """Return the H-matrix for a budget."""
        name = "-".join(f"{key}-{value}" for key, value in vars(budget).items() if value is not None)
        known = self._recall(name, _fitted)
        if known is not None:
            return known
        allocation = self._allocator.allocate(budget, unbiased=self._target.settings.unbiased)
        fitted = Fitted(
            allocation.matrix,
            allocation.bias_correction,
            allocation.predicted_error,
            allocation.measured_error,
            allocation.arrangement,
            allocation.seconds,
        )
        facts = dict(vars(fitted))
        arrays = {**facts.pop("matrix").pack().arrays(), _CORRECTION: facts.pop(_CORRECTION)}
        self._keep(name, arrays, facts)
        return fitted

    @cached_property
    def _allocator(self) -> Allocator:
        settings = self._target.settings
        columns, rows = self._derivatives or (None, None)
        return Allocator(
            self._target.weight,
            calibration=self._inputs,
            coordinates=settings.coordinates,
            activations=settings.activations,
            row_weights=None if self._counts is None else frequencies(self._counts),
            derivatives=columns,
            row_derivatives=rows,
        )

    @cached_property
    def _key(self) -> str:
        """Digest of all that the results depend on."""
        target, settings = self._target, self._target.settings
        digest = hashlib.sha256(repr((code_digest("study", "cli"), settings.activations, settings.unbiased)).encode())
        columns, rows = self._derivatives or (None, None)
        given = {
            "weight": target.weight,
            "inputs": self._inputs,
            "counts": self._counts,
            "derivatives": columns,
            "row_derivatives": rows,
        }
        if settings.coordinates is not None:
            # Where they lie, and not what says so: functions of the same name may differ.
            sides = settings.coordinates if isinstance(settings.coordinates, tuple) else (settings.coordinates,) * 2
            for number, (side, size) in enumerate(zip(sides, target.shape, strict=False)):
                supports = side(size)
                given |= {f"points {number}": supports.points, f"radius {number}": np.array(supports.radius)}
        for name, array in given.items():
            if array is not None:
                digest.update(repr((name, array.dtype.str, array.shape)).encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:24]

    def _recall(
        self, name: str, read: Callable[[dict[str, AnyArray], dict[str, Any]], _Result | None]
    ) -> _Result | None:
        """Return a result that was kept; ``None``, after a check that it can be kept, where there is none."""
        if self._store is None:
            return None
        known = self._store.recall(f"{self._key}-{name}", read)
        if known is None:
            self._store.check()
        return known

    def _keep(self, name: str, arrays: Mapping[str, AnyArray], facts: Mapping[str, Any]) -> None:
        if self._store is not None:
            self._store.keep(f"{self._key}-{name}", arrays, facts)


def _fitted(arrays: dict[str, AnyArray], facts: dict[str, Any]) -> Fitted:
    """Return the result that was kept of a layer."""
    correction = arrays.pop(_CORRECTION)
    arrangement = tuple(facts.pop("arrangement"))
    return Fitted(HMatrix(PackedBlocks.of_arrays(arrays)), correction, arrangement=arrangement, **facts)
