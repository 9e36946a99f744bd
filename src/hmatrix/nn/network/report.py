"""Reports of the compression of a network's layers."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from hmatrix.matrix import HMatrix
from hmatrix.nn.network.allocating import Part
from hmatrix.nn.network.fitting import Fitted
from hmatrix.nn.network.targets import Target

_NEVER_CALLED = "never called"
_DOES_NOT_PAY = "as it is"
_IDLE = "changes nothing"

_RUINED = 0.5
"""Change of the output, in units of its variance, above which a network is told to be lost."""


@dataclass(frozen=True)
class LayerReport:
    """Report of the compression of one weight.

    Parameters
    ----------
    names
        Names of the layers that have it.
    kind
        Type of the first of them.
    shape
        Shape of the matrix, ``(m, n)``.
    before, after
        Bytes of everything that the product needs, without biases that were there before; the schedule of the product
        is made anew wherever the network is loaded, and is not stored.
    sensitivity
        Mean square change of the network's output, in proportion to its variance, per square of the predicted relative
        error of this layer's output; ``None`` where it was not measured.
    ranks
        Ranks of the low-rank leaves, rising, without repetition.
    precisions
        Number of leaves of each precision.
    predicted_error, measured_error
        Relative error of the layer's output, as in `hmatrix.allocation.Allocation`; with calibration data, as the
        network's output depends on it. `predicted_error` treats rows as independent; `measured_error` includes
        cancellation between rows, and is often less. ``None`` for a layer that stays as it is.
    arrangement
        Order of rows and of columns.
    seconds
        Time that its H-matrix took.
    note
        Reason for which it stays as it is.

    Examples
    --------
    >>> layer = hnn.LayerReport(("fc",), "Linear", (48, 32), before=6144, after=1536, precisions=(("INT8", 1),))
    >>> layer.after / layer.before
    0.25
    """

    names: tuple[str, ...]
    kind: str
    shape: tuple[int, int]
    before: int
    after: int
    sensitivity: float | None = None
    ranks: tuple[int, ...] = ()
    precisions: tuple[tuple[str, int], ...] = ()
    predicted_error: float | None = None
    measured_error: float | None = None
    arrangement: tuple[str, str] | None = None
    seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Trial:
    """One network that a search for the least storage tried.

    Parameters
    ----------
    storage
        Storage that the layers were allowed, as a fraction.
    drop
        Drop of the score.
    interval
        Its 95 % interval, where the score is a mean over samples.
    passed
        Whether it fell by no more than was allowed.

    Examples
    --------
    >>> hnn.Trial(storage=0.25, drop=0.4, interval=(-0.2, 1.0), passed=False).passed
    False
    """

    storage: float
    drop: float
    interval: tuple[float, float] | None
    passed: bool


@dataclass(frozen=True)
class Report:
    """Report of the compression of a network, layer by layer.

    Parameters
    ----------
    layers
        Reports of the chosen layers, in the network's order.
    network_before, network_after
        Bytes of the whole network: its parameters and buffers as they are stored.
    output_change
        Mean square change of the network's output on the first calibration data, in proportion to its variance;
        ``None`` without any.
    trials
        Trials of a search for the least storage, in their order.
    seconds
        Time of the whole compression.

    Examples
    --------
    >>> layer = hnn.LayerReport(("fc",), "Linear", (48, 32), before=6144, after=1536)
    >>> report = hnn.Report((layer,), network_before=6272, network_after=1664)
    >>> report.before, report.after, report.ratio
    (6144, 1536, 0.25)
    """

    layers: tuple[LayerReport, ...]
    network_before: int
    network_after: int
    output_change: float | None = None
    trials: tuple[Trial, ...] = ()
    seconds: float = 0.0

    @property
    def before(self) -> int:
        """Bytes of the chosen layers before."""
        return sum(layer.before for layer in self.layers)

    @property
    def after(self) -> int:
        """Bytes of the chosen layers after."""
        return sum(layer.after for layer in self.layers)

    @property
    def ratio(self) -> float:
        """`after` as a fraction of `before`."""
        return self.after / self.before

    @property
    def bracket(self) -> tuple[float, float] | None:
        """The largest storage that lost too much, and the least that did not; ``None`` without a search."""
        if not self.trials:
            return None
        passed = min((trial.storage for trial in self.trials if trial.passed), default=1.0)
        failed = (trial.storage for trial in self.trials if not trial.passed and trial.storage < passed)
        return max(failed, default=0.0), passed

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {**asdict(self), "before": self.before, "after": self.after, "ratio": self.ratio}

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(self.to_dict(), indent=1)

    def __str__(self) -> str:
        header = ("layer", "shape", "before", "after", "%", "ranks", "leaves", "predicted", "measured", "seconds")
        rows = [header, *(_row(layer) for layer in self.layers)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
        left = {0, 5, 6}
        lines = [
            "  ".join(
                cell.ljust(width) if i in left else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        lines.append("")
        lines.append(
            f"layers   {_megabytes(self.before)} -> {_megabytes(self.after)} ({self.ratio:.1%}) in use; "
            f"network {_megabytes(self.network_before)} -> {_megabytes(self.network_after)} "
            f"({self.network_after / self.network_before:.1%}) as stored; {self.seconds:.0f} s"
        )
        if self.output_change is not None:
            line = f"output   changed by {self.output_change:.2g} of its variance, on the first calibration data"
            lines.append(line + (": little of the network is left" if self.output_change > _RUINED else ""))
        for trial in self.trials:
            interval = ""
            if trial.interval is not None:
                interval = ", 95 % interval {:+.2f} to {:+.2f}".format(*trial.interval)
            verdict = "kept" if trial.passed else "too much"
            lines.append(f"trial    {trial.storage:.2%} of the storage: drop {trial.drop:+.3f}{interval}: {verdict}")
        if (bracket := self.bracket) is not None:
            lines.append(f"search   the least storage lies between {bracket[0]:.2%} and {bracket[1]:.2%}")
        return "\n".join(lines)


def layer_reports(
    targets: list[Target], unused: set[str], parts: list[Part], fitted: list[Fitted | None], *, measured: bool
) -> tuple[LayerReport, ...]:
    """Return what became of each weight that was chosen.

    Parameters
    ----------
    targets
        The weights.
    unused
        The names of those that the network never called.
    parts, fitted
        Those whose errors change the output, and their H-matrices; ``None`` for one that stays as it is.
    measured
        Whether sensitivities were measured.
    """
    known = {part.target.name for part in parts}
    return (
        *(
            _layer_report(part, result, part.sensitivity if measured else None)
            for part, result in zip(parts, fitted, strict=True)
        ),
        *(_left(target, _NEVER_CALLED) for target in targets if target.name in unused),
        *(_left(target, _IDLE) for target in targets if target.name not in known | unused),
    )


def stored_bytes(model: nn.Module) -> int:
    """Return the bytes of a network's parameters and buffers, each counted once."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensor.nbytes for tensor in tensors.values())


