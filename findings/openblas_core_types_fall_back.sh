#!/usr/bin/env bash
# OpenBLAS in NumPy's wheels takes a core type that it has no kernels for, and runs those of another one without a word.
#
# One would guess: OPENBLAS_CORETYPE=Zen runs kernels for Zen, or says that there are none. The wheels are built with few
# core types; a name that OpenBLAS knows is taken, and the next older type that was built runs. Only threadpoolctl tells.
# So a test matrix over core types may run the same kernels twice and call them two processors: ask which one runs.
#
# Seen with NumPy 2.4.6 (OpenBLAS 0.3.31.188), threadpoolctl 3.6.0, Python 3.11, Linux x86-64 with AVX2, on 2026-11-30:
#   Zen -> Haswell, Haswell -> Haswell, Excavator -> Sandybridge, Atom -> Nehalem, Prescott -> Katmai
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
grep -q avx2 /proc/cpuinfo || { echo "needs a processor with AVX2"; exit 77; }
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q numpy==2.4.6 threadpoolctl==3.6.0
seen=
for type in Zen Haswell Excavator Atom Prescott; do
    runs=$(OPENBLAS_CORETYPE=$type "$folder/env/bin/python" -c '
import numpy, threadpoolctl
print(threadpoolctl.threadpool_info()[0]["architecture"])')
    seen+="$type -> $runs, "
done
echo "${seen%, }"
[ "$seen" = "Zen -> Haswell, Haswell -> Haswell, Excavator -> Sandybridge, Atom -> Nehalem, Prescott -> Katmai, " ]
