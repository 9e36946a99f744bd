"""The H-matrices of a network's layers for a budget that they share."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from hmatrix.allocation import Budget
from hmatrix.errors import ArgumentError, NetworkError
from hmatrix.nn.network.calibration import Inputs
from hmatrix.nn.network.fitting import Fitted, Fitter
from hmatrix.nn.network.progress import shown
from hmatrix.nn.network.replacing import Successors, successors
from hmatrix.nn.network.sharing import ErrorCurve, share
from hmatrix.nn.network.targets import Target


class Part(NamedTuple):
    """A weight, its fitter of H-matrices, and the weight of its errors."""

    target: Target
    fitter: Fitter
    sensitivity: float

    @property
    def new_bias(self) -> int:
        """Bytes of the biases that a correction adds."""
        modules = self.target.modules.values()
        return 4 * self.target.shape[0] * sum(getattr(module, "bias", 0) is None for module in modules)

    def bytes_after(self, fitted: Fitted) -> int:
        """Bytes of an H-matrix in the place of the weight, and of new biases."""
        return fitted.matrix.storage().total + (self.new_bias if fitted.bias_correction.any() else 0)


def parts_of(targets: list[Target], inputs: Inputs, folder: Path | None) -> list[Part]:
    """Return the weights that get H-matrices: those whose errors change the network's output.

    Parameters
    ----------
    targets
        The weights that were chosen.
    inputs
        Their inputs, and how much their errors count.
    folder
        The folder for results; ``None`` for nowhere.

    Raises
    ------
    NetworkError
        If there are none.
    """
    used = [number for number, target in enumerate(targets) if target.name not in inputs.unused]
    if not used:
        raise NetworkError("network", "calls none of the chosen layers", "choose layers that it calls as modules")
    # Nothing tells how much may be lost of a layer on which the output does not depend.
    parts = [
        Part(
            targets[number],
            Fitter(targets[number], inputs.samples[number], inputs.counts[number], inputs.derivatives[number], folder),
            inputs.sensitivities[number],
        )
        for number in used
        if inputs.sensitivities[number] > 0
    ]
    if not parts:
        mend = "choose others, or give several samples: of a single one nothing varies"
        raise NetworkError("network", "its output depends on none of the chosen layers", mend)
    return parts


class NetworkAllocator:
    """Chooses the H-matrices of all layers for one budget after another.

    Parameters
    ----------
    parts
        The weights.
    measured
        Whether there are calibration data, so that layers get corrections of their biases.
    progress
        Whether to show progress bars.
    """

    def __init__(self, parts: list[Part], *, measured: bool, progress: bool) -> None:
        self.parts = parts
        self.measured = measured
        self._progress = progress
        self._sharing = [part for part in parts if part.target.settings.budget is None]
        self._curves: dict[int, ErrorCurve] = {}

    @property
    def dense_bytes(self) -> int:
        """Bytes of the layers that share the budget, as they are."""
        return sum(part.target.dense_bytes for part in self._sharing)

    def reweigh(self, sensitivities: list[float]) -> None:
        """Give the errors of the layers other weights."""
        self.parts = [part._replace(sensitivity=value) for part, value in zip(self.parts, sensitivities, strict=True)]
        self._sharing = [part for part in self.parts if part.target.settings.budget is None]
        self._curves = {}

    @property
    def least(self) -> float:
        """The least storage that a budget can ask for, as a fraction."""
        return sum(float(curve.hull()[0][0]) for curve in self._all_curves()) / self.dense_bytes

    def successors(self, fitted: Sequence[Fitted | None]) -> Successors:
        """Return the layers that take the places of those that are replaced."""
        made: Successors = {}
        for part, result in zip(self.parts, fitted, strict=True):
            if result is not None:
                made |= successors(part.target, result)
        return made

    def fit(self, budget: Budget) -> list[Fitted | None]:
        """Return the H-matrix of each layer; ``None`` for one that stays as it is."""
        found: dict[int, Fitted | None] = {}
        for part in self.parts:
            if part.target.settings.budget is not None:
                found[id(part)] = part.fitter.fit(part.target.settings.budget)
        if self._sharing and budget.bounds_bytes:
            total = budget.bytes if budget.bytes is not None else (budget.storage or 0) * self.dense_bytes
            found |= self._shared(total, budget.time)
        elif self._sharing:
            found |= self._timed(budget)
        return [found[id(part)] for part in self.parts]

    def _timed(self, budget: Budget) -> dict[int, Fitted | None]:
        """Give each layer the same fraction of its time; small ones, for which it is impossible, stay as they are."""
        found: dict[int, Fitted | None] = {}
        refused: dict[int, ArgumentError] = {}
        for part in shown(self._sharing, "layers", enabled=self._progress):
            try:
                found[id(part)] = part.fitter.fit(budget)
            except ArgumentError as error:
                found[id(part)], refused[id(part)] = None, error
        if not any(found.values()):
            largest = max(self._sharing, key=lambda part: part.target.dense_bytes)
            refusal = refused[id(largest)]
            mend = f"{refusal.mend}; no other layer can do it either: products of small ones hardly become faster"
            raise ArgumentError(f"budget of layer {largest.target.name}", refusal.came, mend)
        return found

    def _shared(self, total: float, time: float | None) -> dict[int, Fitted | None]:
        curves = {id(part): curve for part, curve in zip(self._sharing, self._all_curves(), strict=True)}
        share(list(curves.values()), total)  # raises before anything is fitted
        # The others share again the bytes that one layer leaves; the largest, which leaves most, comes first.
        waiting = sorted(self._sharing, key=lambda part: -part.target.dense_bytes)
        found: dict[int, Fitted | None] = {}
        for number, part in enumerate(shown(list(waiting), "layers", enabled=self._progress)):
            size = share([curves[id(other)] for other in waiting[number:]], total)[0]
            result = None
            if size < part.target.dense_bytes:
                extra = part.new_bias if self.measured else 0
                result = self._fitted(part, size - extra, time)
                total -= part.bytes_after(result)
            else:
                total -= part.target.dense_bytes
            found[id(part)] = result
        return found

    def _fitted(self, part: Part, size: int, time: float | None) -> Fitted:
        """Fit a layer to its bytes, and to its time where that is possible and its weight multiplies anything."""
        if time is not None and not part.fitter.selects:
            with suppress(ArgumentError):
                return part.fitter.fit(Budget(bytes=size, time=time))
        return part.fitter.fit(Budget(bytes=size))

    def _all_curves(self) -> list[ErrorCurve]:
        for part in shown(self._sharing, "curves", enabled=self._progress and not self._curves):
            if id(part) not in self._curves:
                sizes, errors = part.fitter.curve()
                extra = part.new_bias if self.measured else 0
                self._curves[id(part)] = ErrorCurve(sizes + extra, part.sensitivity * errors, part.target.dense_bytes)
        return [self._curves[id(part)] for part in self._sharing]
