"""The kernels for 64-bit Arm, built by a cross compiler and run under emulation, against the reference in NumPy."""

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

import hmatrix as hm
from hmatrix.kernels import ReferenceProduct
from hmatrix.packed import PackedBlocks

COMPILER, EMULATOR = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
SOURCES = Path(__file__).parent.parent / "cpp"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        COMPILER is None or EMULATOR is None,
        reason="needs the Debian packages g++-aarch64-linux-gnu and qemu-user",
    ),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("arm") / "run_case"
    names = [
        "tests/run_case.cpp",
        "checks.cpp",
        "plan.cpp",
        "progressive.cpp",
        "threads.cpp",
        "dispatch.cpp",
        "kernel_portable.cpp",
        "kernel_neon.cpp",
    ]
    flags = ["-std=c++17", "-O2", "-static", "-pthread", "-ffp-contract=off", "-march=armv8.2-a+dotprod"]
    command = [COMPILER, *flags, *(str(SOURCES / name) for name in names), "-o", str(path)]
    subprocess.run(command, check=True)
    return path


def write_case(path: Path, packed: PackedBlocks, x: np.ndarray, transposed: bool) -> None:
    schedule = packed.schedule
    header = [packed.dtype == np.float64, *packed.shape, schedule.intermediate, len(x), transposed]
    permutations = (packed.row_permutation, packed.column_permutation)
    arrays = [
        np.array(header, np.int64),
        packed.data,
        *schedule.far.tables,
        *schedule.near.tables,
        schedule.segments if packed.quantized else np.empty(0, np.int32),
        *(np.empty(0, np.int32) if permutation is None else permutation for permutation in permutations),
        x,
    ]
    with path.open("wb") as file:
        for array in arrays:
            file.write(struct.pack("<q", array.nbytes))
            file.write(array.tobytes())


@pytest.mark.parametrize("instruction_set", ["neon", "portable"])
@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16", "int8", "int4", "int2", "int1"])
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
