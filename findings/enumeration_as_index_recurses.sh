#!/usr/bin/env bash
# torch.compile recurses until Python's limit where a tuple is indexed by a member of an IntEnum.
#
# One would guess: `(4, 8)[Size.LARGE]` is 8, compiled as uncompiled, since an IntEnum is an int. torch 2.13.0's tracer
# raises InternalTorchDynamoError (RecursionError: maximum recursion depth exceeded); 2.14.1 gives 8. With `int(self)` as
# the index 2.13.0 gives 8, too. Compiled training of our layers failed at a look-up of this kind.
#
# Seen with torch 2.13.0 (CPU), Python 3.11.7, Linux x86-64, on 2026-11-30:
#   uncompiled: 8.0; compiled: InternalTorchDynamoError, RecursionError; with int(): 8.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.13.0 numpy==2.4.6
cat >"$folder/sizes.py" <<'PYTHON'
import enum

import torch


class Size(enum.IntEnum):
    SMALL = 0
    LARGE = 1

    @property
    def bits(self):
        return (4, 8)[self]

    @property
    def bits_by_int(self):
        return (4, 8)[int(self)]


def of_member(x, size):
    return x * size.bits


def of_int(x, size):
    return x * size.bits_by_int


def compiled(function):
    try:
        return torch.compile(function, backend="eager")(torch.ones(1), Size.LARGE).item()
    except Exception as error:
        return f"{type(error).__name__}, {'RecursionError' if 'RecursionError' in str(error) else error}"


print(f"uncompiled: {of_member(torch.ones(1), Size.LARGE).item()}; compiled: {compiled(of_member)}; "
      f"with int(): {compiled(of_int)}")
PYTHON
seen=$("$folder/env/bin/python" "$folder/sizes.py" 2>/dev/null)
echo "$seen"
[ "$seen" = "uncompiled: 8.0; compiled: InternalTorchDynamoError, RecursionError; with int(): 8.0" ]
