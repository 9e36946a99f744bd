"""Files of progressive heads: the arrays of a packed head in safetensors."""

from pathlib import Path

from hmatrix._support.array_files import read_arrays, write_arrays
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


def read_head(path: Path, *, verify: bool = True) -> PackedHead:
    """Read a head that `write_head` wrote, today or in an older version.

    Parameters
    ----------
    path
        The file.
    verify
        Whether it is checked against its digests, if it has some.

    Raises
    ------
    FormatError
        If the file is missing, truncated, damaged, of another kind or version, or its arrays do not fit together.
    """
    versions = range(_OLDEST, VERSION + 1)
    arrays, _ = read_arrays(path, KEY, versions, "a progressive head", "ProgressiveHead.save", verify=verify)
    try:
        return PackedHead.of_arrays(arrays)
    except (ArgumentError, TypeError) as error:
        raise FormatError(f"file {path}", str(error), "the file is damaged: write it again") from error
