"""Time the products of one matrix in all precisions against the dense ones, in one alternating run.

    python benchmarks/product.py [FILE.safetensors TENSOR]

Without arguments the matrix is a random one of 1000 x 1280, the shape of MobileNetV2's head. Every
product is the public call on NumPy arrays, one vector, one thread, weights warm.
"""

import sys
from collections.abc import Callable

import numpy as np
from safetensors.numpy import load_file

import hmatrix as hm
from hmatrix.lowrank import LowRank
from hmatrix.study.environment import environment
from hmatrix.study.timing import alternate, dense_products, threads

PRODUCTS = 2000


def blas_by_factor(matrix: hm.HMatrix, x: np.ndarray) -> Callable[[], object]:
    """Return the product of the same leaves by one BLAS call for each dense block and each factor."""
    leaves = [(leaf.rows, leaf.columns, leaf.block) for leaf in matrix.leaves()]

    def product() -> object:
        y = np.zeros(matrix.shape[0], matrix.dtype)
        for rows, columns, block in leaves:
            if isinstance(block, LowRank):
                y[rows] += block.U @ (block.V.T @ x[columns])
            else:
                y[rows] += block @ x[columns]
        return y

    return product


def matrices(weight: np.ndarray) -> dict[str, hm.HMatrix]:
    """Return what is timed, by name."""
    found = {"dense bfloat16": hm.quantize(weight, "bfloat16")}
    for precision in ("int8", "int4", "int2"):
        found[f"dense {precision}"] = hm.quantize(weight, precision, activations="int8")
    found["dense int8, exact activations"] = hm.quantize(weight, "int8")
    for rank in (10, 30, 50, 100):
        matrix = hm.build(weight, truncation=hm.Truncation(max_rank=rank))
        found[f"rank {rank} float32"] = matrix
        found[f"rank {rank} int8"] = matrix.astype("int8", activations="int8")
    return found


def main() -> None:
    """Print the table as Markdown."""
    if len(sys.argv) == 3:
        weight = load_file(sys.argv[1])[sys.argv[2]]
    else:
        weight = np.random.default_rng(0).standard_normal((1000, 1280)).astype(np.float32)
    x = np.random.default_rng(1).standard_normal(weight.shape[1]).astype(weight.dtype)
    timed = matrices(weight)
    contenders = dense_products(weight, x)
    dense = list(contenders)
    contenders |= {name: lambda matrix=matrix: matrix @ x for name, matrix in timed.items()}
    contenders["rank 30 float32, one BLAS call a factor"] = blas_by_factor(timed["rank 30 float32"], x)
    with threads(1):
        surroundings = environment(1)
        times = {time.contender: time for time in alternate(contenders, PRODUCTS)}
    fastest = min((times[name] for name in dense), key=lambda time: time.median)
    print(
        f"{weight.shape[0]} x {weight.shape[1]}, one vector, 1 thread, {surroundings['cpu']}, {surroundings['kernel']}"
    )
    print("\n| product | median µs | quartiles µs | time % of fastest dense | storage % of float32 |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, time in times.items():
        storage = f"{timed[name].storage().ratio:.1%}" if name in timed else ""
        spread = f"{time.lower * 1e6:.1f} to {time.upper * 1e6:.1f}"
        label = f"{name}, float32" if name in dense else name
        print(f"| {label} | {time.median * 1e6:.1f} | {spread} | {time.median / fastest.median:.1%} | {storage} |")


if __name__ == "__main__":
    main()
