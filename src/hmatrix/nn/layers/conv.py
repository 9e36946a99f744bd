"""A convolution whose weight, as a matrix over its unfolded input, is an H-matrix."""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from hmatrix.errors import ArgumentError, NetworkError
from hmatrix.matrix import HMatrix, TransposedHMatrix
from hmatrix.nn.layers.linear import bias_of
from hmatrix.nn.layers.weight import HWeight


class HConv2d(nn.Module):
    """`torch.nn.Conv2d` without groups, its weight an H-matrix ``(out, kernel height * kernel width * in)``.

    `matrix_of` gives the weight of a convolution in that order: channels together, so that they are gathered
    together. Each position of the output is one vector of a batch: a convolution of 1 x 1 multiplies the
    channels of the input as they lie in memory where it is in channels-last format, and copies it once
    otherwise; all others gather the input of each position. The output is in the format of the input;
    ``network.to(memory_format=torch.channels_last)`` and an input in that format save copies.

    Parameters
    ----------
    conv
        The convolution whose place is taken; its weight is not used.
    weight
        ``(out, kernel height * kernel width * in)``: an H-matrix, or the weight of another layer, which is
        then shared with it.

    Raises
    ------
    ArgumentError
        If the shapes differ.
    NetworkError
        If the convolution has groups.

    Examples
    --------
    >>> conv = torch.nn.Conv2d(8, 16, 3, padding=1)
    >>> matrix = hm.quantize(hnn.HConv2d.matrix_of(conv), "int8")
    >>> matrix.shape
    (16, 72)
    >>> hnn.HConv2d.from_conv(conv, matrix)(torch.randn(1, 8, 5, 5)).shape
    torch.Size([1, 16, 5, 5])
    """

    weight: HWeight
    bias: nn.Parameter | None

    def __init__(self, conv: nn.Conv2d, weight: HMatrix | TransposedHMatrix | HWeight) -> None:
        super().__init__()
        if conv.groups != 1:
            raise NetworkError("convolution", f"has {conv.groups} groups", "choose one with groups=1")
        self.weight = weight if isinstance(weight, HWeight) else HWeight(weight)
        expected = (conv.out_channels, conv.weight[0].numel())
        if self.weight.shape != expected:
            raise ArgumentError(
                "matrix", f"has the shape {self.weight.shape}", f"give {expected}, as the convolution has"
            )
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.kernel_size, self.stride, self.dilation = _pair(conv.kernel_size), _pair(conv.stride), _pair(conv.dilation)
        self.padding, self.padding_mode = conv.padding, conv.padding_mode
        self._around = tuple(conv._reversed_padding_repeated_twice)
        self.register_parameter("bias", bias_of(conv.bias, self.weight))

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, matrix: HMatrix | TransposedHMatrix) -> Self:
        """Make a layer that takes the place of `conv`: its weight replaced by `matrix`, its bias kept."""
        return cls(conv, matrix).train(conv.training)

    @staticmethod
    def matrix_of(conv: nn.Conv2d) -> Tensor:
        """Return the weight of a convolution as the matrix that is approximated; a copy, without gradient."""
        return conv.weight.detach().permute(0, 2, 3, 1).flatten(1)

    @property
    def matrix(self) -> HMatrix:
        """The weight ``(out, kernel height * kernel width * in)``."""
        return self.weight.matrix

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(batch, in, height, width)``, or ``(in, height, width)``.

        Raises
        ------
        ArgumentError
            If x has another shape.
        """
        if x.dim() not in (3, 4) or x.shape[-3] != self.in_channels:
            mend = f"give (batch, {self.in_channels}, height, width)"
            raise ArgumentError("x", f"has the shape {tuple(x.shape)}", mend)
        images = x if x.dim() == 4 else x[None]
        channels_last = images.is_contiguous(memory_format=torch.channels_last)
        if any(self._around):
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            images = functional.pad(images, self._around, mode=mode)
        y = self.weight.multiply(self._positions(images), self.bias).permute(0, 3, 1, 2)
        if not channels_last:
            y = y.contiguous()
        return y if x.dim() == 4 else y[0]

    def extra_repr(self) -> str:
        """Describe the layer in the printed network."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, padding_mode={self.padding_mode}, "
            f"bias={self.bias is not None}"
        )

    def _positions(self, images: Tensor) -> Tensor:
        """Return the input of each position, ``(batch, height, width, kernel height * kernel width * in)``."""
        (rows, columns), (down, right), (step_down, step_right) = self.kernel_size, self.stride, self.dilation
        if (rows, columns) == (1, 1):
            # A slice of everything would be copied in the backward pass.
            taken = images if (down, right) == (1, 1) else images[:, :, ::down, ::right]
            return taken.permute(0, 2, 3, 1).contiguous()
        reach_down, reach_right = step_down * (rows - 1) + 1, step_right * (columns - 1) + 1
        if images.shape[2] < reach_down or images.shape[3] < reach_right:
            came = f"has {images.shape[2]} x {images.shape[3]} pixels with its padding"
            raise ArgumentError("x", came, f"give {reach_down} x {reach_right} at least")
        end_down, end_right = images.shape[2] - reach_down + 1, images.shape[3] - reach_right + 1
        last = images.permute(0, 2, 3, 1).contiguous()
        pieces = [
            last[:, top : top + end_down : down, left : left + end_right : right]
            for top in range(0, reach_down, step_down)
            for left in range(0, reach_right, step_right)
        ]
        return torch.cat(pieces, dim=3)


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    rows, columns = sizes
    return rows, columns
