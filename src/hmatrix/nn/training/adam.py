"""Adam with steps in proportion to the size of each tensor's entries.

References
----------
D. P. Kingma, J. Ba, *Adam: a method for stochastic optimization*, ICLR 2015, arXiv:1412.6980. N. Shazeer, M. Stern,
*Adafactor: adaptive learning rates with sublinear memory cost*, ICML 2018, arXiv:1804.04235 (steps in proportion to the
size of a tensor's entries).
"""

import torch
from torch import Tensor, nn

_EPSILON = 1e-12
_BETAS = (0.9, 0.99)
"""Decay of the averages, which must settle in a few hundred steps."""


class Adam:
    """Adam with steps in proportion to given sizes."""

    def __init__(self, sizes: dict[nn.Parameter, Tensor]) -> None:
        self._sizes = sizes
        self._means = {parameter: torch.zeros_like(parameter) for parameter in sizes}
        self._squares = {parameter: torch.zeros_like(parameter) for parameter in sizes}
        self._steps = 0

    def step(self, loss: Tensor, rate: float) -> None:
        """Take a step along the gradients of a loss; parameters that the loss does not depend on stay."""
        gradients = torch.autograd.grad(loss, list(self._sizes), allow_unused=True)
        self._steps += 1
        first, second = _BETAS
        with torch.no_grad():
            for (parameter, size), gradient in zip(self._sizes.items(), gradients, strict=True):
                if gradient is None:
                    continue
                mean, square = self._means[parameter], self._squares[parameter]
                mean.lerp_(gradient, 1 - first)
                square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
                length = (square / (1 - second**self._steps)).sqrt_().add_(_EPSILON)
                parameter.sub_(mean.div(length).mul_(size), alpha=rate / (1 - first**self._steps))
