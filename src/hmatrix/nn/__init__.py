"""H-matrices in PyTorch networks (needs the extra ``torch``)."""

from hmatrix.nn.compression import Compressed, compress
from hmatrix.nn.layers.conv import HConv2d
from hmatrix.nn.layers.embedding import HEmbedding
from hmatrix.nn.layers.linear import HLinear
from hmatrix.nn.layers.progressive import ProgressiveLinear
from hmatrix.nn.layers.trainable import TrainableWeight, freeze, trainable
from hmatrix.nn.layers.weight import HWeight
from hmatrix.nn.network.report import LayerReport, Report, Trial
from hmatrix.nn.network.swapped_heads import HeadReport, WithHead, progressive_head
from hmatrix.nn.network.targets import LayerSettings, last_linear, matching
from hmatrix.nn.saved.networks import Header, load, load_matrix, read_header, save
from hmatrix.nn.training.distillation import Divergence, Finetuning, FinetuningReport, SquaredError, Trained
from hmatrix.nn.training.finetuning import Finetuned, finetune

__all__ = [
    "Compressed",
    "Divergence",
    "Finetuned",
    "Finetuning",
    "FinetuningReport",
    "HConv2d",
    "HEmbedding",
    "HLinear",
    "HWeight",
    "HeadReport",
    "Header",
    "LayerReport",
    "LayerSettings",
    "ProgressiveLinear",
    "Report",
    "SquaredError",
    "TrainableWeight",
    "Trained",
    "Trial",
    "WithHead",
    "compress",
    "finetune",
    "freeze",
    "last_linear",
    "load",
    "load_matrix",
    "matching",
    "progressive_head",
    "read_header",
    "save",
    "trainable",
]
