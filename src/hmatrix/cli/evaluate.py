"""``hmatrix evaluate``: the score of a compressed network."""

import argparse
from pathlib import Path

import hmatrix
from hmatrix._support.store import default_cache
from hmatrix.cli.arguments import Commands, add_command
from hmatrix.errors import ArgumentError

EXAMPLES = """\
examples:
  hmatrix evaluate small.safetensors                     the embedded network, on digits that it never saw
  hmatrix evaluate small.safetensors --data imagenet/val --weights mine.safetensors
      images of odd-numbered classes; with the original's weights also what was lost, and its interval
  hmatrix evaluate small.safetensors --data sentences.txt  a text encoder, beside the original in its folder
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "evaluate",
        run,
        short="judge a network that hmatrix compress wrote",
        long="Load a compressed network, and measure its score on data that were not used to compress it.",
        examples=EXAMPLES,
    )
    parser.add_argument("file", type=Path, help="a file written by hmatrix compress")
    parser.add_argument("--data", metavar="DATA", help="an ImageNet validation folder, imagenette, digits, or a text")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights of the original, to compare with")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    import hmatrix.nn as hnn
    from hmatrix.study.whole.compared import compare
    from hmatrix.study.whole.whole_files import load_whole, original_of

    network = load_whole(options.file)
    header = hnn.read_header(options.file)
    heads = f"{len(header.heads)} progressive head, " if header.heads else ""
    print(f"{network.name}: {len(header.layers)} H-matrix layers, {heads}{options.file.stat().st_size / 1e6:.2f} MB")
    print(f"kernel {hmatrix.backend().name}")
    found = original_of(options.file, network, options.data, options.weights, default_cache())
    if found is None:
        raise ArgumentError("--data", "is not given", "name a folder of images, or a text for an encoder")
    judge, original = found
    scores = judge.scores(network.module)
    print(f"score    {scores.mean():.2f}: {judge.name}")
    if original is not None:
        print(compare(judge.scores(original), scores))
    return 0
