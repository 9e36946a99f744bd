"""``hmatrix compress``: a network, or a matrix, in the best H-matrices for a budget."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import hmatrix
from hmatrix._support.files import check_place, write_file
from hmatrix._support.store import default_cache
from hmatrix._support.typing import FloatArray
from hmatrix.cli.arguments import Commands, add_command, fraction, positive
from hmatrix.errors import ArgumentError

if TYPE_CHECKING:
    from torch import nn

    from hmatrix.nn.network.report import Report
    from hmatrix.nn.network.targets import Select
    from hmatrix.study.whole.judged import Whole

EXAMPLES = """\
examples:
  hmatrix compress digits --storage 0.1 -o small.safetensors
      the embedded network, its layers in a tenth of their storage
  hmatrix compress mobilenetv2_100 --weights mine.safetensors --data imagenet/val --storage 0.25 -o small.safetensors
      a torchvision or timm network; images of even-numbered classes calibrate, those of odd-numbered ones judge
  hmatrix compress resnet50 --data imagenet/val --max-drop 0.2 --layers last -o small.safetensors
      the least storage that loses 0.2 points of top-1, of the last linear layer alone
  hmatrix compress encoder/ --data sentences.txt --storage 0.25 --layers 're:encoder.*' -o small.safetensors
      a Hugging Face folder (needs transformers); a text with a sentence a line
  hmatrix compress head.safetensors --storage 0.125 -o small.safetensors
      a lone matrix, for hmatrix.load
  hmatrix compress digits --head progressive --agreement 0.99 -o fast.safetensors
      the last linear layer computes only its largest outputs exactly, those of the dense one for 99 % of the inputs
  hmatrix compress resnet50 --data imagenet/val --storage 0.25 --head progressive -o both.safetensors
      all other layers in a quarter of their storage, and such a head
  hmatrix compress digits --storage 0.25 --time 0.9 -o quick.safetensors
      a quarter of the storage, and no layer in more than 0.9 of its dense time, where that is possible
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "compress",
        run,
        short="make a network smaller for a budget that you state",
        long="Replace layers of a network by hierarchical matrices that keep a budget, and write the network to a "
        "file. Ranks, precisions and the share of each layer are chosen for the least error. Interrupted, the same "
        "command goes on where it stopped.",
        examples=EXAMPLES,
        again="goes on after the layers that are done",
    )
    parser.add_argument(
        "model", help="digits, a torchvision or timm name, a study file (.toml), a Hugging Face folder, or a matrix"
    )
    parser.add_argument("--storage", type=fraction, metavar="X", help="bytes of the layers, as a fraction of float32")
    parser.add_argument(
        "--time",
        type=float,
        metavar="X",
        help="time of each layer, as a fraction of the dense one's; may go with --storage",
    )
    parser.add_argument(
        "--max-drop", type=float, metavar="P", help="points of the score that may be lost (needs data); see --trials"
    )
    parser.add_argument(
        "--head",
        choices=("progressive",),
        help="how the last nn.Linear is replaced, apart from a budget: progressive for speed (needs data)",
    )
    parser.add_argument(
        "--agreement",
        type=float,
        metavar="X",
        help="in which part of the inputs such a head's largest output is the dense one's (default: 0.999)",
    )
    parser.add_argument(
        "--layers",
        default="all",
        metavar="WHICH",
        help="all, last (the last nn.Linear), a name, or re: and a regular expression for names (default: all); of a "
        "file with several matrices, the name of one",
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="safetensors file or torch state dict")
    parser.add_argument("--data", metavar="DATA", help="an ImageNet validation folder, imagenette, digits, or a text")
    parser.add_argument(
        "--trials", type=positive, default=8, metavar="N", help="most networks that --max-drop may judge (default: 8)"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="where the report goes, too, as JSON")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="where done layers are kept (default: ~/.cache/hmatrix)"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the file to write")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    import hmatrix.nn as hnn
    from hmatrix.study.config.choices import Choices, choose
    from hmatrix.study.networks.weights import load_matrix
    from hmatrix.study.whole.whole_images import open_classifier
    from hmatrix.study.whole.whole_text import is_encoder, open_encoder

    stated = [value for value in (options.storage, options.time, options.max_drop) if value is not None]
    if not stated and options.head is None:
        raise ArgumentError("budget", "is missing", "give --storage, --time or --max-drop, or --head progressive")
    if options.report is not None and not stated:
        raise ArgumentError(
            "--report", "was given without a budget", "leave it out: what became of the head is printed"
        )
    if options.agreement is not None and options.head is None:
        raise ArgumentError("--agreement", "was given without a head", "give --head progressive, too")
    budget = hmatrix.Budget(storage=options.storage, time=options.time, max_drop=options.max_drop) if stated else None
    for place in filter(None, (options.output, options.report)):
        check_place(place)
    cache = options.cache or default_cache()
    print(f"kernel {hmatrix.backend().name}")
    if is_encoder(options.model):
        whole = open_encoder(Path(options.model), None if options.data is None else Path(options.data))
    else:
        study = choose(Choices(options.model, options.weights, options.data), cache)
        if len(study.networks) != 1:
            raise ArgumentError("model", f"{options.model} has {len(study.networks)} networks", "name one")
        if study.networks[0].model is None:
            for name, value in (("--max-drop", options.max_drop), ("--head", options.head)):
                if value is not None:
                    raise ArgumentError(name, "was given with a lone matrix", "give --storage or --time")
            if budget is not None:
                named = study.networks[0].layer if options.layers in ("all", "last") else options.layers
                weight, _, _ = load_matrix(replace(study.networks[0], layer=named))
                return _compress_matrix(weight, budget, options.output)
        whole = open_classifier(study.networks[0], study.data)
    model, report = whole.module, None
    if budget is not None:
        model, report = _within(budget, whole, options, cache)
        print(report)
    if options.head is not None:
        if whole.calibration is None:
            raise ArgumentError("--head", "was given without data", "name some with --data")
        agreement = 0.999 if options.agreement is None else options.agreement
        model, head = hnn.progressive_head(model, whole.calibration, agreement=agreement, forward=whole.forward)
        print(head)
    if whole.judge is not None:
        before, after = whole.judge.scores(whole.module), whole.judge.scores(model)
        print(f"score    {before.mean():.2f} -> {after.mean():.2f}: {whole.judge.name}")
    hnn.save(model, options.output, whole.architecture)
    if options.report is not None and report is not None:
        write_file(options.report, report.to_json())
    print(f"written  {options.output} ({options.output.stat().st_size / 1e6:.2f} MB)")
    return 0


