"""Old names of classes: pickles of release 0.1.0 name modules that have moved since.

`sys.modules` gets a stand-in for each old module. It has the classes of that module, and imports their new module when
one of them is asked for. Where a package has the name of an old module today, the package gives them by `names_of`.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

MOVED = {
    "hmatrix.cluster": {
        "hmatrix.partitions.cluster": "Supports Cluster ClusterTree",
        "hmatrix.partitions.splitters": "Cardinality Geometric PrincipalDirection TwoMeans Automatic",
    },
    "hmatrix.coordinates": {"hmatrix.partitions.coordinates": "Index ScaledIndex Points"},
    "hmatrix.admissibility": {"hmatrix.partitions.admissibility": "Strong StrongMin Weak Everywhere"},
    "hmatrix.blocktree": {"hmatrix.partitions.blocktree": "BlockCluster BlockClusterTree"},
    "hmatrix.entries": {"hmatrix.lowrank.entries": "Entries EntryBlock"},
    "hmatrix.lowrank": {"hmatrix.lowrank.factors": "Truncation LowRank"},
    "hmatrix.compressors": {"hmatrix.lowrank.compressors": "TruncatedSVD PivotedQR RandomizedSVD"},
    "hmatrix.aca": {"hmatrix.lowrank.aca": "FullACA PartialACA"},
    "hmatrix.precision": {"hmatrix.codes.precision": "Precision Activations"},
    "hmatrix.trellis": {"hmatrix.codes.trellis": "Trellis"},
    "hmatrix.encoding": {"hmatrix.codes.encoding": "Encoded"},
    "hmatrix.panels": {"hmatrix.packed.panels": "Run Panel Stage Schedule"},
    "hmatrix.packed": {"hmatrix.packed.packed_blocks": "PackedBlocks"},
    "hmatrix.packing": {"hmatrix.packed.packing": "EncodedLowRank PackedLeaf"},
    "hmatrix.kernels": {"hmatrix.packed.kernels": "Backend ReferenceProduct"},
    "hmatrix.products": {"hmatrix.packed.products": "Products"},
    "hmatrix.progressive": {"hmatrix.heads.head": "ProgressiveHead"},
    "hmatrix.rules": {"hmatrix.heads.rules": "Margin FixedRows Rigorous"},
    "hmatrix.calibration": {"hmatrix.heads.cost": "Cost"},
    "hmatrix.head": {"hmatrix.heads.packed_head": "PackedHead"},
    "hmatrix.head_levels": {"hmatrix.heads.levels": "Bound Level"},
    "hmatrix.fine_rows": {"hmatrix.heads.fine_rows": "FineRows"},
    "hmatrix.row_clusters": {"hmatrix.heads.clusters": "RowClusters"},
    "hmatrix.subspace": {"hmatrix.heads.coarse_low_rank": "Subspace Coarse"},
    "hmatrix.coarse_matrix": {"hmatrix.heads.coarse_matrix": "CoarseMatrix"},
    "hmatrix.coarse_choices": {"hmatrix.heads.coarse_arguments": "LowRanks CoarseArguments"},
    "hmatrix.operating": {"hmatrix.heads.choice": "Asked"},
    "hmatrix.needs": {"hmatrix.heads.first_rows": "Opening", "hmatrix.heads.margins": "Limits Needs"},
    "hmatrix.head_reference": {"hmatrix.heads.reference": "Known ReferenceHead"},
    "hmatrix.allocation.allocation": {"hmatrix.allocation.result": "Allocation"},
    "hmatrix.allocation.moments": {"hmatrix.allocation.error.moments": "Moments"},
    "hmatrix.allocation.row_moments": {"hmatrix.allocation.error.row_moments": "RowMoments"},
    "hmatrix.allocation.damping": {"hmatrix.allocation.error.damping": "Damping Vectors"},
    "hmatrix.allocation.rounded": {"hmatrix.allocation.error.rounded_inputs": "RoundedInputs"},
    "hmatrix.allocation.budget": {"hmatrix.allocation.search.budget": "Budget"},
    "hmatrix.allocation.layout": {"hmatrix.allocation.search.layout": "Layout"},
    "hmatrix.allocation.tree": {"hmatrix.allocation.search.spending": "Dual Pruner"},
    "hmatrix.allocation.candidates": {"hmatrix.allocation.search.candidates": "Piece Candidates"},
    "hmatrix.allocation.forms": {"hmatrix.allocation.search.leaf_forms": "Form"},
    "hmatrix.allocation.depths": {"hmatrix.allocation.search.depths": "Depth"},
    "hmatrix.allocation.sides": {"hmatrix.allocation.search.sides": "Side"},
    "hmatrix.allocation.arrangements": {"hmatrix.allocation.search.arrangements": "Arrangement"},
    "hmatrix.allocation.screening": {"hmatrix.allocation.search.screening": "Screening"},
    "hmatrix.allocation.costs": {"hmatrix.allocation.search.costs": "Bytes Both"},
    "hmatrix.allocation.timecost": {"hmatrix.allocation.search.timecost": "TimeCost"},
    "hmatrix.allocation.rounding": {"hmatrix.allocation.rounding.second_order": "Cell"},
    "hmatrix.allocation.steps": {"hmatrix.allocation.rounding.steps": "Coupling Step"},
    "hmatrix.nn.coefficients": {"hmatrix.nn.ops.coefficients": "Columns Coefficients"},
    "hmatrix.nn.stacks": {"hmatrix.nn.ops.stacks": "Stack LeafGroup Structure=ProductStructure Order"},
    "hmatrix.nn.rows": {"hmatrix.nn.ops.rows": "RowTable"},
    "hmatrix.nn.prepared": {"hmatrix.nn.ops.prepared": "PackedTensors Prepared"},
    "hmatrix.nn.nearest": {"hmatrix.nn.ops.nearest": "Rounded"},
    "hmatrix.nn.weight": {"hmatrix.nn.layers.weight": "HWeight"},
    "hmatrix.nn.linear": {"hmatrix.nn.layers.linear": "HLinear"},
    "hmatrix.nn.conv": {"hmatrix.nn.layers.conv": "HConv2d"},
    "hmatrix.nn.embedding": {"hmatrix.nn.layers.embedding": "HEmbedding"},
    "hmatrix.nn.trainable": {
        "hmatrix.nn.layers.trainable": "TrainableWeight",
        "hmatrix.nn.layers.trainable_factor": "TrainableFactor",
    },
    "hmatrix.nn.progressive": {"hmatrix.nn.layers.progressive": "ProgressiveLinear"},
    "hmatrix.nn.kinds": {"hmatrix.nn.network.kinds": "LinearKind ConvKind EmbeddingKind"},
    "hmatrix.nn.targets": {"hmatrix.nn.network.targets": "LayerSettings Target"},
    "hmatrix.nn.present": {"hmatrix.nn.network.present": "Present"},
    "hmatrix.nn.calibration": {"hmatrix.nn.network.calibration": "Inputs"},
    "hmatrix.nn.derivatives": {"hmatrix.nn.network.derivatives": "Factors Derivatives"},
    "hmatrix.nn.sensitivity": {"hmatrix.nn.network.sensitivity": "Sensitivities Spread"},
    "hmatrix.nn.fitting": {"hmatrix.nn.network.fitting": "Fitted Fitter"},
    "hmatrix.nn.allocating": {"hmatrix.nn.network.allocating": "Part Allocation=NetworkAllocator"},
    "hmatrix.nn.sharing": {"hmatrix.nn.network.sharing": "Curve=ErrorCurve"},
    "hmatrix.nn.accuracy": {"hmatrix.nn.network.accuracy": "Search"},
    "hmatrix.nn.report": {"hmatrix.nn.network.report": "LayerReport Trial Report"},
    "hmatrix.nn.heads": {"hmatrix.nn.network.swapped_heads": "HeadReport WithHead"},
    "hmatrix.nn.finetuning": {"hmatrix.nn.training.finetuning": "Finetuned"},
    "hmatrix.nn.distillation": {
        "hmatrix.nn.training.distillation": "SquaredError Divergence Trained Finetuning Measurement FinetuningReport",
    },
    "hmatrix.nn.matching": {"hmatrix.nn.training.matching": "Pair"},
    "hmatrix.nn.adam": {"hmatrix.nn.training.adam": "Adam"},
    "hmatrix.nn.blueprint": {"hmatrix.nn.saved.blueprint": "Blueprint"},
    "hmatrix.nn.files": {"hmatrix.nn.saved.networks": "Header"},
    "hmatrix.nn.huggingface_config": {"hmatrix.nn.saved.huggingface_config": "HMatrixConfig"},
    "hmatrix.study.settings": {
        "hmatrix.study.config.settings": (
            "Interpolation PreprocessingOverride Network FolderData ImagenetteData DigitsData Method "
            "CoordinatesName SplitterName AdmissibilityName Structure Timing Study"
        ),
    },
    "hmatrix.study.choices": {"hmatrix.study.config.choices": "Choices"},
    "hmatrix.study.models": {"hmatrix.study.networks.models": "ImageNetwork LoadedNetwork"},
    "hmatrix.study.preprocessing": {"hmatrix.study.networks.preprocessing": "Preprocessing"},
    "hmatrix.study.datasets": {"hmatrix.study.data.datasets": "LabelledImages"},
    "hmatrix.study.augmentation": {"hmatrix.study.data.augmentation": "ShuffledImages"},
    "hmatrix.study.features": {"hmatrix.study.data.features": "Features"},
    "hmatrix.study.classifiers": {"hmatrix.study.data.classifiers": "LastLayer HiddenLayer"},
    "hmatrix.study.records": {"hmatrix.study.measure.records": "AccuracyEvidence TimeEvidence Record RecordFile"},
    "hmatrix.study.sweep": {"hmatrix.study.measure.sweep": "Point"},
    "hmatrix.study.subject": {"hmatrix.study.measure.subject": "Subject"},
    "hmatrix.study.drawing": {"hmatrix.study.figures.drawing": "Look"},
    "hmatrix.study.labels": {"hmatrix.study.figures.labels": "LabelRoom"},
    "hmatrix.study.curves": {"hmatrix.study.figures.curves": "Curve"},
    "hmatrix.study.tables": {"hmatrix.study.figures.tables": "Row"},
    "hmatrix.study.whole": {"hmatrix.study.whole.judged": "Judge Whole"},
    "hmatrix.study.bench": {"hmatrix.study.bench.benchmark": "Line"},
}
"""Modules of release 0.1.0: the modules of today that their classes are in, and the names there.

A class that has another name today is written ``old=new``.
"""


def found_in(module: str) -> dict[str, tuple[str, str]]:
    """Return the place of each class of an old module, and its name there, by its old name."""
    places = {}
    for place, names in MOVED[module].items():
        for word in names.split():
            old, _, new = word.partition("=")
            places[old] = place, new or old
    return places


def names_of(module: str) -> Callable[[str], Any]:
    """Return the function that gives the classes of an old module by name."""
    known = found_in(module)

    def found(name: str) -> Any:
        if name not in known:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        place, today = known[name]
        return getattr(import_module(place), today)

    return found


def put_stand_ins() -> None:
    """Put a stand-in in the place of each old module whose name no package has."""
    for module, places in MOVED.items():
        if not any(place.startswith(f"{module}.") for place in places):
            stand_in = ModuleType(module, f"Moved to {', '.join(places)}.")
            stand_in.__dict__["__getattr__"] = names_of(module)
            sys.modules.setdefault(module, stand_in)
