"""H-matrices in PyTorch networks (needs the extra ``torch``)."""

from hmatrix.nn.compression import Compressed, compress
from hmatrix.nn.conv import HConv2d
from hmatrix.nn.distillation import Divergence, Finetuning, FinetuningReport, SquaredError, Trained
from hmatrix.nn.embedding import HEmbedding
from hmatrix.nn.files import Header, load, load_matrix, read_header, save
from hmatrix.nn.finetuning import Finetuned, finetune
from hmatrix.nn.heads import HeadReport, WithHead, progressive_head
from hmatrix.nn.linear import HLinear
from hmatrix.nn.progressive import ProgressiveLinear
from hmatrix.nn.report import LayerReport, Report, Trial
from hmatrix.nn.targets import LayerSettings, last_linear, matching
from hmatrix.nn.trainable import TrainableWeight, freeze, trainable
from hmatrix.nn.weight import HWeight

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
