#!/usr/bin/env bash
# The same tensors and the same metadata give safetensors files with different bytes.
#
# One would guess: a format that sorts its tensors gives the same bytes for the same content, so that files can be
# compared by their digests. The metadata come in the order of a hash map with a seed of its own for each call: with two
# keys there are two files, even within one process. With one key there is one file.
# Who wants files that can be compared keeps all metadata under one key, as text with sorted keys.
#
# Seen with safetensors 0.8.0, NumPy 2.4.6, Python 3.11, Linux x86-64, on 2026-12-01:
#   different files of 60: 2 with two keys, 1 with one key
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q safetensors==0.8.0 numpy==2.4.6
seen=$("$folder/env/bin/python" -c '
import numpy as np
from safetensors.numpy import save
tensors = {"a": np.zeros(2, np.float32)}
two, one = (
    len({save(tensors, metadata=metadata) for _ in range(60)})
    for metadata in ({"first": "1", "second": "2"}, {"first": "1"})
)
print(f"different files of 60: {two} with two keys, {one} with one key")')
echo "$seen"
[ "$seen" = "different files of 60: 2 with two keys, 1 with one key" ]
