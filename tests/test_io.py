"""H-matrices written to files and read again; places that cannot be written to."""

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matrices import equal_bits, partitions, permutation, random_matrix
from matrix_files import ARRAYS, mixed, same, stored_matrix
from peaks import needs_peaks, peak_of
from safetensors import safe_open

import hmatrix as hm
from hmatrix._support import array_files
from hmatrix.errors import OutputError
from hmatrix.lowrank.factors import LowRank
from hmatrix.packed.packing import PackedLeaf, pack


@pytest.fixture(name="H")
def matrix():
    return stored_matrix()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "matrix.safetensors"


@given(drawn=partitions(), permuted=st.booleans())
def test_round_trip(tmp_path_factory, drawn, permuted):
    shape, leaves = drawn
    H = hm.HMatrix(pack(shape, leaves, *([permutation(size) for size in shape] if permuted else [])))
    path = tmp_path_factory.getbasetemp() / "round_trip.safetensors"
    hm.save(H, path)
    assert same(hm.load(path), H)


@pytest.mark.parametrize("kind", [str, os.fspath, lambda path: path])
def test_paths(H, path, kind):
    hm.save(H, kind(path))
    assert same(hm.load(kind(path)), H)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_products_of_what_was_read(H, path):
    hm.save(H, path)
    x = random_matrix(70, 3)
    assert equal_bits(hm.load(path) @ x, H @ x)


def test_a_file_says_what_it_is(H, path):
    hm.save(H, path)
    with safe_open(path, framework="numpy") as file:
        assert set(file.keys()) == set(ARRAYS)
        header = json.loads(file.metadata()["hmatrix"])
    assert len(header.pop("header_digest")) == 16
    assert header.pop("array_digests").keys() == set(ARRAYS)
    assert header == {"version": 1, "shape": [90, 70], "quantized": False}
    assert path.stat().st_size < H.storage().total + 1000


def test_an_older_file_is_replaced(H, path):
    hm.save(hm.build(np.eye(3), truncation=hm.Truncation(max_rank=1)), path)
    hm.save(H, path)
    assert same(hm.load(path), H)


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_others_may_read_a_file_as_they_may_any_other(H, path):
    hm.save(H, path)
    other = path.with_name("other")
    other.write_bytes(b"")
    assert oct(path.stat().st_mode) == oct(other.stat().st_mode)


# What cannot be written.


def refuse(*_, **__):
    raise OSError("no space left")


def write_a_part(_, path, **__):
    path.write_bytes(b"part of a file")
    refuse()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda patch: patch.setattr(array_files, "save_file", refuse),
        lambda patch: patch.setattr(array_files, "save_file", write_a_part),
        lambda patch: patch.setattr("pathlib.Path.replace", refuse),
    ],
)
@pytest.mark.parametrize("before", [None, b"older"])
def test_all_or_nothing(H, path, monkeypatch, spoil, before):
    if before is not None:
        path.write_bytes(before)
    spoil(monkeypatch)
    with pytest.raises(OutputError, match=r"matrix\.safetensors: cannot be written \(no space left\)"):
        hm.save(H, path)
    assert [file.read_bytes() for file in path.parent.iterdir()] == ([] if before is None else [before])


def test_places_that_cannot_be_written_to(H, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "directory" / "inner").mkdir(parents=True)
    for place in ("missing/matrix", "file/matrix", "directory"):
        with pytest.raises(OutputError, match=f"file .*{place}: cannot be written"):
            hm.save(H, tmp_path / place)
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["directory", "file", "inner"]


@pytest.mark.parametrize("place", ["", ".", "/"])
def test_places_without_a_name(H, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="file"):
        hm.save(H, place)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", [*(precision.name for precision in hm.Precision), "mixed"])
@pytest.mark.parametrize("activations", ["exact", "int8"])
def test_round_trip_of_every_precision(H, path, precision, activations):
    H = mixed(activations) if precision == "mixed" else H.astype(precision, activations=activations, group=16)
    hm.save(H, path)
    other = hm.load(path)
    assert same(other, H)
    assert (other.activations.value, other.storage()) == (activations, H.storage())
    assert [leaf.precision for leaf in other.leaves()] == [leaf.precision for leaf in H.leaves()]
    for x in (random_matrix(70, 1)[:, 0], random_matrix(70, 9)):
        assert equal_bits(other @ x, H @ x)
        y = H @ x
        assert equal_bits(other.T @ y, H.T @ y)


@needs_peaks
@pytest.mark.parametrize("kind", ["matrix", "codes", "head"])
def test_the_memory_of_loading_is_that_of_the_file(tmp_path, kind):
    weight = np.random.default_rng(0).standard_normal((8000, 1000)).astype(np.float32)
    path = tmp_path / "file"
    match kind:
        case "matrix":
            hm.save(hm.quantize(weight, "float32"), path)
        case "codes":
            leaf = PackedLeaf(slice(0, 30_000), slice(0, 1000), LowRank(np.ones((30_000, 500)), np.ones((1000, 500))))
            hm.save(hm.HMatrix.from_leaves((30_000, 1000), [leaf]).astype("bfloat16"), path)
        case "head":
            hm.progressive(weight, rule=hm.FixedRows(4), ranks=[8], precisions=["bfloat16"]).save(path)
    load = "hm.ProgressiveHead.load" if kind == "head" else "hm.load"
    before = f"import hmatrix as hm; hm.quantize([[1.0]], 'int8'); path = {str(path)!r}"
    assert peak_of(before, f"{load}(path)") <= 1.1 * path.stat().st_size


def test_an_unwritable_path(H):
    with pytest.raises(OutputError, match="cannot be written"):
        hm.save(H, "a\0b")
