import json
import os
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matrices import equal_bits, partitions, permutation, random_leaves, random_matrix, run_limited
from safetensors import safe_open
from safetensors.numpy import save_file

import hmatrix as hm
from hmatrix import files
from hmatrix.errors import FormatError, OutputError
from hmatrix.packing import PackedLeaf, pack

SHAPE = 90, 70
ARRAYS = ("leaves", "data", "row_permutation", "column_permutation")


@pytest.fixture(name="H")
def matrix():
    return hm.HMatrix.from_leaves(SHAPE, random_leaves(SHAPE, seed=5), permutation(90), permutation(70))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "matrix.safetensors"


def same(a, b):
    """Whether two H-matrices have the same packed form."""
    a, b = a.pack(), b.pack()
    for name in ARRAYS:
        ours, theirs = getattr(a, name), getattr(b, name)
        if (ours is None) != (theirs is None) or (ours is not None and not equal_bits(ours, theirs)):
            return False
    return (a.shape, a.quantized) == (b.shape, b.quantized)


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
        assert json.loads(file.metadata()["hmatrix"]) == {"version": 1, "shape": [90, 70], "quantized": False}
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
        lambda patch: patch.setattr(files, "save_file", refuse),
        lambda patch: patch.setattr(files, "save_file", write_a_part),
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


# What cannot be read.


def arrays_of(H):
    packed = H.pack()
    return {name: getattr(packed, name) for name in ARRAYS}


def write(path, arrays, header=None, **metadata):
    """Write a file by hand."""
    header = json.dumps({"version": 1, "shape": SHAPE, "quantized": False}) if header is None else header
    save_file(arrays, path, metadata={"hmatrix": header, **metadata})


def test_files_written_by_hand_are_read(H, path):
    write(path, arrays_of(H), other="metadata")
    assert same(hm.load(path), H)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"\0", b"\xff" * 100, b"{}", (8).to_bytes(8, "little"), b"\2" + b"\0" * 7 + b"{}", b"PK\3\4" * 50],
)
def test_files_that_are_no_safetensors_files(path, content):
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FormatError, match=r"file .*matrix\.safetensors: (cannot be read|has no header)"):
        hm.load(path)


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(FormatError, match=f"file {tmp_path}: cannot be read"):
        hm.load(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "not JSON",
        "[]",
        "[1]",
        "7",
        "null",
        "{}",
        '{"version": 1}',
        '{"shape": [90, 70]}',
        '{"version": 1, "shape": [90, 70]}',
        '{"version": 1, "quantized": false}',
        '{"version": 1, "shape": 90, "quantized": false}',
        '{"version": 1, "shape": [90], "quantized": false}',
        '{"version": 1, "shape": [90, 70, 1], "quantized": false}',
        '{"version": 1, "shape": null, "quantized": false}',
        '{"version": 1, "shape": [90, 70], "quantized": false',
        "[" * 100_000,
    ],
    ids=lambda header: header[:50],
)
def test_files_without_a_header(H, path, header):
    write(path, arrays_of(H), header)
    with pytest.raises(FormatError, match="has no header of an H-matrix; give a file written by"):
        hm.load(path)


def test_files_of_others(H, path):
    save_file(arrays_of(H), path)
    with pytest.raises(FormatError, match="has no header of an H-matrix"):
        hm.load(path)
    save_file(arrays_of(H), path, metadata={"format": "pt"})
    with pytest.raises(FormatError, match="has no header of an H-matrix"):
        hm.load(path)


@pytest.mark.parametrize("version", ["2", "0", "-1", "1.5", "Infinity", "NaN", "true", '"1"', "null", "[1]", "1e999"])
def test_other_versions(H, path, version):
    write(path, arrays_of(H), f'{{"version": {version}, "shape": [90, 70], "quantized": false}}')
    with pytest.raises(FormatError, match=r"has version .*this release reads version 1|has no header"):
        hm.load(path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("[90, 71]", "leaves|column_permutation"),
        ("[91, 70]", "leaves|row_permutation"),
        ("[70, 90]", "leaves"),
        ("[0, 70]", "shape"),
        ("[-90, 70]", "shape"),
        ("[90.0, 70]", "shape"),
        ("[true, 70]", "shape"),
        ('["90", 70]', "shape"),
        ("[[90], 70]", "shape"),
        ("[90, 4294967296]", "shape"),
        ('"ab"', "shape"),
    ],
)
def test_shapes_that_do_not_fit(H, path, shape, message):
    write(path, arrays_of(H), f'{{"version": 1, "shape": {shape}, "quantized": false}}')
    with pytest.raises(FormatError, match=f"file .*: ({message}).*the file is damaged"):
        hm.load(path)


