"""Damaged files of every kind: refused in words, or read as what they held.

None crashes, takes long, or much memory.
"""

from pathlib import Path

import numpy as np
import pytest
from heads import layer
from marks import nightly
from matrices import permutation, random_leaves
from matrix_files import mixed
from mutations import check_mutations

import hmatrix as hm

MOST = 100 << 20
"""Bytes of memory beside twice the file."""

KINDS = ["float64", "float32", "mixed", "int8", "trellis3", "permuted"]


def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(key)))


@pytest.fixture
def bounded():
    """The peak of memory stays within bounds, where the system tells it."""
    peak = Path("/proc/self/clear_refs")
    if not peak.exists():
        yield
        return
    peak.write_text("5")
    start = memory("VmRSS")
    yield
    assert memory("VmHWM") - start < MOST


def packed_arrays(read):
    return read.pack().arrays()


def written_matrix(kind, path):
    match kind:
        case "mixed":
            H = mixed("int8")
        case "permuted":
            leaves = random_leaves((50, 50), seed=3)
            H = hm.HMatrix.from_leaves((50, 50), leaves, permutation(50), permutation(50)[::-1].copy())
        case _:
            leaves = random_leaves((40, 45), seed=4, dtype=np.float64 if kind == "float64" else np.float32)
            H = hm.HMatrix.from_leaves((40, 45), leaves).astype(kind, group=20)
    hm.save(H, path)


def use_matrix(H):
    H @ np.ones(H.shape[1])
    H.T @ np.ones((H.shape[0], 2))


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("count", [1500, nightly(130_000)])
@pytest.mark.parametrize("kind", KINDS)
def test_matrices(tmp_path, kind, count):
    path = tmp_path / "matrix.safetensors"
    written_matrix(kind, path)
    rng = np.random.default_rng(KINDS.index(kind))
    refused = check_mutations(rng, path, hm.load, count, arrays_of=packed_arrays, use=use_matrix)
    assert refused > count / 2


HEADS = {
    "low rank": {"ranks": [12], "precisions": ["int8"], "coarse_precisions": ["int4"], "cluster_rows": [0]},
    "clusters": {"ranks": [6], "precisions": ["float32"], "cluster_rows": [8]},
    "coarse matrix": {"precisions": ["bfloat16"]},
}


def written_head(kind, path):
    weight, bias, X, _ = layer(m=60, n=30, samples=120)
    coarse = {"coarse": hm.quantize(weight, "int8")} if kind == "coarse matrix" else {}
    hm.progressive(weight, bias, calibration=X, agreement=0.9, **HEADS[kind], **coarse).save(path)


def use_head(head):
    x = np.ones((2, head.shape[1]), np.float32)
    head(x)
    head.topk(x, 1)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("count", [1000, nightly(60_000)])
@pytest.mark.parametrize("kind", HEADS)
def test_heads(tmp_path, kind, count):
    path = tmp_path / "head.safetensors"
    written_head(kind, path)
    rng = np.random.default_rng(list(HEADS).index(kind))
    refused = check_mutations(rng, path, hm.ProgressiveHead.load, count, arrays_of=packed_arrays, use=use_head)
    assert refused > count / 2
