"""Files of progressive heads: the arrays of a packed head in safetensors."""

from pathlib import Path

from hmatrix._support.files import read_arrays, write_arrays
from hmatrix.errors import ArgumentError, FormatError
from hmatrix.heads.packed_head import PackedHead

KEY = "hmatrix_progressive"
VERSION = 4
_OLDEST = 2


def write_head(packed: PackedHead, path: Path) -> None:
    """Write a head, all of it or nothing.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    write_arrays(packed.arrays(), path, KEY, {"version": VERSION})


def read_head(path: Path) -> PackedHead:
    """Read a head that `write_head` wrote, today or in an older version.

    Raises
    ------
    FormatError
        If the file is missing, truncated, of another kind or version, or its arrays do not fit together.
    """
    arrays, _ = read_arrays(path, KEY, range(_OLDEST, VERSION + 1), "a progressive head", "ProgressiveHead.save")
    try:
        return PackedHead.of_arrays(arrays)
    except (ArgumentError, TypeError) as error:
        raise FormatError(f"file {path}", str(error), "the file is damaged: write it again") from error
