"""Files that are no H-matrix, or were damaged: each is refused with an error that says why."""

import json
import sys

import numpy as np
import pytest
from matrices import permutation, random_leaves, run_limited
from matrix_files import SHAPE, arrays_of, mixed, same, stored_matrix, write
from safetensors import safe_open
from safetensors.numpy import save_file

import hmatrix as hm
from hmatrix.errors import FormatError


@pytest.fixture(name="H")
def matrix():
    return stored_matrix()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "matrix.safetensors"


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
        H = hm.load(path, verify=False)
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


def span_of(content, part):
    """Return where the bytes of an array, or the header, begin and end in a file."""
    begin = 8 + int.from_bytes(content[:8], "little")
    return (0, begin) if part == "header" else [begin + at for at in json.loads(content[8:begin])[part]["data_offsets"]]


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("part", ["header", "leaves", "data", "row_permutation", "column_permutation"])
def test_flipped_bits(H, path, part):
    hm.save(H, path)
    content = path.read_bytes()
    printed = run_limited(IMPORTS, FLIPS, path, *span_of(content, part))
    refused, read = map(int, printed.split())
    assert refused + read == 150
    # In the data nearly every bit may be flipped; elsewhere nearly none.
    assert (read if part == "data" else refused) > 100


@pytest.mark.parametrize("part", ["header", "leaves", "data", "row_permutation", "column_permutation"])
def test_a_file_knows_each_flipped_bit(H, path, part):
    hm.save(H, path)
    content = path.read_bytes()
    for position in np.random.default_rng(0).integers(*span_of(content, part), 50):
        spoiled = bytearray(content)
        spoiled[position] ^= 1 << int(position % 8)
        path.write_bytes(spoiled)
        with pytest.raises(FormatError, match=r"matrix\.safetensors"):
            hm.load(path)


def test_arrays_that_changed_places(path):
    """A square matrix, whose permutations of rows and of columns are of equal shape."""
    leaves = random_leaves((70, 70), seed=5)
    hm.save(hm.HMatrix.from_leaves((70, 70), leaves, permutation(70), permutation(70)[::-1].copy()), path)
    before = hm.load(path).to_dense()
    # The names in the header, which leaves the digests where they are.
    content = path.read_bytes()
    rows, columns = b'"row_permutation":{', b'"column_permutation":{'
    assert content.count(rows) == content.count(columns) == 1
    swapped = content.replace(columns, b"columns").replace(rows, columns).replace(b"columns", rows)
    path.write_bytes(swapped)
    with pytest.raises(FormatError, match="is damaged: column_permutation, row_permutation do not fit the digest"):
        hm.load(path)
    assert not np.array_equal(hm.load(path, verify=False).to_dense(), before)


def test_a_header_that_was_edited(H, path):
    hm.save(H, path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'quantized\\": false', b'quantized\\": true '))
    with pytest.raises(FormatError, match=r"is damaged: its header does not fit the digest .*verify=False"):
        hm.load(path)
    assert hm.load(path, verify=False).activations is hm.Activations.INT8


@pytest.mark.parametrize("key", ["array_digests", "header_digest"])
def test_a_digest_that_is_gone(H, path, key):
    hm.save(H, path)
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["hmatrix"])
    del header[key]
    write(path, arrays_of(H), json.dumps(header))
    with pytest.raises(FormatError, match="is damaged: its header does not fit"):
        hm.load(path)


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


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("part", ["leaves", "data"])
def test_flipped_bits_of_codes(path, part):
    hm.save(mixed("int8"), path)
    content = path.read_bytes()
    script = FLIPS.replace("np.abs(H.pack().data).max()", "np.abs(H.to_dense()).max()").replace(
        'assert np.allclose(H @ x, A @ x, rtol=1e-6, atol=1e-6 * scale**2), "another product than the dense one"',
        "H @ x, H.T @ (H @ x)",
    )
    script = script.replace("scale < 1e100", "scale < 1e10")
    script = "np.seterr(all='ignore')\n" + script
    refused, read = map(int, run_limited(IMPORTS, script, path, *span_of(content, part)).split())
    assert refused + read == 150
