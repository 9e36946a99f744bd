"""The layers that can be compressed: their weight as a matrix, their inputs as its vectors, and their successors."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hmatrix.errors import NetworkError
from hmatrix.nn.layers.conv import HConv2d
from hmatrix.nn.layers.embedding import HEmbedding
from hmatrix.nn.layers.linear import HLinear
from hmatrix.nn.layers.weight import HWeight

Choose = Callable[[int], Tensor]
"""Function of the number of input vectors: the indices ``(k,)`` of those that are kept."""


class Kind(Protocol):
    """A type of layers, with the operations that compression needs."""

    channels: int
    """Axis of the output along which its channels lie."""

    def accepts(self, module: nn.Module) -> bool:
        """Return whether a layer is of this kind and can be compressed."""
        ...

    def matrix(self, module: Any) -> Tensor:
        """Return the weight as a matrix ``(m, n)``."""
        ...

    def vectors(self, module: Any, x: Tensor, choose: Choose) -> Tensor | None:
        """Return some of the vectors ``(k, n)`` that the matrix multiplies; ``None`` if it selects rows."""
        ...

    def selected(self, module: Any, x: Tensor) -> Tensor | None:
        """Return the indices of the rows that the layer selects, in any shape; ``None`` if it multiplies."""
        ...

    def successor(self, module: Any, weight: HWeight) -> nn.Module:
        """Return the layer that takes the place of `module`."""
        ...


class LinearKind:
    """`torch.nn.Linear`."""

    channels = -1

    def accepts(self, module: nn.Module) -> bool:
        # Not its subclasses: their users may read the weight past `forward`.
        return type(module) is nn.Linear

    def matrix(self, module: nn.Linear) -> Tensor:
        return module.weight.detach()

    def vectors(self, module: nn.Linear, x: Tensor, choose: Choose) -> Tensor:
        flat = x.reshape(-1, module.in_features)
        return flat[choose(len(flat))]

    def selected(self, module: nn.Linear, x: Tensor) -> None:  # noqa: ARG002
        return None

    def successor(self, module: nn.Linear, weight: HWeight) -> nn.Module:
        return HLinear(weight, module.bias)


class ConvKind:
    """`torch.nn.Conv2d` without groups, over its unfolded input."""

    channels = -3

    def accepts(self, module: nn.Module) -> bool:
        return type(module) is nn.Conv2d and module.groups == 1

    def matrix(self, module: nn.Conv2d) -> Tensor:
        return HConv2d.matrix_of(module)

    def vectors(self, module: nn.Conv2d, x: Tensor, choose: Choose) -> Tensor:
        images = x if x.dim() == 4 else x[None]
        around = module._reversed_padding_repeated_twice
        if any(around):
            mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
            images = nn.functional.pad(images, around, mode=mode)
        windows = images
        for axis in (0, 1):
            step, reach = module.dilation[axis], module.dilation[axis] * (module.kernel_size[axis] - 1) + 1
            windows = windows.unfold(2 + axis, reach, module.stride[axis])[..., ::step]
        # Only the windows that are kept are copied: all of them would be many times the input.
        batch, _, rows, columns = windows.shape[:4]
        chosen = choose(batch * rows * columns)
        image, place = chosen // (rows * columns), chosen % (rows * columns)
        # The channels last, as in the matrix.
        return windows[image, :, place // columns, place % columns].permute(0, 2, 3, 1).flatten(1)

    def selected(self, module: nn.Conv2d, x: Tensor) -> None:  # noqa: ARG002
        return None

    def successor(self, module: nn.Conv2d, weight: HWeight) -> nn.Module:
        return HConv2d(module, weight)


class EmbeddingKind:
    """`torch.nn.Embedding`."""

    channels = -1

    def accepts(self, module: nn.Module) -> bool:
        return type(module) is nn.Embedding and module.max_norm is None and not module.scale_grad_by_freq

    def matrix(self, module: nn.Embedding) -> Tensor:
        return module.weight.detach()

    def vectors(self, module: nn.Embedding, x: Tensor, choose: Choose) -> None:  # noqa: ARG002
        return None

    def selected(self, module: nn.Embedding, x: Tensor) -> Tensor:
        # How much padding there is says nothing, and nothing reads it.
        return x if module.padding_idx is None else x[x != module.padding_idx]

    def successor(self, module: nn.Embedding, weight: HWeight) -> nn.Module:
        padding = module.padding_idx
        weight_is_known = not module.weight.is_meta
        is_zero = padding is not None and weight_is_known and not bool(module.weight[padding].any())
        return HEmbedding(weight, padding, zero_padding=is_zero)


KINDS: tuple[Kind, ...] = (LinearKind(), ConvKind(), EmbeddingKind())


def kind_of(module: nn.Module) -> Kind | None:
    """Return the kind of a layer, or ``None`` if it cannot be compressed."""
    return next((kind for kind in KINDS if kind.accepts(module)), None)


def matrix_of(module: nn.Module) -> Tensor:
    """Return the weight of a layer of some kind as a matrix ``(m, n)``, float32 on the CPU.

    Raises
    ------
    NetworkError
        If the layer is of no kind.
    """
    kind = kind_of(module)
    if kind is None:
        raise NetworkError("layer", f"is a {type(module).__name__}", "choose nn.Linear, nn.Conv2d or nn.Embedding")
    return kind.matrix(module).to("cpu", torch.float32)


def shape_of(module: nn.Module) -> tuple[int, int]:
    """Return the shape ``(m, n)`` of the weight of a layer as a matrix."""
    weight = module.get_parameter("weight")
    return weight.shape[0], weight[0].numel()
