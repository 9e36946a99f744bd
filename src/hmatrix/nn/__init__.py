"""H-matrices in PyTorch networks (needs the extra ``torch``)."""

from hmatrix.nn.compression import Compressed, compress
from hmatrix.nn.conv import HConv2d
from hmatrix.nn.embedding import HEmbedding
from hmatrix.nn.linear import HLinear
from hmatrix.nn.report import LayerReport, Report, Trial
from hmatrix.nn.targets import LayerSettings, last_linear, matching
from hmatrix.nn.trainable import TrainableWeight, freeze, trainable
from hmatrix.nn.weight import HWeight

__all__ = [
    "Compressed",
    "HConv2d",
    "HEmbedding",
    "HLinear",
    "HWeight",
    "LayerReport",
    "LayerSettings",
    "Report",
    "TrainableWeight",
    "Trial",
    "compress",
    "freeze",
    "last_linear",
    "matching",
    "trainable",
]
