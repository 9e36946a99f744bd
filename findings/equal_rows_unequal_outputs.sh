#!/usr/bin/env bash
# Equal rows of a matrix get unequal products, and which of them is the largest depends on the processor.
#
# One would guess: where all rows of A are the same, all entries of A x are, too, and argmax names the first row. OpenBLAS
# adds up the rows at the edge of a tile in another order than those inside, so that they differ in the last bit. With
# the kernels of Haswell (AVX2) argmax names a later row for some inputs, with those of Nehalem never. A
# vocabulary has such rows (padding, unused tokens): two machines disagree about the largest of equal logits.
#
# Seen with NumPy 2.4.6 (OpenBLAS 0.3.31.188), Python 3.11, Linux x86-64 with AVX2, one thread, on 2026-11-30:
#   Nehalem: 0 of 60 inputs, Haswell: 11 of 60 inputs
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
grep -q avx2 /proc/cpuinfo || { echo "needs a processor with AVX2"; exit 77; }
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q numpy==2.4.6
seen=
for type in Nehalem Haswell; do
    count=$(OPENBLAS_CORETYPE=$type OPENBLAS_NUM_THREADS=1 "$folder/env/bin/python" -c '
import numpy as np
row = np.random.default_rng(0).standard_normal(40).astype(np.float32)
X = np.random.default_rng(1).standard_normal((60, 40)).astype(np.float32)
print(np.count_nonzero((X @ np.tile(row, (50, 1)).T).argmax(axis=1)))')
    seen+="$type: $count of 60 inputs, "
done
echo "${seen%, }"
[ "$seen" = "Nehalem: 0 of 60 inputs, Haswell: 11 of 60 inputs, " ]
