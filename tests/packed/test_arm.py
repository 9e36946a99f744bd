"""The kernels for 64-bit Arm, built by a cross compiler and run under emulation, against the reference in NumPy."""

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

import hmatrix as hm
from hmatrix.heads.packed_head import PackedHead
from hmatrix.heads.reference import ReferenceHead
from hmatrix.packed.kernels import ReferenceProduct
from hmatrix.packed.packed_blocks import PackedBlocks

COMPILER, EMULATOR = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
SOURCES = Path(__file__).parents[2] / "cpp"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        COMPILER is None or EMULATOR is None,
        reason="needs the Debian packages g++-aarch64-linux-gnu and qemu-user",
    ),
]


FLAGS = ["-std=c++17", f"-I{SOURCES}", "-O2", "-static", "-pthread", "-ffp-contract=off", "-march=armv8.2-a+dotprod"]
LIBRARY = [
    "product/checks.cpp",
    "heads/head.cpp",
    "heads/refine.cpp",
    "product/plan.cpp",
    "heads/progressive.cpp",
    "product/threads.cpp",
    "product/dispatch.cpp",
]
KERNELS = [
    "heads/refine_kernels.cpp",
    "kernels/float32_kernels.cpp",
    "kernels/float64_kernels.cpp",
    "kernels/lookup_kernels.cpp",
    "kernels/trellis_kernels.cpp",
]


every_instruction_set = pytest.mark.parametrize(
    "instruction_set", ["neon", pytest.param("portable", marks=pytest.mark.nightly)]
)


@pytest.fixture(scope="module")
def objects(tmp_path_factory) -> list[str]:
    paths: list[str] = []
    # The portable kernel is tested as it is optimised elsewhere; here that would take most of the time.
    portable, neon = ["-DHMATRIX_SET=portable", "-O0"], ["-DHMATRIX_SET=neon"]
    for names, options in ((LIBRARY, []), (KERNELS, portable), (KERNELS, neon)):
        folder = tmp_path_factory.mktemp("objects")
        sources = [str(SOURCES / name) for name in names]
        subprocess.run([COMPILER, *FLAGS, *options, "-c", *sources], check=True, cwd=folder)
        paths += map(str, folder.glob("*.o"))
    return paths


