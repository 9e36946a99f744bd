"""What a result depends on beside its input: the package's own code, and the CPU."""

import hashlib
import platform
import re
from functools import cache
from pathlib import Path

from hmatrix import _core

PACKAGE = Path(__file__).parents[1]
"""The folder of the package's code."""


@cache
def code_digest(*left_out: str) -> str:
    """Return a digest of the package's code and of its kernel: what other code computed is not taken for this one's.

    Parameters
    ----------
    left_out
        Subpackages that the result does not depend on.
    """
    digest = hashlib.sha256()
    names = {file.relative_to(PACKAGE).as_posix(): file for file in sorted(PACKAGE.rglob("*.py"))}
    kept = {name: file for name, file in names.items() if name.split("/")[0] not in left_out}
    for name, file in {**kept, "_core": Path(str(_core.__file__))}.items():
        content = file.read_bytes()
        digest.update(f"{name} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()


def cpu_name() -> str:
    """Return the name that the CPU gives itself, or its architecture."""
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match.group(1) if match else platform.processor() or platform.machine()
