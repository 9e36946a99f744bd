"""Time the product of a matrix in several forms against dense products and other libraries."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from hmatrix._support.machine import threads
from hmatrix._support.memory import aligned
from hmatrix._support.typing import FloatArray
from hmatrix.assembly import build, quantize
from hmatrix.lowrank.factors import LowRank, Truncation
from hmatrix.matrix import HMatrix
from hmatrix.nn import HLinear
from hmatrix.packed.kernels import read_words
from hmatrix.study.bench.instructions import count_instructions
from hmatrix.study.bench.peers import peers
from hmatrix.study.measure.records import TimeEvidence
from hmatrix.study.measure.timing import WARMING, alternate, dense_products, product_with

RANK = 30
"""Rank of the published structure that is timed when no saved matrix is given."""

INT8 = "hmatrix int8"
PUBLISHED = f"hmatrix rank {RANK}, float32"


@dataclass(frozen=True)
class Line:
    """One product of a benchmark.

    Parameters
    ----------
    name
        Name of the product.
    time
        Time of one call.
    dense_fraction
        Its median as a fraction of the fastest dense float32 product's.
    nbytes
        Bytes that it streams; ``None`` where another library does not say.
    stream_fraction
        Time in which one thread of this machine reads as many bytes, and does nothing else, as a fraction of the
        median; for one vector and one thread only.
    single
        Time of one call on one thread; ``None`` where that is `time`, and for other libraries.
    instructions
        Instructions of one call on the calling thread; ``None`` where they were not counted.
    """

    name: str
    time: TimeEvidence
    dense_fraction: float
    nbytes: int | None
    stream_fraction: float | None
    single: TimeEvidence | None = None
    instructions: int | None = None


def forms(weight: FloatArray) -> dict[str, HMatrix]:
    """Return the forms of a matrix that are timed, by name."""
    published = build(weight, truncation=Truncation(max_rank=RANK))
    return {
        "hmatrix bfloat16": quantize(weight, "bfloat16"),
        INT8: quantize(weight, "int8", activations="int8"),
        f"{INT8}, exact activations": quantize(weight, "int8"),
        "hmatrix int4": quantize(weight, "int4", activations="int8"),
        "hmatrix int4, groups of 128": quantize(weight, "int4", activations="int8", group=128),
        "hmatrix int2": quantize(weight, "int2", activations="int8"),
        "hmatrix trellis4": quantize(weight, "trellis4", activations="int8"),
        "hmatrix trellis4p": quantize(weight, "trellis4p", activations="int8"),
        "hmatrix trellis3": quantize(weight, "trellis3", activations="int8"),
        "hmatrix trellis2": quantize(weight, "trellis2", activations="int8"),
        PUBLISHED: published,
        f"hmatrix rank {RANK}, int8": published.astype("int8", activations="int8"),
    }


def bench(
    weight: FloatArray,
    matrices: Mapping[str, HMatrix],
    *,
    batch: int,
    thread_count: int,
    products: int | None,
    cold: bool = False,
    instructions: bool = False,
) -> tuple[list[Line], list[str]]:
    """Time everything in one alternating run.

    Parameters
    ----------
    weight
        The dense matrix ``(m, n)``, float32.
    matrices
        Approximations of it, by name.
    batch
        Vectors of a call.
    thread_count
        Threads of every product.
    products
        Calls of each; ``None`` is as many as stable medians need.
    cold
        Whether all data come from memory in each call, and not from the caches.
    instructions
        Whether to count the instructions of one call of each product, too.

    Returns
    -------
    lines
        One for each product.
    missing
        Products that could not be made, with the reasons: mostly packages that are not installed.
    """
    X = aligned(np.random.default_rng(0).standard_normal((batch, weight.shape[1])).astype(np.float32))
    with threads(thread_count):
        x = X[0] if batch == 1 else X
        dense = dense_products(weight, x)
        contenders: dict[str, Callable[[], object]] = {f"{name}, float32": call for name, call in dense.items()}
        sizes: dict[str, int] = dict.fromkeys(contenders, weight.nbytes)
        for name, matrix in matrices.items():
            contenders[name] = product_with(matrix, x)
            sizes[name] = matrix.storage().total
        if INT8 in matrices:
            for name, call in _in_torch(matrices[INT8], X).items():
                contenders[f"{INT8}, {name}"] = call
                sizes[f"{INT8}, {name}"] = sizes[INT8]
        if PUBLISHED in matrices:
            contenders[f"{PUBLISHED}, one BLAS call a factor"] = blas_by_factor(matrices[PUBLISHED], X)
        others, missing = peers(weight, X, thread_count)
        reads = {size: _read(size) for size in set(sizes.values())}
        streams = {f"read {size}": read for size, read in reads.items()}
        single = {_single(name): contenders[name] for name in matrices if thread_count > 1}
        timed = alternate(
            {**contenders, **others, **streams, **single},
            products,
            cold=cold,
            rest=thread_count > 1,
            warming=WARMING,
            single=single.keys(),
        )
        times = {time.contender: time for time in timed}
        calls = {**contenders, **others} if instructions else {}
        with torch.inference_mode():
            counts = {name: count_instructions(call) for name, call in calls.items()}
    fastest = min(times[f"{name}, float32"].median for name in dense)
    lines = []
    for name in (*contenders, *others):
        size = sizes.get(name)
        fraction = (
            None if size is None or batch > 1 or thread_count > 1 else times[f"read {size}"].median / times[name].median
        )
        lines.append(
            Line(
                name,
                times[name],
                times[name].median / fastest,
                size,
                fraction,
                times.get(_single(name)),
                counts.get(name),
            )
        )
    return lines, missing


def blas_by_factor(matrix: HMatrix, X: FloatArray) -> Callable[[], object]:
    """Return the product of X ``(batch, n)`` with the same leaves, by one BLAS call for each dense block and factor."""
    leaves = [(leaf.rows, leaf.columns, leaf.block) for leaf in matrix.leaves()]

    def product() -> object:
        y = np.zeros((len(X), matrix.shape[0]), matrix.dtype)
        for rows, columns, block in leaves:
            if isinstance(block, LowRank):
                y[:, rows] += (X[:, columns] @ block.V) @ block.U.T
            else:
                y[:, rows] += X[:, columns] @ block.T
        return y

    return product


def to_markdown(lines: list[Line]) -> str:
    """Return the lines as a table."""
    counted = any(line.instructions is not None for line in lines)
    shared = any(line.single is not None for line in lines)
    titles = ["product", "median µs", "quartiles µs", "of fastest dense", "MB", "GB/s"]
    titles += ["one thread, µs", "speedup"] if shared else ["of streaming speed"]
    titles += ["instructions"] * counted
    rows = [f"| {' | '.join(titles)} |", "| --- |" + " ---: |" * (len(titles) - 1)]
    for line in lines:
        time = line.time
        size = (
            ["", ""] if line.nbytes is None else [f"{line.nbytes / 1e6:.2f}", f"{line.nbytes / time.median / 1e9:.0f}"]
        )
        if shared:
            single = line.single
            last = ["", ""] if single is None else [f"{single.median * 1e6:.1f}", f"{single.median / time.median:.2f}"]
        else:
            last = ["" if line.stream_fraction is None else f"{line.stream_fraction:.0%}"]
        spread = f"{time.lower * 1e6:.1f} to {time.upper * 1e6:.1f}"
        cells = [line.name, f"{time.median * 1e6:.1f}", spread, f"{line.dense_fraction:.1%}", *size, *last]
        cells += [f"{line.instructions:,}" if line.instructions is not None else ""] * counted
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _in_torch(matrix: HMatrix, X: FloatArray) -> dict[str, Callable[[], object]]:
    """Return the product as a layer, and its kernel alone: a call with addresses."""
    layer, vectors, y = HLinear(matrix), torch.from_numpy(X), torch.empty(len(X), matrix.shape[0])
    calls: dict[str, Callable[[], object]] = {"as HLinear": lambda: layer(vectors)}
    multiply_at = layer.weight.prepared().multiply_at
    if multiply_at is not None:
        arguments = vectors.data_ptr(), y.data_ptr(), len(X), 0

        def kernel() -> torch.Tensor:
            multiply_at(*arguments)
            return y

        calls["kernel alone"] = kernel
    return calls


def _single(name: str) -> str:
    return f"{name}, one thread"


def _read(nbytes: int) -> Callable[[], object]:
    words = np.ones(nbytes // 4, np.uint32)
    return lambda: read_words(words)
