"""A linear layer whose weight is an H-matrix."""

from typing import Self

import torch
from torch import Tensor, nn

from hmatrix.errors import ArgumentError
from hmatrix.matrix import HMatrix, TransposedHMatrix
from hmatrix.nn.layers.weight import HWeight


class HLinear(nn.Module):
    """``y = x A^T + b`` with an H-matrix A.

    Gradients reach the input and the bias, not A (see `hmatrix.nn.layers.trainable`); where activations are int8, the
    gradient of the input is that of exact ones. Inputs of half precision are computed in float32 and give results of
    their own type, as do those under autocast. A change of the layer's type to half precision concerns the bias alone:
    the precisions of the leaves are those of `HMatrix.astype`.

    Parameters
    ----------
    weight
        A, ``(out, in)``: an H-matrix, or the weight of another layer, which is then shared with it.
    bias
        ``(out,)``, or ``None``.

    Raises
    ------
    ArgumentError
        If the bias does not fit, or the weight is no H-matrix, or the transpose of one with integer codes.

    Examples
    --------
    >>> linear = torch.nn.Linear(64, 48)
    >>> matrix = hm.quantize(linear.weight.detach().numpy(), "int8", activations="int8")
    >>> layer = hnn.HLinear.from_linear(linear, matrix)
    >>> layer(torch.randn(5, 64)).shape
    torch.Size([5, 48])
    >>> layer.matrix.shape
    (48, 64)
    """

    weight: HWeight
    bias: nn.Parameter | None

    def __init__(self, weight: HMatrix | TransposedHMatrix | HWeight, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = weight if isinstance(weight, HWeight) else HWeight(weight)
        self.out_features, self.in_features = self.weight.shape
        self.register_parameter("bias", bias_of(bias, self.weight))

    @classmethod
    def from_matrix(cls, matrix: HMatrix | TransposedHMatrix, bias: Tensor | None = None) -> Self:
        """Make a layer of an H-matrix ``(out, in)`` and a bias ``(out,)``."""
        return cls(matrix, bias)

    @classmethod
    def from_linear(cls, linear: nn.Linear, matrix: HMatrix | TransposedHMatrix) -> Self:
        """Make a layer that takes the place of `linear`: its weight replaced by `matrix`, its bias kept.

        Raises
        ------
        ArgumentError
            If the shapes differ.
        """
        if matrix.shape != tuple(linear.weight.shape):
            raise ArgumentError(
                "matrix", f"has the shape {matrix.shape}", f"give {tuple(linear.weight.shape)}, as the layer has"
            )
        return cls(matrix, linear.bias).train(linear.training)

    @classmethod
    def skeleton(
        cls, in_features: int, out_features: int, *, bias: bool = True, device: torch.device | str = "meta"
    ) -> Self:
        """Make a layer whose weight is zero and takes no memory, to load a state dict of any structure into.

        On the meta device, load with ``assign=True``.
        """
        layer = cls(HWeight.skeleton((out_features, in_features)), torch.zeros(out_features) if bias else None)
        return layer.to(device)

    @property
    def matrix(self) -> HMatrix:
        """The weight ``(out, in)``, sharing its coefficients."""
        return self.weight.matrix

    def forward(self, x: Tensor) -> Tensor:
        """Multiply ``(..., in)`` to ``(..., out)``."""
        # Not by attribute: the search for one in a module takes as long as a small product.
        weight: HWeight = self._modules["weight"]  # type: ignore[assignment]
        parameters = self._parameters
        bias = parameters["bias"] if "bias" in parameters else self.bias  # noqa: SIM401
        return weight.multiply(x, bias)

    def extra_repr(self) -> str:
        """Describe the layer in the printed network."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def bias_of(bias: Tensor | None, weight: HWeight) -> nn.Parameter | None:
    """Return a copy of a bias ``(out,)`` as a parameter in the type of the weight's products.

    Raises
    ------
    ArgumentError
        If it has another shape.
    """
    out = weight.shape[0]
    if bias is not None and bias.shape != (out,):
        raise ArgumentError("bias", f"has the shape {tuple(bias.shape)}", f"give ({out},)")
    return None if bias is None else nn.Parameter(bias.detach().to(weight.dtype, copy=True))