def linked(source: str, objects: list[str], folder: Path) -> Path:
    path = folder / source
    subprocess.run([COMPILER, *FLAGS, str(SOURCES / f"tests/{source}.cpp"), *objects, "-o", str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def program(objects, tmp_path_factory) -> Path:
    return linked("run_case", objects, tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="module")
def head_program(objects, tmp_path_factory) -> Path:
    return linked("run_head", objects, tmp_path_factory.mktemp("head"))


def arrays_of(packed: PackedBlocks) -> list[np.ndarray]:
    schedule = packed.schedule
    permutations = (packed.row_permutation, packed.column_permutation)
    return [
        packed.data,
        *schedule.far.tables,
        *schedule.near.tables,
        schedule.segments if packed.quantized else np.empty(0, np.int32),
        *(np.empty(0, np.int32) if permutation is None else permutation for permutation in permutations),
    ]


def write_case(path: Path, packed: PackedBlocks, x: np.ndarray, transposed: bool) -> None:
    header = [packed.dtype == np.float64, *packed.shape, packed.schedule.intermediate, len(x), transposed]
    write_arrays(path, [np.array(header, np.int64), *arrays_of(packed), x])


def write_arrays(path: Path, arrays: list[np.ndarray]) -> None:
    with path.open("wb") as file:
        for array in arrays:
            file.write(struct.pack("<q", array.nbytes))
            file.write(array.tobytes())


def write_head(path: Path, packed: PackedHead, x: np.ndarray, top: int) -> None:
    matrix = [np.empty(0, np.int32)]
    if packed.matrix is not None:
        matrix = [np.array([packed.matrix.schedule.intermediate], np.int32), *arrays_of(packed.matrix)]
    arrays = [
        np.array([top], np.int32),
        *packed.own_arrays().values(),
        *(*matrix, x),
    ]
    write_arrays(path, arrays)


@every_instruction_set
@pytest.mark.parametrize("precision", [precision.name.lower() for precision in hm.Precision])
@pytest.mark.parametrize("activations", ["exact", "int8"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("batch", [1, 7])
def test_products(program, tmp_path, instruction_set, precision, activations, transposed, batch):
    rng = np.random.default_rng(0)
    base = hm.build(
        rng.standard_normal((131, 150)),
        coordinates=(hm.Points(rng.standard_normal(131)), hm.Points(rng.standard_normal(150))),
        splitter=hm.Cardinality(20),
        truncation=hm.Truncation(max_rank=5),
    )
    matrix = base.astype(precision, activations=activations, group=13)
    packed = matrix.pack()
    assert len(matrix.far_field) > 0
    x = rng.standard_normal((batch, matrix.shape[0 if transposed else 1])).astype(matrix.dtype)
    write_case(tmp_path / "case", packed, x, transposed)
    subprocess.run([EMULATOR, program, instruction_set, tmp_path / "case", tmp_path / "result"], check=True)
    y = np.fromfile(tmp_path / "result", matrix.dtype).reshape(batch, -1)
    expected = np.empty_like(y)
    reference = ReferenceProduct(packed)
    (reference.multiply_transposed_batch if transposed else reference.multiply_batch)(x, expected)
    if packed.quantized and precision.startswith("int") and not transposed:
        np.testing.assert_array_equal(y, expected)
    else:
        size = np.linalg.norm(matrix.to_dense()) * np.linalg.norm(x, axis=1)
        assert (np.abs(y - expected).max(axis=1) <= 20 * np.finfo(matrix.dtype).eps * size).all()


@every_instruction_set
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("rule", [hm.Margin(), hm.Rigorous()], ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize(("cluster_rows", "coarse"), [(0, "int8"), (0, "int4"), (40, "int4")])
def test_progressive_heads(head_program, tmp_path, instruction_set, precision, rule, cluster_rows, coarse):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((300, 9)) @ rng.standard_normal((9, 70)) + 0.1 * rng.standard_normal((300, 70))
    X = rng.standard_normal((130, 70)).astype(np.float32)
    head = hm.progressive(
        weight,
        rng.standard_normal(300),
        calibration=X[:100],
        agreement=0.8,
        rule=rule,
        ranks=[20],
        precisions=[precision, "float32"] if isinstance(rule, hm.Margin) else [precision],
        coarse_precisions=[coarse],
        cluster_rows=[cluster_rows],
    )
    check_head(head, X[100:].copy(), head_program, instruction_set, tmp_path)


@every_instruction_set
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_progressive_heads_with_an_h_matrix(head_program, tmp_path, instruction_set, precision):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((300, 9)) @ rng.standard_normal((9, 70)) + 0.1 * rng.standard_normal((300, 70))
    base = hm.build(
        weight,
        coordinates=(hm.Points(rng.standard_normal(300)), hm.Points(rng.standard_normal(70))),
        splitter=hm.Cardinality(20),
        truncation=hm.Truncation(max_rank=5),
    )
    X = rng.standard_normal((130, 70)).astype(np.float32)
    coarse = base.astype("int4", activations="int8", group=13)
    options = {"agreement": 0.8, "precisions": [precision, "float32"], "coarse": coarse}
    head = hm.progressive(weight, rng.standard_normal(300), calibration=X[:100], **options)
    check_head(head, X[100:].copy(), head_program, instruction_set, tmp_path)


def check_head(head, x, program, instruction_set, folder):
    """The program refines the rows that the reference refines, and computes the same bits."""
    top = 3
    x[4, 5] = np.nan
    write_head(folder / "case", head.pack(), x, top)
    subprocess.run([EMULATOR, program, instruction_set, folder / "case", folder / "result"], check=True)
    content = (folder / "result").read_bytes()
    y = np.frombuffer(content, np.float32, 30 * 300).reshape(30, 300)
    values = np.frombuffer(content, np.float32, 30 * top, y.nbytes).reshape(30, top)
    indices = np.frombuffer(content, np.int64, 30 * top, y.nbytes + values.nbytes).reshape(30, top)
    counts = np.frombuffer(content, np.int64, 30, y.nbytes + values.nbytes + indices.nbytes)
    reference = ReferenceHead(head.pack())
    expected_y, expected_values = np.empty_like(y), np.empty_like(values)
    expected_indices, expected_counts = np.empty_like(indices), np.empty_like(counts)
    reference.multiply_batch(x, expected_y)
    reference.largest(x, expected_values, expected_indices, expected_counts)
    np.testing.assert_array_equal(counts, expected_counts)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(values, expected_values)
    np.testing.assert_array_equal(y, expected_y)
