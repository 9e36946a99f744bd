"""How much an error of a layer's output changes the output of the network.

The mean square change of the network's output, in proportion to its variance, per square of the relative error of
the layer's output: for errors that are independent between positions, and in each channel in proportion to its
standard deviation, it is a weighted square norm of the Jacobian. That is estimated for all layers at once by random
projections of the output, differentiated backwards. Errors of different layers are nearly independent, so that their
effects add up.

References
----------
M. Hutchinson, "A stochastic estimator of the trace of the influence matrix", Communications in Statistics 19 (1990),
doi:10.1080/03610919008812866.
"""

from typing import Any

import torch
from torch import Tensor, nn

from hmatrix.errors import NetworkError
from hmatrix.nn.kinds import Kind
from hmatrix.nn.progress import shown
from hmatrix.nn.running import Forward, evaluating, first_tensor
from hmatrix.nn.targets import Target

_PROJECTIONS = 2
"""Of the output of each batch; its samples and entries average over many more directions."""

_DIGITS = 2


def change(reference: list[Tensor], changed: list[Tensor]) -> float:
    """Return the mean square difference of outputs, relative to the variance of the reference between samples.

    Of a single sample, and where all samples are equal, it is relative to the mean square.
    """
    before, after = (torch.cat([_vectors(tensor) for tensor in tensors]).double() for tensors in (reference, changed))
    difference, scale = float((after - before).square().mean()), _spread(before)
    return difference / scale if scale > 0 else difference


def sensitivities(
    model: nn.Module,
    targets: list[Target],
    batches: list[Any],
    *,
    forward: Forward,
    seed: int,
    progress: bool,
) -> list[float]:
    """Return, for each target, the mean square change of the network's output per square of relative error.

    Raises
    ------
    NetworkError
        If the network's output is not finite, or cannot be differentiated.
    """
    generator = torch.Generator().manual_seed(seed)
    totals = [0.0] * len(targets)
    seen: list[Tensor] = []
    for batch in shown(batches, "sensitivity", enabled=progress):
        errors = _Errors(targets)
        try:
            with evaluating(model), torch.enable_grad():
                output = first_tensor(forward(model, batch))
        finally:
            errors.remove_hooks()
        if not bool(output.isfinite().all()):
            raise NetworkError("network", "its output holds NaN or infinity", "use intact weights and inputs")
        if not output.requires_grad:
            came = "its output cannot be differentiated, or depends on none of the chosen layers"
            raise NetworkError("network", came, "give `forward` without torch.no_grad, or choose other layers")
        seen.append(output.detach().to("cpu", torch.float32))
        for number in range(_PROJECTIONS):
            signs = torch.randint(0, 2, output.shape, generator=generator).to(output) * 2 - 1
            last = number + 1 == _PROJECTIONS
            for index, value in errors.energies((output * signs).sum(), keep=not last):
                totals[index] += value / _PROJECTIONS
    scale = sum(output.numel() for output in seen) * _spread(torch.cat([_vectors(output) for output in seen]).double())
    return [rounded(total / scale if scale > 0 else total) for total in totals]


def rounded(sensitivity: float) -> float:
    """Return an estimate without the noise of floating-point sums, which would change what it leads to."""
    return float(f"{sensitivity:.{_DIGITS}g}")


class _Errors:
    """Errors, all zero, that are added to the outputs of layers, so that they can be differentiated by them."""

    def __init__(self, targets: list[Target]) -> None:
        self._added: list[tuple[int, Tensor, Tensor]] = []
        self._hooks = [
            module.register_forward_hook(self._hook(index, target.kinds[name]))
            for index, target in enumerate(targets)
            for name, module in target.modules.items()
        ]

    def remove_hooks(self) -> None:
        """Leave the network as it was."""
        for hook in self._hooks:
            hook.remove()

    def energies(self, projection: Tensor, *, keep: bool) -> list[tuple[int, float]]:
        """Return, for each error, the square of the projection's gradient, weighted by the channels' variances."""
        added = [error for _, error, _ in self._added]
        gradients = torch.autograd.grad(projection, added, retain_graph=keep, allow_unused=True)
        return [
            (index, 0.0 if gradient is None else float((gradient.float().square() * variance).sum()))
            for (index, _, variance), gradient in zip(self._added, gradients, strict=True)
        ]

    def _hook(self, index: int, kind: Kind) -> Any:
        def add(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:  # noqa: ARG001
            axes = [axis for axis in range(output.dim()) if axis != kind.channels % output.dim()]
            variance = output.detach().float().var(dim=axes, keepdim=True, correction=0)
            error = torch.zeros_like(output, requires_grad=True)
            self._added.append((index, error, variance))
            return output + error

        return add


def _spread(vectors: Tensor) -> float:
    """Return the variance of vectors ``(samples, n)``, or their mean square where they are all the same."""
    spread = float((vectors - vectors.mean(dim=0)).square().mean())
    return spread if spread > 0 else float(vectors.square().mean())


def _vectors(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1, tensor.shape[-1]) if tensor.dim() else tensor.reshape(1, 1)
