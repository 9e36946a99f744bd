"""What the published study, and earlier work on a trained head, measured."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import hmatrix as hm

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif("HMATRIX_DATA" not in os.environ, reason="HMATRIX_DATA names no folder"),
]
DATA = Path(os.environ.get("HMATRIX_DATA", ""))
COMPRESSORS = {"svd": hm.TruncatedSVD(), "qr": hm.PivotedQR()}
RANKS = [1, *range(10, 121, 10)]
TREE_BYTES = range(86_825, 88_034)
"""Bytes of the study's own trees: what its files hold beside coefficients."""


@pytest.fixture(scope="module")
def published():
    with (DATA / "reference" / "hlibpro_googlenet.csv").open(newline="") as file:
        return {(row["method"], int(row["rank"])): int(row["bytes"]) for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def head():
    return load_file(DATA / "models" / "mobilenetv2_100.safetensors")["classifier.weight"]


def coefficients(H):
    storage = H.storage()
    return storage.near_field + storage.far_field


@pytest.mark.parametrize("method", COMPRESSORS)
@pytest.mark.parametrize("rank", RANKS)
def test_published_bytes(published, method, rank):
    weight = np.random.default_rng(rank).standard_normal((1000, 1024))
    H = hm.build(weight, compressor=COMPRESSORS[method], truncation=hm.Truncation(max_rank=rank))
    assert published[method, rank] - coefficients(H) in TREE_BYTES


@pytest.mark.parametrize(
    ("rank", "storage", "svd", "qr"),
    [
        (10, 0.247, 0.807, 0.855),
        (20, 0.397, 0.696, 0.765),
        (30, 0.512, 0.616, 0.701),
        (50, 0.673, 0.485, 0.580),
        (70, 0.811, 0.392, 0.497),
        (100, 0.892, 0.275, 0.364),
    ],
)
def test_published_errors(head, rank, storage, svd, qr):
    assert head.shape == (1000, 1280)
    for compressor, error in ((hm.TruncatedSVD(), svd), (hm.PivotedQR(), qr)):
        H = hm.build(head, compressor=compressor, truncation=hm.Truncation(max_rank=rank))
        assert round(coefficients(H) / head.nbytes, 3) == storage
        assert round(hm.relative_error(head, H), 3) == error
