"""H-matrices in PyTorch networks (needs the extra ``torch``)."""

from hmatrix.nn.linear import HLinear
from hmatrix.nn.trainable import TrainableWeight, freeze, trainable
from hmatrix.nn.weight import HWeight

__all__ = ["HLinear", "HWeight", "TrainableWeight", "freeze", "trainable"]
