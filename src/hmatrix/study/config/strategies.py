"""Strategies of the library by their names in a study: the one table."""

from hmatrix.lowrank.aca import FullACA, PartialACA
from hmatrix.lowrank.compressors import Compressor, PivotedQR, RandomizedSVD, TruncatedSVD
from hmatrix.partitions.admissibility import Admissibility, Strong, StrongMin, Weak
from hmatrix.partitions.coordinates import Coordinates, Index, ScaledIndex
from hmatrix.partitions.splitters import Automatic, Cardinality, Geometric, PrincipalDirection, Splitter
from hmatrix.study.config.settings import AdmissibilityName, CoordinatesName, Method, SplitterName, Structure

COMPRESSORS: dict[Method, Compressor] = {
    Method.SVD: TruncatedSVD(),
    Method.QR: PivotedQR(),
    Method.ACA: FullACA(),
    Method.PARTIAL_ACA: PartialACA(),
    Method.RANDOMIZED_SVD: RandomizedSVD(),
}

COORDINATES: dict[CoordinatesName, Coordinates] = {
    CoordinatesName.INDEX: Index(),
    CoordinatesName.SCALED_INDEX: ScaledIndex(),
}


def splitter(structure: Structure) -> Splitter:
    """Return the splitter that a study names."""
    match structure.splitter:
        case SplitterName.CARDINALITY:
            return Cardinality(structure.leaf_size)
        case SplitterName.GEOMETRIC:
            return Geometric(structure.leaf_size)
        case SplitterName.PRINCIPAL_DIRECTION:
            return PrincipalDirection(structure.leaf_size)
        case SplitterName.AUTOMATIC:
            return Automatic(structure.leaf_size)


def admissibility(structure: Structure) -> Admissibility:
    """Return the admissibility condition that a study names."""
    match structure.admissibility:
        case AdmissibilityName.STRONG:
            return Strong(structure.eta)
        case AdmissibilityName.STRONG_MIN:
            return StrongMin(structure.eta)
        case AdmissibilityName.WEAK:
            return Weak()
