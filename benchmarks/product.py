"""Time H-matrix products against dense ones and against one BLAS call per factor, in one alternating run.

    python benchmarks/product.py [FILE.safetensors TENSOR]

Without arguments the matrix is a random one of 1000 x 1280, the shape of MobileNetV2's head.
"""

import sys
from collections.abc import Callable

import numpy as np
from safetensors.numpy import load_file

import hmatrix as hm
from hmatrix.lowrank import LowRank
from hmatrix.study.environment import environment
from hmatrix.study.records import TimeEvidence
from hmatrix.study.timing import alternate, dense_products, threads

RANKS = (10, 30, 50, 100)


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


def main() -> None:
    """Print the table."""
    if len(sys.argv) == 3:
        weight = load_file(sys.argv[1])[sys.argv[2]]
    else:
        weight = np.random.default_rng(0).standard_normal((1000, 1280)).astype(np.float32)
    x = np.random.default_rng(1).standard_normal(weight.shape[1]).astype(weight.dtype)
    matrices = {rank: hm.build(weight, truncation=hm.Truncation(max_rank=rank)) for rank in RANKS}
    contenders = dense_products(weight, x)
    for rank, matrix in matrices.items():
        contenders[f"rank {rank}"] = lambda matrix=matrix: matrix @ x
        contenders[f"rank {rank}, BLAS"] = blas_by_factor(matrix, x)
    with threads(1):
        surroundings = environment(1)
        times: dict[str, TimeEvidence] = {time.contender: time for time in alternate(contenders, products=2000)}
    dense = min((times[name] for name in ("torch", "numpy", "native")), key=lambda time: time.median)
    print(f"{weight.shape[0]} x {weight.shape[1]} {weight.dtype}, 1 thread, {surroundings}")
    print(f"{'product':<16}{'median µs':>10}{'quartiles µs':>18}{'time %':>8}{'storage %':>11}{'time/storage':>14}")
    for name, time in times.items():
        fraction = time.median / dense.median
        line = f"{name:<16}{time.median * 1e6:>10.1f}{time.lower * 1e6:>9.1f}{time.upper * 1e6:>9.1f}{fraction:>8.1%}"
        if name.startswith("rank"):
            storage = matrices[int(name.removesuffix(", BLAS").split()[1])].storage().ratio
            line += f"{storage:>11.1%}{fraction / storage:>14.2f}"
        print(line)


if __name__ == "__main__":
    main()
