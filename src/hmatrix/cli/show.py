"""``hmatrix show``: the blocks of a saved layer, and their spectra."""

import argparse
from pathlib import Path

from hmatrix.cli.arguments import Commands, add_command

EXAMPLES = """\
examples:
  hmatrix show small.safetensors                         the layers of a compressed network
  hmatrix show small.safetensors --layer fc2 -o fc2.png  one of them: fc2.png, fc2-spectra.png
  hmatrix show matrix.safetensors -o matrix.html         a matrix written by hmatrix.save: a page with a table
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "show",
        run,
        short="draw the blocks of a saved layer and the spectrum of each",
        long="Draw how a layer is stored: its blocks, dense or of low rank, and their singular values. Without an "
        "output, list the layers and their blocks.",
        examples=EXAMPLES,
    )
    parser.add_argument("file", type=Path, help="a file written by hmatrix compress or by hmatrix.save")
    parser.add_argument("--layer", metavar="NAME", help="of a network, which layer to draw (default: the largest)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="a .png, .svg or .html file")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from hmatrix.study.figures.matrix_plot import show
    from hmatrix.study.whole.saved_matrices import describe, saved_matrices

    matrices = saved_matrices(options.file, options.layer)
    if options.output is None:
        for name, matrix in matrices.items():
            print(describe(name, matrix))
        return 0
    name, matrix = max(matrices.items(), key=lambda item: item[1].shape[0] * item[1].shape[1])
    for path in show(matrix, name, options.output):
        print(f"written  {path}")
    return 0
