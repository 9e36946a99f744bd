"""Hierarchical-matrix approximation of trained neural-network layers.

>>> import numpy as np
>>> import hmatrix as hm
>>> weight = np.random.default_rng(0).standard_normal((1000, 1280))
>>> H = hm.build(weight, truncation=hm.Truncation(max_rank=30))
>>> len(H.far_field), len(H.near_field)
(66, 172)
>>> y = H @ np.ones(1280)
"""

from hmatrix._support import moved as _moved
from hmatrix.allocation import Allocation, Allocator, Budget, allocate
from hmatrix.assembly import build, global_svd, partition, quantize
from hmatrix.codes.precision import Activations, Precision
from hmatrix.errors import AccuracyWarning, CacheWarning, HMatrixError
from hmatrix.heads.cost import Cost
from hmatrix.heads.head import ProgressiveHead, progressive
from hmatrix.heads.rules import FixedRows, Margin, Rigorous
from hmatrix.io import load, save
from hmatrix.lowrank.aca import FullACA, PartialACA
from hmatrix.lowrank.compressors import PivotedQR, RandomizedSVD, TruncatedSVD
from hmatrix.lowrank.entries import Entries
from hmatrix.lowrank.factors import LowRank, Truncation, recompress
from hmatrix.matrix import HMatrix, Leaf, TransposedHMatrix
from hmatrix.metrics import Norm, norm, relative_error
from hmatrix.packed.kernels import Backend, backend, set_num_threads
from hmatrix.packed.storage import Storage
from hmatrix.partitions.admissibility import Everywhere, Strong, StrongMin, Weak
from hmatrix.partitions.blocktree import BlockCluster, BlockClusterTree, build_block_tree
from hmatrix.partitions.cluster import Cluster, ClusterTree, Supports, build_cluster_tree
from hmatrix.partitions.coordinates import Index, Points, ScaledIndex
from hmatrix.partitions.splitters import Automatic, Cardinality, Geometric, PrincipalDirection, TwoMeans

__version__ = "0.1.0"

_moved.put_stand_ins()

__all__ = [
    "AccuracyWarning",
    "Activations",
    "Allocation",
    "Allocator",
    "Automatic",
    "Backend",
    "BlockCluster",
    "BlockClusterTree",
    "Budget",
    "CacheWarning",
    "Cardinality",
    "Cluster",
    "ClusterTree",
    "Cost",
    "Entries",
    "Everywhere",
    "FixedRows",
    "FullACA",
    "Geometric",
    "HMatrix",
    "HMatrixError",
    "Index",
    "Leaf",
    "LowRank",
    "Margin",
    "Norm",
    "PartialACA",
    "PivotedQR",
    "Points",
    "Precision",
    "PrincipalDirection",
    "ProgressiveHead",
    "RandomizedSVD",
    "Rigorous",
    "ScaledIndex",
    "Storage",
    "Strong",
    "StrongMin",
    "Supports",
    "TransposedHMatrix",
    "TruncatedSVD",
    "Truncation",
    "TwoMeans",
    "Weak",
    "allocate",
    "backend",
    "build",
    "build_block_tree",
    "build_cluster_tree",
    "global_svd",
    "load",
    "norm",
    "partition",
    "progressive",
    "quantize",
    "recompress",
    "relative_error",
    "save",
    "set_num_threads",
]
