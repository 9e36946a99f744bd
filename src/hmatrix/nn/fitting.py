"""The H-matrices of a network's layers, each computed once for a budget, and kept in a folder if there is one."""

import hashlib
import json
import os
import pickle
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

import hmatrix.allocation
import hmatrix.encoding
import hmatrix.kernels
import hmatrix.precision
import hmatrix.trellis
from hmatrix import _core
from hmatrix._validation import FloatArray
from hmatrix.allocation import Allocator, Budget
from hmatrix.allocation.forms import Floats
from hmatrix.errors import FormatError, OutputError
from hmatrix.io import load, save
from hmatrix.matrix import HMatrix
from hmatrix.nn.derivatives import Factors
from hmatrix.nn.frequencies import Counts, frequencies
from hmatrix.nn.targets import Target


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
        Of its layer, ``(rows, n)``, or ``None``.
    counts
        How often its layer selected each row, ``(m,)``, or ``None``.
    derivatives
        Of the network's output by the weight, or ``None``.
    folder
        Where results are kept, so that an interrupted search goes on; ``None`` for nowhere.
    """

    def __init__(
        self,
        target: Target,
        inputs: FloatArray | None = None,
        counts: Counts | None = None,
        derivatives: Factors | None = None,
        folder: Path | None = None,
    ) -> None:
        self._target = target
        self._inputs = inputs
        self._counts = counts
        self._derivatives = derivatives
        self._folder = folder

    @property
    def selects(self) -> bool:
        """Whether its rows count as often as they were selected."""
        return self._counts is not None

    def curve(self) -> tuple[Floats, Floats]:
        """Return the predicted frontier: bytes, and squares of the relative error, ``(points,)``."""
        if (path := self._path("curve", "npz")) is not None and path.exists():
            with np.load(path) as file:
                return file["sizes"], file["errors"]
        sizes, errors = self._allocator.curve()
        # No budget may ask for less than the smallest matrix, whatever the curve estimates.
        smallest = self._allocator.limits[0]
        first = max(int(np.searchsorted(sizes, smallest, side="right")) - 1, 0)
        sizes = np.append(float(smallest), sizes[first + 1 :])
        errors = errors[first:]
        # The first point drops the whole matrix.
        errors = errors / errors[0] if errors[0] > 0 else errors
        if path is not None:
            np.savez(path, sizes=sizes, errors=errors)
        return sizes, errors

    def fit(self, budget: Budget) -> Fitted:
        """Return the H-matrix for a budget."""
        name = "-".join(f"{key}-{value}" for key, value in vars(budget).items() if value is not None)
        evidence, matrix = self._path(name, "json"), self._path(name, "safetensors")
        if evidence is not None and matrix is not None and evidence.exists():
            found = json.loads(evidence.read_text())
            correction = np.array(found.pop("bias_correction"), np.float32)
            arrangement = tuple(found.pop("arrangement"))
            try:
                return Fitted(load(matrix), correction, arrangement=arrangement, **found)
            except FormatError:
                evidence.unlink()
        allocation = self._allocator.allocate(budget, unbiased=self._target.settings.unbiased)
        fitted = Fitted(
            allocation.matrix,
            allocation.bias_correction,
            allocation.predicted_error,
            allocation.measured_error,
            allocation.arrangement,
            allocation.seconds,
        )
        if evidence is not None and matrix is not None:
            save(fitted.matrix, matrix)
            content = {key: value for key, value in vars(fitted).items() if key != "matrix"}
            content["bias_correction"] = fitted.bias_correction.tolist()
            # Written last, under its name when it is whole: it says that the matrix is there.
            temporary = evidence.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps(content))
            temporary.replace(evidence)
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
        settings = self._target.settings
        chosen = (_code_digest(), self._target.shape, settings.activations, settings.unbiased)
        digest = hashlib.sha256(repr(chosen).encode())
        digest.update(np.ascontiguousarray(self._target.weight).data)
        for given in (self._inputs, *(self._derivatives or ())):
            if given is not None:
                digest.update(np.ascontiguousarray(given).data)
        if self._counts is not None:
            digest.update(self._counts.data)
        if settings.coordinates is not None:
            digest.update(pickle.dumps(settings.coordinates))
        return digest.hexdigest()[:24]

    def _path(self, name: str, suffix: str) -> Path | None:
        if self._folder is None:
            return None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cache {self._folder}", f"cannot be made ({error.strerror})", "name a folder that you may write to"
            ) from error
        return self._folder / f"{self._key}-{name}.{suffix}"


@cache
def _code_digest() -> str:
    """Return a digest of the code that chooses and rounds H-matrices: what other code chose is chosen anew."""
    modules = (hmatrix.encoding, hmatrix.kernels, hmatrix.precision, hmatrix.trellis, _core)
    files = [*sorted(Path(hmatrix.allocation.__file__).parent.glob("*.py")), *(Path(str(m.__file__)) for m in modules)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
