"""Digests of arrays and of headers: a file that has them knows when it is damaged.

They find accidents, not attacks: XXH3 is no cryptographic function. It is as fast as memory, so that a check takes a
small part of the time of reading.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from xxhash import xxh3_64

from hmatrix._support.typing import AnyArray
from hmatrix.errors import FormatError

ARRAYS = "array_digests"
"""Key of a header: digests of arrays by name."""

HEADER = "header_digest"
"""Key of a header: the digest of all its other keys."""

DIGESTS = (ARRAYS, HEADER)
"""Both keys."""


def digest_of(name: str, dtype: str, shape: Sequence[int], content: Iterable[AnyArray]) -> str:
    """Return the digest of an array, which knows its name: two that change places are told, too.

    Parameters
    ----------
    name, dtype, shape
        Name, type and shape of the array.
    content
        Its bytes, in contiguous pieces of any lengths.
    """
    digest = xxh3_64(f"{name} {dtype} {list(shape)}".encode())
    for piece in content:
        digest.update(piece.data)
    return digest.hexdigest()


def digests_of(arrays: Mapping[str, AnyArray]) -> dict[str, str]:
    """Return the digests of contiguous arrays by name."""
    return {
        name: digest_of(name, array.dtype.name, array.shape, [array.reshape(-1).view(np.uint8)])
        for name, array in arrays.items()
    }


def sealed(header: Mapping[str, object], digests: Mapping[str, str]) -> dict[str, Any]:
    """Return a header of plain values with digests of the file's arrays, and one of the header itself.

    Raises
    ------
    TypeError, ValueError
        If it cannot be written as JSON.
    """
    # As it will be read: tuples as lists, and all keys as strings.
    plain = json.loads(json.dumps({**header, ARRAYS: digests}))
    return {**plain, HEADER: _of_plain(plain)}


def check_header(subject: str, header: Mapping[str, Any]) -> dict[str, str]:
    """Check a header against its own digest, and return the digests of the arrays; of older files there are none.

    Raises
    ------
    FormatError
        If it does not fit, or has one of the two without the other.
    """
    if HEADER not in header and ARRAYS not in header:
        return {}
    rest = {key: value for key, value in header.items() if key != HEADER}
    digests = header.get(ARRAYS)
    if not isinstance(digests, dict) or header.get(HEADER) != _of_plain(rest):
        raise _damaged(subject, "its header does")
    return digests


def check_digests(subject: str, found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Check digests of arrays against those of the header; there are none in older files.

    Raises
    ------
    FormatError
        If they are others.
    """
    wrong = [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]
    if expected and wrong:
        raise _damaged(subject, f"{', '.join(wrong)} {'do' if len(wrong) > 1 else 'does'}")


def _damaged(subject: str, what: str) -> FormatError:
    came = f"is damaged: {what} not fit the digest that was written"
    return FormatError(subject, came, "write it again, or read it as it is with verify=False")


def _of_plain(header: Mapping[str, Any]) -> str:
    return xxh3_64(json.dumps(header, sort_keys=True).encode()).hexdigest()
