"""Forward-mode differentiation: tensors with tangents."""

from typing import Any

from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling


def is_differentiated_forward() -> bool:
    """Whether tensors may have tangents. Compilers ask for derivatives in other ways."""
    return forward_ad._current_level >= 0 and not is_compiling()


def unpacked(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return a tensor without its tangent, and the tangent."""
    primal: Any
    primal, tangent = forward_ad.unpack_dual(x)  # type: ignore[no-untyped-call]
    return primal, tangent


def with_tangent(x: Tensor, tangent: Tensor) -> Tensor:
    """Return a tensor with a tangent."""
    dual: Tensor = forward_ad.make_dual(x, tangent)  # type: ignore[no-untyped-call]
    return dual