def _within(
    budget: hmatrix.Budget, whole: "Whole", options: argparse.Namespace, cache: Path
) -> tuple["nn.Module", "Report"]:
    """Compress the chosen layers, without a head that is made progressive."""
    import hmatrix.nn as hnn

    if whole.judge is None:
        if options.max_drop is not None:
            raise ArgumentError("--max-drop", "was given without data", "name some with --data")
        print("no data: all columns of a weight and all layers count the same (name some with --data)")
    chosen = _selection(options.layers, whole)
    head = (lambda *_: False) if options.head is None else hnn.last_linear(whole.module)
    return hnn.compress(
        whole.module,
        budget,
        select=lambda name, module: chosen(name, module) and not head(name, module),
        calibration=whole.calibration,
        evaluate=whole.judge.scores if whole.judge is not None and options.max_drop is not None else None,
        forward=whole.forward,
        evaluations=options.trials,
        cache=cache,
    )


def _selection(layers: str, whole: "Whole") -> "Select":
    from hmatrix.nn.network.targets import everything, last_linear, matching

    match layers:
        case "all":
            return everything
        case "last":
            return last_linear(whole.module)
        case _:
            return matching(layers)


def _compress_matrix(weight: FloatArray, budget: hmatrix.Budget, output: Path) -> int:
    allocation = hmatrix.allocate(weight, budget, activations="int8")
    hmatrix.save(allocation.matrix, output)
    storage = allocation.matrix.storage()
    print(f"{weight.shape[0]} x {weight.shape[1]}: {storage.total} bytes, {storage.ratio:.1%} of float32")
    print(f"relative error {allocation.measured_error:.4f} (Frobenius)")
    print(f"written  {output}")
    return 0
