"""Thousands of spoiled tables and files: each is refused, or gives a product that stays within its arrays.

`make sanitize` runs this under AddressSanitizer and UndefinedBehaviorSanitizer, which end the process at the first
bad read or write.
"""

import json

import numpy as np
import pytest
from matrices import permutation, random_leaves, stored

import hmatrix as hm
from hmatrix import _core
from hmatrix.codes.precision import Precision
from hmatrix.errors import HMatrixError
from hmatrix.packed.packing import PackedLeaf, pack

SHAPE = (70, 90)
ROUNDS = 400
EXTREMES = [0, 1, -1, 2, 15, 16, 32, 48, 63, 64, 65, 127, 2**14, 2**16, 2**31 - 1, -(2**31)]


def tables(seed):
    """What the native kernel is told of a random matrix; every second one of float64, or of mixed precisions."""
    rng = np.random.default_rng(seed)
    mixed = list(Precision)[1:]
    precisions = [Precision.FLOAT64] if seed % 4 == 0 else mixed
    leaves = stored(random_leaves(SHAPE, seed=seed), precisions, (0, 16))
    permutations = [permutation(size, seed) if rng.random() < 0.5 else None for size in SHAPE]
    packed = pack(SHAPE, leaves, *permutations, quantized=seed % 3 > 0)
    schedule = packed.schedule
    return {
        "instruction_set": str(rng.choice(_core.instruction_sets())),
        "shape": SHAPE,
        "intermediate": schedule.intermediate,
        "data": packed.data,
        "far": schedule.far.tables,
        "near": schedule.near.tables,
        "segments": schedule.segments if packed.quantized else None,
        "row_permutation": packed.row_permutation,
        "column_permutation": packed.column_permutation,
    }


def spoiled_array(array, rng):
    """A copy with a few entries changed, or with other ends."""
    array = array.copy()
    kind = rng.integers(8)
    if kind == 0:
        return array[: rng.integers(len(array) + 1)].copy()
    if kind == 1:
        return np.concatenate([array, array[: rng.integers(len(array) + 1)]])
    flat, bounds = array.reshape(-1), np.iinfo(array.dtype)
    for place in rng.integers(flat.size, size=rng.integers(1, 4)) if flat.size else []:
        near = int(flat[place]) + int(rng.integers(-2, 3))
        value = (int(rng.choice(EXTREMES)), near, int(flat[rng.integers(flat.size)]), int(rng.integers(100)))
        flat[place] = min(max(value[rng.integers(4)], bounds.min), bounds.max)
    return array


def spoiled(arguments, rng):
    """The tables with one or two of them changed."""
    arguments = dict(arguments)
    for _ in range(rng.integers(1, 3)):
        name = str(rng.choice(["far", "near", "near", "far", "segments", "permutation", "data", "sizes"]))
        if name in ("far", "near"):
            stage = list(arguments[name])
            table = rng.integers(3)
            stage[table] = spoiled_array(stage[table], rng)
            arguments[name] = tuple(stage)
        elif name == "segments":
            table = arguments[name]
            arguments[name] = None if table is None or rng.random() < 0.1 else spoiled_array(table, rng)
        elif name == "permutation":
            side = str(rng.choice(["row_permutation", "column_permutation"]))
            if arguments[side] is not None:
                arguments[side] = spoiled_array(arguments[side], rng)
        elif name == "data":
            cut = int(rng.integers(4))
            arguments["data"] = arguments["data"][: len(arguments["data"]) - cut].copy()
        elif rng.random() < 0.5:
            arguments["intermediate"] = int(arguments["intermediate"] + rng.integers(-1, 2))
        else:
            arguments["shape"] = tuple(int(size + rng.integers(-1, 2)) for size in arguments["shape"])
    return arguments


def use(plan, shape, dtype):
    """Make all products with a plan, on arrays of exactly its sizes."""
    m, n = shape
    for transposed, (size, result) in (("", (n, m)), ("_transposed", (m, n))):
        getattr(plan, f"multiply{transposed}")(np.ones(size, dtype), np.empty(result, dtype))
        getattr(plan, f"multiply{transposed}_batch")(np.ones((3, size), dtype), np.empty((3, result), dtype))


@pytest.mark.parametrize("seed", range(10))
def test_spoiled_tables(seed):
    rng = np.random.default_rng(seed)
    arguments = tables(seed)
    is_double = arguments["data"].dtype == np.float64
    make, dtype = (_core.PlanFloat64, np.float64) if is_double else (_core.PlanFloat32, np.float32)
    use(make(**arguments), SHAPE, dtype)
    refused = 0
    for _ in range(ROUNDS):
        changed = spoiled(arguments, rng)
        try:
            plan = make(**changed)
        except (ValueError, TypeError):
            refused += 1
            continue
        use(plan, changed["shape"], dtype)
    # Some changes put back what was there, or leave tables of another matrix.
    assert ROUNDS // 4 < refused < ROUNDS


@pytest.mark.parametrize("seed", range(4))
def test_spoiled_files(tmp_path, seed):
    rng = np.random.default_rng(seed)
    leaves = random_leaves(SHAPE, seed=seed, most=4)
    kinds = list(Precision)[1:]
    mixed = [PackedLeaf(leaf.rows, leaf.columns, leaf.block, kinds[k % len(kinds)]) for k, leaf in enumerate(leaves)]
    matrix = hm.HMatrix(pack(SHAPE, mixed, permutation(SHAPE[0]), quantized=seed % 2 == 0))
    path = tmp_path / "matrix.safetensors"
    hm.save(matrix, path)
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    arrays = [part["data_offsets"] for name, part in json.loads(content[8:begin]).items() if name != "__metadata__"]
    # The header as often as each array: a change anywhere would nearly always be one of the coefficients.
    parts = [(0, begin), *((begin + first, begin + end) for first, end in arrays)]
    refused = 0
    for _ in range(ROUNDS):
        changed = bytearray(content)
        for place in rng.integers(*parts[rng.integers(len(parts))], size=rng.integers(1, 4)):
            changed[place] = rng.integers(256)
        path.write_bytes(changed[: len(changed) - (rng.random() < 0.05) * int(rng.integers(100))])
        try:
            # Digests would find nearly all of it.
            read = hm.load(path, verify=False)
        except HMatrixError:
            refused += 1
            continue
        with np.errstate(all="ignore"):
            read @ np.ones(read.shape[1])
            read.T @ np.ones((read.shape[0], 2))
    assert 0 < refused < ROUNDS
