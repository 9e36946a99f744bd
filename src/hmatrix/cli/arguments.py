"""Arguments that several commands share."""

import argparse
import math
from collections.abc import Callable
from typing import Any

Commands = Any
"""The object that argparse returns for subcommands."""


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    short: str,
    long: str,
    examples: str,
    again: str = "begins anew",
) -> argparse.ArgumentParser:
    """Add a command that `run` runs, and return its parser; `again` says what it does after an interruption."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=short, description=long, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run, again=again)
    return parser


def at_least(least: int, name: str) -> Callable[[str], int]:
    """Return a converter to an integer of at least so much; argparse's messages about other text use its name."""

    def convert(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"got {text}; give an integer of at least {least}")
        return value

    convert.__name__ = name
    return convert


positive = at_least(1, "positive")


def positive_number(text: str) -> float:
    """Convert to a finite number above 0."""
    return _number(text, lambda value: 0 < value < math.inf, "a positive number")


def number_from_zero(text: str) -> float:
    """Convert to a finite number that is not below 0."""
    return _number(text, lambda value: 0 <= value < math.inf, "0 or a positive number")


def fraction(text: str) -> float:
    """Convert to a number above 0 that is 1 at most."""
    return _number(text, lambda value: 0 < value <= 1, "a fraction, such as 0.25 for a quarter")


def _number(text: str, fits: Callable[[float], bool], wanted: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan  # fits nowhere
    if not fits(value):
        raise argparse.ArgumentTypeError(f"got {text}; give {wanted}")
    return value


def list_of(convert: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Convert items that commas separate."""

    def convert_all(text: str) -> tuple[Any, ...]:
        return tuple(convert(part.strip()) for part in text.split(","))

    # argparse names the type of a value that it cannot convert after the function.
    convert_all.__name__ = f"list of {convert.__name__}"
    return convert_all
