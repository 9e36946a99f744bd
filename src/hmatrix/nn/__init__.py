"""H-matrices in PyTorch networks (needs the extra ``torch``)."""

from hmatrix.nn.conv import HConv2d
from hmatrix.nn.embedding import HEmbedding
from hmatrix.nn.linear import HLinear
from hmatrix.nn.trainable import TrainableWeight, freeze, trainable
from hmatrix.nn.weight import HWeight

__all__ = ["HConv2d", "HEmbedding", "HLinear", "HWeight", "TrainableWeight", "freeze", "trainable"]
