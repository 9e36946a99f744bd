"""The command ``hmatrix``: one module a command, each thin."""

import argparse
import sys
from collections.abc import Sequence

import hmatrix
from hmatrix.cli import bench, cache, compress, evaluate, finetune, show, study
from hmatrix.errors import HMatrixError

_COMMANDS = (study, compress, finetune, evaluate, show, bench, cache)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except HMatrixError as error:
        print(f"hmatrix: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        package = (error.name or "a package").split(".")[0]
        if package == "hmatrix":
            raise
        extra = {"transformers": "transformers"}.get(package, "hmatrix[study]")
        print(f"hmatrix: {package} is not installed; install it with: pip install '{extra}'", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nhmatrix: interrupted; given again, the command {options.again}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hmatrix", description="Hierarchical matrices for trained networks.")
    parser.add_argument("--version", action="version", version=f"hmatrix {hmatrix.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for command in _COMMANDS:
        command.add(commands)
    return parser