def _layer_report(part: Part, fitted: Fitted | None, sensitivity: float | None) -> LayerReport:
    target = part.target
    if fitted is None:
        return _left(target, _DOES_NOT_PAY, sensitivity)
    return LayerReport(
        tuple(target.layers),
        type(target.module).__name__,
        target.shape,
        target.dense_bytes,
        part.bytes_after(fitted),
        sensitivity,
        predicted_error=fitted.predicted_error,
        measured_error=fitted.measured_error,
        arrangement=fitted.arrangement,
        seconds=fitted.seconds,
        **_described(fitted.matrix),
    )


def _left(target: Target, note: str, sensitivity: float | None = None) -> LayerReport:
    return LayerReport(
        tuple(target.layers),
        type(target.module).__name__,
        target.shape,
        target.dense_bytes,
        target.dense_bytes,
        sensitivity,
        note=note,
    )


def _described(matrix: HMatrix) -> dict[str, Any]:
    """Return ranks and precisions of a matrix as a `LayerReport` holds them."""
    leaves = list(matrix.leaves())
    counts = Counter(leaf.precision for leaf in leaves if leaf.rank != 0)
    return {
        "ranks": tuple(sorted({leaf.rank for leaf in leaves if leaf.rank})),
        "precisions": tuple((precision.name.lower(), count) for precision, count in sorted(counts.items())),
    }


def _row(layer: LayerReport) -> tuple[str, ...]:
    m, n = layer.shape
    name = layer.names[0] or "(network)"
    if len(layer.names) > 1:
        name += f" (+{len(layer.names) - 1})"
    sizes = (f"{m} x {n}", _kilobytes(layer.before), _kilobytes(layer.after), f"{100 * layer.after / layer.before:.1f}")
    if layer.measured_error is None or layer.predicted_error is None:
        return (name, *sizes, "", layer.note, "", "", "")
    ranks = "-".join(str(rank) for rank in dict.fromkeys((layer.ranks[0], layer.ranks[-1]))) if layer.ranks else ""
    leaves = " ".join(f"{count} {precision}" for precision, count in layer.precisions)
    errors = (f"{layer.predicted_error:.4f}", f"{layer.measured_error:.4f}")
    return (name, *sizes, ranks, leaves, *errors, f"{layer.seconds:.1f}")


def _kilobytes(size: int) -> str:
    return f"{size / 1e3:.1f} kB"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else _kilobytes(size)
