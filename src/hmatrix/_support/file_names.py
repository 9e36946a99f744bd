"""File names made of names that come from a file or a user: of a tensor, a layer, a network."""

import hashlib
import re

_PLAIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
"""Names that every system takes as they are."""

_DIGEST = 16
"""Letters of a digest."""

_LIKE_A_DIGEST = re.compile(rf".*-[0-9a-f]{{{_DIGEST}}}", re.IGNORECASE)

_LONGEST = 80
"""Letters that are kept: systems allow 255 bytes, with what is appended."""

_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
"""Names of Windows's devices, whatever their ending."""


def file_name(*names: str) -> str:
    """Return a file name, without an ending, for a name, or for several together.

    Plain names stay, joined by hyphens. Others keep their harmless letters, and a digest of the names tells them apart,
    so that no two (of as many names) share a file, and none names a folder. Capitals stay, which a system may take for
    small letters: who writes several files compares their names by `str.casefold`.

    Parameters
    ----------
    names
        Any texts.

    Examples
    --------
    >>> from hmatrix._support.file_names import file_name
    >>> file_name("resnet50", "fc"), file_name("../../etc", "passwd")
    ('resnet50-fc', 'etc-passwd-31fe3a0fed9e6a55')
    """
    joined = "-".join(names)
    # Without hyphens in those after the first, it is known where each begins.
    is_plain = all(_PLAIN.fullmatch(name) for name in names) and not any("-" in name for name in names[1:])
    if (
        is_plain
        and len(joined) <= _LONGEST
        and not _RESERVED.fullmatch(joined)
        and not _LIKE_A_DIGEST.fullmatch(joined)
    ):
        return joined
    digest = hashlib.sha256(repr(names).encode()).hexdigest()[:_DIGEST]
    kept = "-".join(re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")[:_LONGEST] for name in names)
    return f"{kept[:_LONGEST].strip('-') or 'unnamed'}-{digest}"
