"""``hmatrix cache``: what other commands keep for the next time, shown and cleared."""

import argparse
import time
from pathlib import Path

from hmatrix._support.store import Shelf, StoredEntry, clear, default_cache, largest_size, list_entries, other_bytes
from hmatrix.cli.arguments import Commands, add_command
from hmatrix.errors import ArgumentError

EXAMPLES = """\
examples:
  hmatrix cache                                          what is kept, how large it is, and when it was last used
  hmatrix cache --clear                                  remove all of it
  hmatrix cache --clear features                         remove the inputs of studied layers alone
"""

_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "cache",
        run,
        short="show or clear what is kept for the next time",
        long="Show what commands keep so that nothing is computed twice: features (inputs of studied layers), layers "
        "(compressed ones) and times (the model of this machine's products). All of it can be computed again. Above "
        "10 GB, or a tenth of the disk, the least recently used entries go by themselves.",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "--clear",
        nargs="*",
        choices=[shelf.value for shelf in Shelf],
        metavar="KIND",
        help="remove the entries of these kinds, or all",
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="the folder (default: ~/.cache/hmatrix)")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    root = options.cache or default_cache()
    if options.cache is not None and not root.is_dir():
        raise ArgumentError("--cache", f"{root} is no folder", "name the folder that was given to the other command")
    if options.clear is not None:
        removed = clear(root, [Shelf(name) for name in options.clear] or tuple(Shelf))
        print(f"removed  {_count(removed)} from {root}")
        return 0
    entries = list_entries(root)
    limit = f", of at most {_megabytes(largest_size(root))}" if root.is_dir() else ""
    print(f"cache    {root}: {_count(entries)}{limit}")
    for shelf in Shelf:
        own = [entry for entry in entries if entry.shelf is shelf]
        if own:
            oldest, newest = _ago(own[0].used), _ago(own[-1].used)
            used = newest if newest == oldest else f"{oldest} to {newest}"
            print(f"{shelf:<8} {_count(own)}, last used {used}")
    if others := other_bytes(root):
        print(f"others   {_megabytes(others)} of data sets or earlier versions, which this command leaves alone")
    return 0


def _count(entries: list[StoredEntry]) -> str:
    noun = "entry" if len(entries) == 1 else "entries"
    return f"{len(entries)} {noun}, {_megabytes(sum(entry.size for entry in entries))}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"


def _ago(used: float) -> str:
    seconds = max(time.time() - used, 0.0)
    name, length = next(((name, length) for name, length in _UNITS if seconds >= length), _UNITS[-1])
    number = int(seconds / length)
    return f"{number} {name}{'' if number == 1 else 's'} ago"
