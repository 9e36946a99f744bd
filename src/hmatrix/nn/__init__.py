"""H-matrices in PyTorch networks (needs the extra ``torch``)."""

from hmatrix.nn.linear import HLinear

__all__ = ["HLinear"]
