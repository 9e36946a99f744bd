"""H-matrices in safetensors files: the arrays of the packed form, and a header with a version.

Nothing in a file is executed, and all of it is checked before a kernel sees it.
"""

import os
from pathlib import Path

from hmatrix._support.array_files import read_arrays, read_header, write_arrays
from hmatrix.errors import ArgumentError, FormatError
from hmatrix.matrix import HMatrix, TransposedHMatrix, as_hmatrix
from hmatrix.packed.packed_blocks import OPTIONAL, PackedBlocks

KEY = "hmatrix"
VERSION = 1


def save(matrix: HMatrix | TransposedHMatrix, path: str | os.PathLike[str]) -> None:
    """Write an H-matrix to a safetensors file, all of it or nothing.

    Raises
    ------
    ArgumentError
        If `matrix` is no H-matrix, or the transpose of one with integer codes.
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> H = hm.quantize(np.eye(30), "int8")
    >>> hm.save(H, "eye.safetensors")
    >>> hm.load("eye.safetensors").shape
    (30, 30)
    """
    packed = as_hmatrix("matrix", matrix).pack()
    arrays = packed.arrays()
    del arrays["sizes"]
    write_arrays(arrays, Path(path), KEY, {"version": VERSION, "shape": packed.shape, "quantized": packed.quantized})


def is_matrix(path: str | os.PathLike[str]) -> bool:
    """Return whether a safetensors file has the header of a single H-matrix.

    Raises
    ------
    FormatError
        If it cannot be read.
    """
    header = read_header(Path(path), KEY, "hmatrix")
    return isinstance(header, dict) and header.get("kind", "matrix") == "matrix"


def load(path: str | os.PathLike[str], *, verify: bool = True) -> HMatrix:
    """Read an H-matrix that `save` wrote.

    Parameters
    ----------
    path
        The file. It is read once, to where the matrix keeps it.
    verify
        Whether the file is checked against the digests that `save` wrote into it. Without them, and in older files,
        what makes no matrix is refused, but other coefficients are not told.

    Raises
    ------
    FormatError
        If the file is missing, truncated, damaged, of another kind or version, or its content fits no matrix.

    Examples
    --------
    >>> hm.save(hm.quantize(np.eye(30), "int8"), "eye.safetensors")
    >>> H = hm.load("eye.safetensors")
    >>> np.array_equal(H.to_dense(), np.eye(30))
    True
    """
    path = Path(path)
    subject = f"file {path}"
    arrays, header = read_arrays(path, KEY, (VERSION,), "an H-matrix", "hmatrix.save", verify=verify)
    try:
        (m, n), quantized = header["shape"], header["quantized"]
    except (KeyError, ValueError, TypeError) as error:
        raise FormatError(subject, "has no header of an H-matrix", "give a file written by hmatrix.save") from error
    if not isinstance(quantized, bool):
        raise FormatError(subject, f"has 'quantized' of {quantized!r}", "the file is damaged: write it again")
    if missing := {"leaves", "data"} - arrays.keys():
        raise FormatError(subject, f"has no {' and no '.join(sorted(missing))}", "give a file written by hmatrix.save")
    if unknown := arrays.keys() - {"leaves", "data", *OPTIONAL}:
        raise FormatError(subject, f"has unknown arrays {sorted(unknown)}", "give a file written by hmatrix.save")
    try:
        return HMatrix(PackedBlocks((m, n), arrays["leaves"], arrays["data"], quantized, *map(arrays.get, OPTIONAL)))
    except ArgumentError as error:
        raise FormatError(subject, str(error), "the file is damaged: write it again") from error
