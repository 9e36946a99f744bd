"""``hmatrix bench``: the products of a matrix in all precisions, timed."""

import argparse
import re
from pathlib import Path

import numpy as np

import hmatrix
from hmatrix.cli.arguments import Commands, add_command, positive
from hmatrix.errors import ArgumentError

EXAMPLES = """\
examples:
  hmatrix bench                                          a random matrix of 1000 x 1280
  hmatrix bench 4096x4096 --threads 2 --products 100
  hmatrix bench head.safetensors --batch 8               a matrix written by hmatrix.save
"""


def add(commands: Commands) -> None:
    """Add the command."""
    bench = add_command(
        commands,
        "bench",
        run,
        short="time the products of a matrix in all precisions",
        long="Time the product of a matrix in several precisions against the dense products, and against "
        "ONNX Runtime and torchao where they are installed, in one alternating run.",
        examples=EXAMPLES,
    )
    bench.add_argument("matrix", nargs="?", default="1000x1280", help="ROWSxCOLUMNS, or a saved H-matrix")
    bench.add_argument("--batch", type=positive, default=1, metavar="N", help="vectors of a call (default: 1)")
    bench.add_argument("--threads", type=positive, default=1, metavar="N", help="threads of each product (default: 1)")
    bench.add_argument("--products", type=positive, metavar="N", help="calls of each (default: until it is stable)")
    bench.add_argument("--cold", action="store_true", help="let all data come from memory in each call")
    bench.add_argument("--instructions", action="store_true", help="count the instructions of a call, too (Linux)")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from hmatrix.study.bench.benchmark import bench, forms, to_markdown
    from hmatrix.study.measure.environment import environment

    if match := re.fullmatch(r"(\d+)x(\d+)", options.matrix):
        m, n = int(match[1]), int(match[2])
        if m < 1 or n < 1:
            raise ArgumentError("matrix", f"got {options.matrix}", "give ROWSxCOLUMNS, both at least 1")
        weight = np.random.default_rng(0).standard_normal((m, n)).astype(np.float32)
        matrices = forms(weight)
    else:
        saved = hmatrix.load(options.matrix)
        weight, matrices = saved.to_dense().astype(np.float32), {f"hmatrix {Path(options.matrix).name}": saved}
    lines, missing = bench(
        weight,
        matrices,
        batch=options.batch,
        thread_count=options.threads,
        products=options.products,
        cold=options.cold,
        instructions=options.instructions,
    )
    found = environment(options.threads)
    print(f"{weight.shape[0]} x {weight.shape[1]}, batch {options.batch}, {options.threads} thread(s), ", end="")
    print("cold caches, " * options.cold, end="")
    print(f"kernel {found['kernel']}, {found['cpu']}, {', '.join(found['blas'])}\n")
    print(to_markdown(lines))
    if missing:
        print("\n".join(["", "not timed:", *(f"  {reason}" for reason in missing)]))
    return 0
