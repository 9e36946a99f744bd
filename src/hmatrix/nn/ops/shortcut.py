"""The shortest way from tensors to the kernel.

Beside the kernel, a layer's product consists of questions to torch. Native code asks them, through the interface by
which libraries exchange tensors in C. Where a release of torch lacks it, and wherever more than the kernel is needed,
products go through the operators.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from hmatrix import _core

Shortcut: TypeAlias = Callable[[Tensor, Tensor | None, dict[str, Tensor | None]], Tensor | None]
"""Returns ``x A^T + bias`` for x ``(..., n)``, a bias ``(m,)`` and the buffers of the weight, or ``None`` where it is
not that simple. The memory of the result cannot be resized."""

_EXCHANGE: object | None = getattr(Tensor, "__dlpack_c_exchange_api__", None)
_PLAIN = (Tensor, nn.Parameter)
_OBSTACLES = (
    torch._C._get_tracing_state,
    torch._C._len_torch_dispatch_stack,
    torch._C._functorch.peek_interpreter_stack,
    torch._C._is_any_autocast_enabled,
)
"""Modes of torch that watch or change its computations."""


def shortcut_of(
    plan: _core.PlanFloat32 | _core.PlanFloat64, words: int, others: Sequence[tuple[str, Tensor | None, int]]
) -> Shortcut | None:
    """Return the shortest way to a native product, where this release of torch has one.

    Parameters
    ----------
    plan
        The product.
    words
        Address of the coefficients that it reads; if they move, the shortcut is not taken.
    others
        The rest of the packed form: names, tensors, and their versions as they were when the plan was made. If one is
        replaced or changed, the shortcut is not taken.
    """
    if _EXCHANGE is None:
        return None
    kind = _core.TensorProductFloat64 if isinstance(plan, _core.PlanFloat64) else _core.TensorProductFloat32
    return kind(plan, _EXCHANGE, _PLAIN, torch.is_grad_enabled, forward_ad, _OBSTACLES, words, others).multiply
