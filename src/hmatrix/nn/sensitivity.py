"""How much an error of a layer's output changes the output of the network.

In each layer noise is added to the output, channel by channel in proportion to its standard deviation; the mean
square change of the network's output, in proportion to its variance, over that of the noise is the sensitivity.
Errors of different layers are nearly independent, so that their effects add up.
"""

from typing import Any

import torch
from torch import Tensor, nn

from hmatrix.errors import NetworkError
from hmatrix.nn.kinds import Kind
from hmatrix.nn.progress import shown
from hmatrix.nn.running import Forward, evaluating, first_tensor
from hmatrix.nn.targets import Target

_NOISE = 0.1
"""Standard deviation of the noise, relative: about what a layer in an eighth of its storage has as its error."""


def outputs(model: nn.Module, batches: list[Any], forward: Forward) -> list[Tensor]:
    """Return the network's outputs for some batches, float32."""
    with evaluating(model):
        return [first_tensor(forward(model, batch)) for batch in batches]


def change(reference: list[Tensor], changed: list[Tensor]) -> float:
    """Return the mean square difference of outputs, relative to the variance of the reference between samples.

    Of a single sample, and where all samples are equal, it is relative to the mean square.
    """
    # Tokens of different numbers: what has the same shape is compared over samples and positions alike.
    before = torch.cat([_vectors(tensor) for tensor in reference]).double()
    after = torch.cat([_vectors(tensor) for tensor in changed]).double()
    spread = float((before - before.mean(dim=0)).square().mean())
    scale = spread if spread > 0 else float(before.square().mean())
    difference = float((after - before).square().mean())
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
        If the network's output is not finite.
    """
    reference = outputs(model, batches, forward)
    if not all(bool(tensor.isfinite().all()) for tensor in reference):
        raise NetworkError("network", "its output holds NaN or infinity", "use intact weights and inputs")
    found = []
    for number, target in enumerate(shown(targets, "sensitivity", enabled=progress)):
        total = 0.0
        for name, module in target.layers.items():
            generator = torch.Generator().manual_seed(seed + number)
            hook = module.register_forward_hook(_noise(target.kinds[name], generator))
            try:
                total += change(reference, outputs(model, batches, forward)) / _NOISE**2
            finally:
                hook.remove()
        found.append(total)
    return found


def _noise(kind: Kind, generator: torch.Generator) -> Any:
    def add(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:  # noqa: ARG001
        axes = [axis for axis in range(output.dim()) if axis != kind.channels % output.dim()]
        deviation = output.float().std(dim=axes, keepdim=True, correction=0)
        noise = torch.randn(output.shape, generator=generator).to(output.device)
        return output + (_NOISE * deviation * noise).to(output.dtype)

    return add


def _vectors(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1, tensor.shape[-1]) if tensor.dim() else tensor.reshape(1, 1)
