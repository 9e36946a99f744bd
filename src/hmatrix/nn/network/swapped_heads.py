"""The head of a network replaced by a progressive one."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from hmatrix._support.checks import check_integer
from hmatrix.errors import NetworkError
from hmatrix.heads.head import progressive
from hmatrix.heads.rules import Margin, Rule
from hmatrix.matrix import HMatrix
from hmatrix.nn.layers.progressive import ProgressiveLinear
from hmatrix.nn.network.calibration import collect_inputs
from hmatrix.nn.network.replacing import replaced
from hmatrix.nn.network.running import Forward, run_batch
from hmatrix.nn.network.targets import LayerSettings, Select, find_targets, last_linear


@dataclass(frozen=True)
class HeadReport:
    """Report of the replacement of a head.

    Parameters
    ----------
    name
        Name of the layer.
    shape
        Shape of its weight.
    before, after
        Bytes: the dense layer's, and those of the progressive head, which holds the rows and a coarse part.
    point
        The operating point that was chosen.
    refined
        Rows that are refined, on average over the calibration data.
    samples
        Inputs that calibrated it.

    Examples
    --------
    >>> report = hnn.HeadReport("fc", (100, 32), 12800, 6400, "rank 8 in int8, rows in int8", 12.5, 200)
    >>> report.name, report.after / report.before
    ('fc', 0.5)
    """

    name: str
    shape: tuple[int, int]
    before: int
    after: int
    point: str
    refined: float
    samples: int

    def __str__(self) -> str:
        m, n = self.shape
        return (
            f"head     {self.name}: {m} x {n}, {self.point}, {self.refined:.1f} rows refined on average, "
            f"{self.before / 1e6:.2f} MB -> {self.after / 1e6:.2f} MB; calibrated on {self.samples} inputs"
        )


class WithHead(NamedTuple):
    """A network with a progressive head, and the report of its replacement.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(24, 32), torch.nn.ReLU(), torch.nn.Linear(32, 50))
    >>> batches = [torch.randn(50, 24) for _ in range(4)]
    >>> with_head = hnn.progressive_head(model, batches, agreement=0.9, progress=False)
    >>> with_head.report.shape, type(with_head.model[2]).__name__
    ((50, 32), 'ProgressiveLinear')
    """

    model: nn.Module
    report: HeadReport


def progressive_head(
    model: nn.Module,
    calibration: Iterable[Any],
    *,
    agreement: float = 0.999,
    select: Select | None = None,
    top: int = 1,
    rule: Rule = Margin(),
    coarse: HMatrix | None = None,
    forward: Forward = run_batch,
    rows: int = 8192,
    seed: int = 0,
    progress: bool = True,
) -> WithHead:
    """Return a copy of a network whose head computes only its largest outputs exactly.

    Parameters
    ----------
    model
        A network on the CPU, in float32.
    calibration
        Batches of inputs, as `compress` takes them. The rarer a disagreement is to be, the more of them it takes.
    agreement, top, rule, coarse
        Arguments of `hmatrix.progressive`.
    select
        Function of a layer's name and the layer: whether it is the head; the last `torch.nn.Linear` by default.
    forward
        Function of the network and a batch that returns its output.
    rows
        Largest number of inputs of the head that are kept.
    seed
        Seed of the choice of those.
    progress
        Whether to show progress bars (if tqdm is installed).

    Raises
    ------
    ArgumentError
        If an argument cannot be used, or no choice reaches the agreement.
    NetworkError
        If the head is no `torch.nn.Linear` of its own, or is not called.
    DataError
        If calibration data cannot be used.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(24, 32), torch.nn.ReLU(), torch.nn.Linear(32, 50))
    >>> batches = [torch.randn(50, 24) for _ in range(4)]
    >>> fast, report = hnn.progressive_head(model, batches, agreement=0.9, progress=False)
    >>> fast(batches[0]).shape, report.samples
    (torch.Size([50, 50]), 200)
    """
    check_integer("rows", rows, at_least=2)
    targets = find_targets(model, select or last_linear(model), {}, LayerSettings())
    layers = [(name, module) for target in targets for name, module in target.layers.items()]
    name, module = layers[0]
    if len(layers) > 1 or type(module) is not nn.Linear:
        names = ", ".join(name for name, _ in layers)
        raise NetworkError("head", f"{names} are not one nn.Linear", "choose one whose weight no other layer has")
    if module.weight.device.type != "cpu" or module.weight.dtype != torch.float32:
        came = f"is on {module.weight.device}, in {module.weight.dtype}"
        raise NetworkError(f"layer {name}", came, "move the network to the CPU, in float32")
    found = collect_inputs(
        model, targets, calibration, forward=forward, rows=rows, probe_samples=1, seed=seed, progress=progress
    )
    inputs = found.samples[0]
    if inputs is None:
        raise NetworkError(f"layer {name}", "is never called", "choose one that the network calls as a module")
    bias = None if module.bias is None else module.bias.detach().numpy()
    head = progressive(
        targets[0].weight, bias, calibration=inputs, agreement=agreement, top=top, rule=rule, coarse=coarse
    )
    changed = replaced(model, {module: ProgressiveLinear(head).train(module.training)})
    before = targets[0].dense_bytes
    refined = float(np.mean(head.refined(inputs, top)))
    return WithHead(
        changed, HeadReport(name, head.shape, before, head.storage().total, head.point, refined, len(inputs))
    )
