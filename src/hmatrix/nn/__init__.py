"""H-matrices in PyTorch networks (needs the extra ``torch``)."""

from hmatrix.nn.linear import HLinear
from hmatrix.nn.progressive import ProgressiveLinear

__all__ = ["HLinear", "ProgressiveLinear"]
