"""The inputs that the layers of a network get for calibration data: a bounded sample of them, drawn at random."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from hmatrix._support.typing import FloatArray, Integers64
from hmatrix.errors import DataError, NetworkError
from hmatrix.nn.network.derivatives import Derivatives, Factors
from hmatrix.nn.network.present import Present
from hmatrix.nn.network.progress import shown
from hmatrix.nn.network.running import Forward, check_batches, checked, evaluating, first_tensor
from hmatrix.nn.network.targets import Target


@dataclass
class Inputs:
    """The inputs that layers were given.

    Parameters
    ----------
    samples
        Sample of the inputs of each target, ``(rows, n)``; ``None`` for one that only selects rows of its weight.
    counts
        Selections of each row, for each target that only selects rows, ``(m,)``; ``None`` for others.
    derivatives
        Second moments of the output's derivatives, for each target; ``None`` where they were not wanted, or tell
        nothing.
    sensitivities
        Mean square change of the network's output per square of relative error, for each target; 1 where derivatives
        were not wanted.
    unused
        Names of targets that were never called.
    probes
        The first batches, kept to measure the network on.
    """

    samples: list[FloatArray | None]
    counts: list[Integers64 | None]
    derivatives: list[Factors | None]
    sensitivities: list[float]
    unused: set[str]
    probes: list[Any]

    @classmethod
    def unknown(cls, targets: int) -> Self:
        """Return the inputs known without calibration data: none."""
        return cls([None] * targets, [None] * targets, [None] * targets, [1.0] * targets, set(), [])


def collect_inputs(
    model: nn.Module,
    targets: list[Target],
    calibration: Iterable[Any],
    *,
    forward: Forward,
    rows: int,
    probe_samples: int,
    seed: int,
    progress: bool,
    derivatives: bool = False,
) -> Inputs:
    """Run a network on calibration data, and sample the inputs of its layers.

    Parameters
    ----------
    model, targets
        The network and its layers.
    calibration
        Batches.
    forward
        Function that runs the network on a batch.
    rows
        Largest number of input vectors that are kept for a layer: positions of images, or tokens.
    probe_samples
        Number of the first samples that are kept as probes, in whole batches.
    seed
        Seed of the choice.
    progress
        Whether to show it.
    derivatives
        Whether the output is differentiated by the weights, too.

    Raises
    ------
    DataError
        If `calibration` is a tensor or has no batches, one does not go through the network, or inputs are not finite.
    NetworkError
        If the output cannot be differentiated, or it or its derivatives are not finite.
    """
    check_batches("calibration", calibration)
    forward = checked(forward, "calibration")
    reservoirs = [_Reservoir(rows, seed + number) for number in range(len(targets))]
    counts = [np.zeros(target.shape[0], np.int64) for target in targets]
    called: set[str] = set()
    present = Present()
    probes: list[Any] = []
    probed = 0
    differentiated = Derivatives(targets if derivatives else [], rows=rows, present=present, seed=seed)
    with ExitStack() as hooks:
        for target, reservoir, counted in zip(targets, reservoirs, counts, strict=True):
            for name, module in target.modules.items():
                hook = _hook(target, name, reservoir, counted, called, present)
                hooks.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        hooks.callback(differentiated.remove_hooks)
        hooks.enter_context(evaluating(model))
        for batch in shown(calibration, "calibration", enabled=progress):
            present.begin(batch)
            with torch.set_grad_enabled(derivatives):
                output = first_tensor(forward(model, batch))
            if derivatives:
                differentiated.add(output)
            if probed < probe_samples:
                probes.append(batch)
                probed += len(output) if output.dim() else 1
    if not probes:
        raise DataError("calibration", "has no batches", "give an iterable of inputs that is not used up")
    samples = []
    for target, reservoir in zip(targets, reservoirs, strict=True):
        sample = reservoir.sample()
        if sample is not None and not np.isfinite(sample).all():
            raise DataError(
                f"calibration, layer {target.name}", "its inputs hold NaN or infinity", "use intact weights and inputs"
            )
        samples.append(sample)
    unused = {target.name for target in targets if not called & target.layers.keys()}
    chosen = [
        counted if sample is None and counted.any() else None for sample, counted in zip(samples, counts, strict=True)
    ]
    factors = [
        differentiated.of(number, sample.mean(axis=0)) if derivatives and sample is not None else None
        for number, sample in enumerate(samples)
    ]
    weights = differentiated.sensitivities() if derivatives else [1.0] * len(targets)
    return Inputs(samples, chosen, factors, weights, unused, probes)


def _hook(
    target: Target, name: str, reservoir: "_Reservoir", counts: Integers64, called: set[str], present: Present
) -> Any:
    kind = target.kinds[name]

    def record(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        called.add(name)
        x = arguments[0] if arguments else next(iter(keywords.values()), None)
        if not isinstance(x, Tensor):
            came = f"is called with a {type(x).__name__} and not a tensor"
            raise NetworkError(f"layer {name}", came, "give batches of tensors, or leave it out by `overrides`")
        given = present.among(x.detach())
        vectors = kind.vectors(module, given, reservoir.choose)
        if vectors is not None:
            reservoir.add(vectors.to("cpu", torch.float32))
        selected = kind.selected(module, given)
        if selected is not None:
            # Other indices the layer itself refuses, after this hook.
            rows = selected.reshape(-1).to("cpu", torch.int64).clamp(0, len(counts) - 1).numpy()
            np.add.at(counts, rows, 1)

    return record


@dataclass
class _Reservoir:
    """A uniform sample of all vectors so far: those with the smallest of random keys."""

    size: int
    seed: int
    _keys: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))
    _rows: Tensor | None = None
    _new: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)

    def choose(self, count: int) -> Tensor:
        """Return which of the next `count` vectors may belong to the sample."""
        keys = torch.rand(count, dtype=torch.float64, generator=self._generator)
        bound = self._keys.max() if len(self._keys) >= self.size else torch.tensor(1.0)
        chosen = torch.nonzero(keys <= bound)[:, 0]
        if len(chosen) > self.size:
            chosen = chosen[torch.topk(keys[chosen], self.size, largest=False).indices]
        self._new = keys[chosen]
        return chosen

    def add(self, vectors: Tensor) -> None:
        """Add the vectors that were chosen."""
        keys = torch.cat([self._keys, self._new])
        rows = vectors if self._rows is None else torch.cat([self._rows, vectors])
        kept = torch.topk(keys, min(self.size, len(keys)), largest=False).indices
        self._keys, self._rows = keys[kept], rows[kept]

    def sample(self) -> FloatArray | None:
        """Return the sample ``(rows, n)``; ``None`` if there was no vector."""
        if self._rows is None:
            return None
        array: FloatArray = self._rows.numpy()
        return array