@pytest.mark.parametrize("missing", [["leaves"], ["data"], ["data", "leaves"]])
def test_missing_arrays(H, path, missing):
    arrays = {name: array for name, array in arrays_of(H).items() if name not in missing}
    write(path, arrays)
    with pytest.raises(FormatError, match=f"has no {' and no '.join(missing)}; give a file written by"):
        hm.load(path)


def test_unknown_arrays(H, path):
    write(path, arrays_of(H) | {"bias": np.zeros(90)})
    with pytest.raises(FormatError, match=r"has unknown arrays \['bias'\]"):
        hm.load(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("leaves", lambda a: a.astype(np.int64)),
        ("leaves", lambda a: a.astype(np.float32)),
        ("leaves", lambda a: a[:-1]),
        ("leaves", lambda a: a.ravel()),
        ("leaves", lambda a: a[:0]),
        ("data", lambda a: a[:-1]),
        ("data", lambda a: a.astype(np.float16)),
        ("data", lambda a: a.view(np.int64)),
        ("data", lambda a: a[:, None]),
        ("data", lambda a: a * np.nan),
        ("row_permutation", lambda p: p[:-1]),
        ("row_permutation", lambda p: p * 0),
        ("row_permutation", lambda p: p.astype(np.int64)),
        ("column_permutation", lambda p: p + 1),
        ("column_permutation", lambda p: p - 1),
        ("column_permutation", lambda p: p.view(np.uint32)),
    ],
)
def test_arrays_that_do_not_fit(H, path, name, change):
    arrays = arrays_of(H)
    write(path, arrays | {name: np.ascontiguousarray(change(arrays[name]))})
    with pytest.raises(FormatError, match=f"file .*: .*{name}|data.*the file is damaged"):
        hm.load(path)


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2", "F16", "I16", "U16"])
def test_types_that_numpy_may_not_have(H, path, dtype):
    """A file whose coefficients claim another type of two bytes, or of one, for as many entries."""
    size = 1 if dtype.startswith("F8") else 2
    data = bytes(H.pack().data.size * size)
    leaves = H.pack().leaves
    header = {
        "__metadata__": {"hmatrix": json.dumps({"version": 1, "shape": SHAPE, "quantized": False})},
        "data": {"dtype": dtype, "shape": [H.pack().data.size], "data_offsets": [0, len(data)]},
        "leaves": {"dtype": "I32", "shape": leaves.shape, "data_offsets": [len(data), len(data) + leaves.nbytes]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data + leaves.tobytes())
    with pytest.raises(FormatError, match=r"matrix\.safetensors"):
        hm.load(path)


def test_truncated_files(H, path):
    hm.save(H, path)
    content = path.read_bytes()
    lengths = {0, 1, 7, 8, 9, len(content) - 1, *np.random.default_rng(0).integers(0, len(content), 100).tolist()}
    for length in sorted(lengths):
        path.write_bytes(content[:length])
        with pytest.raises(FormatError, match=r"matrix\.safetensors: cannot be read"):
            hm.load(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(FormatError, match=r"matrix\.safetensors: cannot be read"):
        hm.load(path)


IMPORTS = """
import sys
import numpy as np
import hmatrix as hm
from hmatrix.errors import FormatError
"""

FLIPS = """
path, begin, end = Path(sys.argv[1]), *map(int, sys.argv[2:])
content, rng = path.read_bytes(), np.random.default_rng(0)
refused = read = 0
for _ in range(150):
    spoiled = bytearray(content)
    for position in rng.integers(begin, end, rng.integers(1, 4)):
        spoiled[position] ^= 1 << int(rng.integers(8))
    path.write_bytes(spoiled)
    try:
        H = hm.load(path)
    except FormatError:
        refused += 1
        continue
    # What is read is an H-matrix, whatever its values.
    read += 1
    A, scale = H.to_dense(), np.abs(H.pack().data).max()
    if scale < 1e100:
        x = np.ones(H.shape[1])
        assert np.allclose(H @ x, A @ x, rtol=1e-6, atol=1e-6 * scale**2), "another product than the dense one"
print(refused, read)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("part", ["header", "leaves", "data", "row_permutation", "column_permutation"])
def test_flipped_bits(H, path, part):
    hm.save(H, path)
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    offsets = json.loads(content[8:begin]).get(part, {}).get("data_offsets", [-begin, 0])
    printed = run_limited(IMPORTS, FLIPS, path, *(begin + offset for offset in offsets))
    refused, read = map(int, printed.split())
    assert refused + read == 150
    # In the data nearly every bit may be flipped; elsewhere nearly none.
    assert (read if part == "data" else refused) > 100


# Other precisions.


def mixed(activations):
    """Leaves of every precision but float64."""
    kinds = list(hm.Precision)[1:]
    leaves = [
        PackedLeaf(leaf.rows, leaf.columns, leaf.block, kinds[number % len(kinds)], 16 * (number % 2))
        for number, leaf in enumerate(random_leaves(SHAPE, seed=5, dtype=np.float32))
    ]
    assert len(leaves) >= len(kinds)
    return hm.HMatrix.from_leaves(SHAPE, leaves, permutation(90), permutation(70), activations=activations)


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


@pytest.mark.parametrize("quantized", ["0", "1", "null", '"false"', "[]"])
def test_activations_that_a_file_does_not_say(H, path, quantized):
    write(path, arrays_of(H), f'{{"version": 1, "shape": [90, 70], "quantized": {quantized}}}')
    with pytest.raises(FormatError, match=r"has 'quantized' of .*the file is damaged"):
        hm.load(path)


@pytest.mark.parametrize(
    ("column", "value"), [(5, 6), (5, -1), (5, 0), (6, -1), (6, 1), (4, -2), (4, 100)], ids=lambda value: str(value)
)
def test_tables_of_leaves_that_do_not_fit(path, column, value):
    arrays = arrays_of(mixed("int8"))
    arrays["leaves"] = arrays["leaves"].copy()
    integers = np.flatnonzero(arrays["leaves"][:, 5] >= hm.Precision.INT8)
    arrays["leaves"][integers[0], column] = value
    write(path, arrays)
    with pytest.raises(FormatError, match=r"file .*: (leaves|data): .*the file is damaged"):
        hm.load(path)


def test_scales_that_are_not_finite(path):
    arrays = arrays_of(hm.quantize(np.eye(8), "int8"))
    words = arrays["data"].copy()
    words[:8] = np.full(8, np.nan, np.float32).view(np.uint32)
    write(path, {"leaves": arrays["leaves"], "data": words}, '{"version": 1, "shape": [8, 8], "quantized": false}')
    with pytest.raises(FormatError, match="data: have NaN or infinity"):
        hm.load(path)


def test_an_unreadable_path():
    with pytest.raises(FormatError, match="cannot be read"):
        hm.load("a\0b")


def test_an_unwritable_path(H):
    with pytest.raises(OutputError, match="cannot be written"):
        hm.save(H, "a\0b")


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("part", ["leaves", "data"])
def test_flipped_bits_of_codes(path, part):
    hm.save(mixed("int8"), path)
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    offsets = json.loads(content[8:begin])[part]["data_offsets"]
    script = FLIPS.replace("np.abs(H.pack().data).max()", "np.abs(H.to_dense()).max()").replace(
        'assert np.allclose(H @ x, A @ x, rtol=1e-6, atol=1e-6 * scale**2), "another product than the dense one"',
        "H @ x, H.T @ (H @ x)",
    )
    script = script.replace("scale < 1e100", "scale < 1e10")
    script = "np.seterr(all='ignore')\n" + script
    refused, read = map(int, run_limited(IMPORTS, script, path, *(begin + offset for offset in offsets)).split())
    assert refused + read == 150
