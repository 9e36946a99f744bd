"""``hmatrix study``: time, storage and accuracy of a network's layer for every method and rank."""

import argparse
from dataclasses import fields
from pathlib import Path

import hmatrix
from hmatrix._support.store import default_cache
from hmatrix.cli.arguments import Commands, add_command, list_of, positive

EXAMPLES = """\
examples:
  hmatrix study                                          the embedded network, in a minute or two
  hmatrix study mobilenet_v2 --data imagenet/val         a torchvision or timm network
  hmatrix study resnet50 --weights mine.safetensors --data imagenet/val --ranks 10,30,50
  hmatrix study head.safetensors                         a lone matrix: time, storage, error
  hmatrix study studies/paper.toml                       a study file
"""


def add(commands: Commands) -> None:
    """Add the command."""
    study = add_command(
        commands,
        "study",
        run,
        short="measure time, storage and accuracy of a network's layer as an H-matrix",
        long="Approximate the last dense layer of a network by H-matrices, and measure time, storage and "
        "accuracy for every method and rank. Interrupted, the same command goes on where it stopped.",
        examples=EXAMPLES,
        again="goes on from here",
    )
    study.add_argument(
        "model", nargs="?", help="a torchvision or timm name, a .safetensors file, or a study file (.toml)"
    )
    study.add_argument("--weights", type=Path, metavar="FILE", help="safetensors file or torch state dict")
    study.add_argument("--data", metavar="DATA", help="an ImageNet validation folder, imagenette, or digits")
    study.add_argument("--layer", metavar="NAME", help="the nn.Linear to approximate (default: the last one)")
    study.add_argument(
        "--methods",
        type=list_of(str),
        metavar="A,B",
        help="svd, qr, aca, partial-aca, randomized-svd (default: svd,qr,aca)",
    )
    study.add_argument(
        "--ranks", type=list_of(positive), metavar="1,10,20", help="ranks to try (default: 1,10,20,...,120)"
    )
    study.add_argument(
        "--leaf-size", type=positive, metavar="N", help="clusters of at most this size are not split (default: 60)"
    )
    study.add_argument("--eta", type=float, metavar="X", help="admissible: max(diam) <= eta * dist (default: 2)")
    study.add_argument(
        "--products", type=positive, metavar="N", help="products to time (default: until the median is stable)"
    )
    study.add_argument("--threads", type=positive, metavar="N", help="threads of every product (default: 1)")
    study.add_argument("--output", type=Path, metavar="DIR", help="where the results go (default: results/NAME)")
    study.add_argument("--cache", type=Path, metavar="DIR", help="where features are kept (default: ~/.cache/hmatrix)")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from hmatrix.study.config.choices import Choices, choose
    from hmatrix.study.figures.tables import table_note, table_rows, to_text
    from hmatrix.study.run import run_study

    cache = options.cache or default_cache()
    study = choose(Choices(**{field.name: getattr(options, field.name) for field in fields(Choices)}), cache)
    print(
        f"{study.title}: kernel {hmatrix.backend().name}, {study.timing.threads} thread(s), results in {study.output}"
    )
    if study.data is None:
        print("no data: accuracy is not measured (a network has some with --data)")
    for records in run_study(study, cache):
        print()
        print(to_text(table_rows(records), table_note(records)))
    return 0
