"""The command ``hmatrix``."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

import hmatrix
from hmatrix.errors import ArgumentError, HMatrixError

EXAMPLES = """\
examples:
  hmatrix study                                          the embedded network, in a minute or two
  hmatrix study mobilenet_v2 --data imagenet/val         a torchvision or timm network
  hmatrix study resnet50 --weights mine.safetensors --data imagenet/val --ranks 10,30,50
  hmatrix study head.safetensors                         a lone matrix: time, storage, error
  hmatrix study studies/paper.toml                       a study file
"""


BENCH_EXAMPLES = """\
examples:
  hmatrix bench                                          a random matrix of 1000 x 1280
  hmatrix bench 4096x4096 --threads 2 --products 100
  hmatrix bench head.safetensors --batch 8               a matrix written by hmatrix.save
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except HMatrixError as error:
        print(f"hmatrix: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nhmatrix: interrupted; a study goes on from here when the same command is given", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hmatrix", description="Hierarchical matrices for trained networks.")
    parser.add_argument("--version", action="version", version=f"hmatrix {hmatrix.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    study = commands.add_parser(
        "study",
        help="measure time, storage and accuracy of a network's layer as an H-matrix",
        description="Approximate the last dense layer of a network by H-matrices, and measure time, storage and "
        "accuracy for every method and rank. Interrupted, the same command goes on where it stopped.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    study.add_argument(
        "model", nargs="?", help="a torchvision or timm name, a .safetensors file, or a study file (.toml)"
    )
    study.add_argument("--weights", type=Path, metavar="FILE", help="safetensors file or torch state dict")
    study.add_argument("--data", metavar="DATA", help="an ImageNet validation folder, imagenette, or digits")
    study.add_argument("--layer", metavar="NAME", help="the nn.Linear to approximate (default: the last one)")
    study.add_argument(
        "--methods",
        type=_list_of(str),
        metavar="A,B",
        help="svd, qr, aca, partial-aca, randomized-svd (default: svd,qr,aca)",
    )
    study.add_argument(
        "--ranks", type=_list_of(_positive), metavar="1,10,20", help="ranks to try (default: 1,10,20,...,120)"
    )
    study.add_argument(
        "--leaf-size", type=_positive, metavar="N", help="clusters of at most this size are not split (default: 60)"
    )
    study.add_argument("--eta", type=float, metavar="X", help="admissible: max(diam) <= eta * dist (default: 2)")
    study.add_argument(
        "--products", type=_positive, metavar="N", help="products to time (default: until the median is stable)"
    )
    study.add_argument("--threads", type=_positive, metavar="N", help="threads of every product (default: 1)")
    study.add_argument("--output", type=Path, metavar="DIR", help="where the results go (default: results/NAME)")
    study.add_argument("--cache", type=Path, metavar="DIR", help="where features are kept (default: ~/.cache/hmatrix)")
    study.set_defaults(run=_study)
    bench = commands.add_parser(
        "bench",
        help="time the products of a matrix in all precisions",
        description="Time the product of a matrix in several precisions against the dense products, and against "
        "ONNX Runtime and torchao where they are installed, in one alternating run.",
        epilog=BENCH_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bench.add_argument("matrix", nargs="?", default="1000x1280", help="ROWSxCOLUMNS, or a saved H-matrix")
    bench.add_argument("--batch", type=_positive, default=1, metavar="N", help="vectors of a call (default: 1)")
    bench.add_argument("--threads", type=_positive, default=1, metavar="N", help="threads of each product (default: 1)")
    bench.add_argument("--products", type=_positive, metavar="N", help="calls of each (default: until it is stable)")
    bench.add_argument("--cold", action="store_true", help="let all data come from memory in each call")
    bench.add_argument("--instructions", action="store_true", help="count the instructions of a call, too (Linux)")
    bench.set_defaults(run=_bench)
    return parser


def _study(options: argparse.Namespace) -> int:
    try:
        from hmatrix.study.choices import Choices, choose
        from hmatrix.study.run import run_study
        from hmatrix.study.tables import table_note, table_rows, to_text
    except ModuleNotFoundError as error:
        return _missing(error)
    cache = options.cache or _default_cache()
    study = choose(Choices(**{field.name: getattr(options, field.name) for field in fields(Choices)}), cache)
    print(
        f"{study.title}: kernel {hmatrix.backend().name}, {study.timing.threads} thread(s), results in {study.output}"
    )
    if study.data is None:
        print("no data: accuracy is not measured (name some with --data)")
    for records in run_study(study, cache):
        print()
        print(to_text(table_rows(records), table_note(records)))
    return 0


def _bench(options: argparse.Namespace) -> int:
    try:
        from hmatrix.study.bench import bench, forms, to_markdown
        from hmatrix.study.environment import environment
    except ModuleNotFoundError as error:
        return _missing(error)
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


def _missing(error: ModuleNotFoundError) -> int:
    package = (error.name or "a package").split(".")[0]
    print(f"hmatrix: {package} is not installed; install it with: pip install 'hmatrix[study]'", file=sys.stderr)
    return 1


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hmatrix"


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text}; give an integer of at least 1")
    return value


def _list_of(convert: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    def convert_all(text: str) -> tuple[Any, ...]:
        return tuple(convert(part.strip()) for part in text.split(","))

    # argparse names the type of a value that it cannot convert after the function.
    convert_all.__name__ = f"list of {convert.__name__.strip('_')}"
    return convert_all


if __name__ == "__main__":
    sys.exit(main())
