"""Digests of the public names, and of products, allocations and heads for fixed seeds.

Run it in two checkouts on one machine, ``python -m studies.same_bits > digests.txt``: lines that differ name what has
changed. It uses public names alone, so that it runs with older versions, too: ``python path/to/same_bits.py``.
"""

import hashlib
from collections.abc import Iterator

import numpy as np

import hmatrix as hm

SHAPE = (130, 101)
CODES = [precision.name.lower() for precision in hm.Precision if precision.name != "FLOAT64"]


def digest(*arrays: np.ndarray) -> str:
    """Return a digest of types, shapes and bytes."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def structures() -> Iterator[tuple[str, hm.HMatrix]]:
    """Yield matrices of every precision, dense and with low-rank blocks."""
    weight = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    built = hm.build(weight, truncation=hm.Truncation(max_rank=7), splitter=hm.Cardinality(20))
    for precision in CODES:
        for activations in ("exact", "int8"):
            name = f"{precision} {activations}"
            yield f"dense {name}", hm.quantize(weight, precision, activations=activations)
            yield f"blocks {name}", built.astype(precision, activations=activations)
    yield (
        "blocks float64",
        hm.build(weight.astype(np.float64), truncation=hm.Truncation(rtol=0.3), splitter=hm.Cardinality(20)),
    )


def products() -> Iterator[str]:
    """Yield a line for each matrix: its bytes, and its products with one vector and with several."""
    rng = np.random.default_rng(1)
    vectors = {batch: rng.standard_normal((batch, SHAPE[1])).astype(np.float32) for batch in (1, 3, 8, 65)}
    for name, matrix in structures():
        given = [x.astype(np.float64) if name.endswith("float64") else x for x in vectors.values()]
        outputs = [matrix.apply(x) for x in given] + [matrix @ given[0][0]]
        yield f"product {name}: {matrix.storage().total} {digest(matrix.to_dense(), *outputs)}"


def allocations() -> Iterator[str]:
    """Yield a line for each budget."""
    rng = np.random.default_rng(2)
    weight, mixed = rng.standard_normal((120, 96)), rng.standard_normal((96, 96)) / 6
    inputs = rng.standard_normal((300, 96)) @ mixed
    for storage in (0.05, 0.125, 0.25):
        for calibration in (None, inputs):
            for activations in ("exact", "int8"):
                found = hm.allocate(
                    weight, hm.Budget(storage=storage), calibration=calibration, activations=activations
                )
                kind = "calibrated" if calibration is not None else "plain"
                bits = digest(found.matrix.to_dense(), found.bias_correction, found.matrix.apply(inputs))
                yield f"allocation {storage} {kind} {activations}: {found.matrix.storage().total} {bits}"


def heads() -> Iterator[str]:
    """Yield a line for each rule and precision."""
    rng = np.random.default_rng(3)
    weight, bias = rng.standard_normal((300, 40)).astype(np.float32), rng.standard_normal(300).astype(np.float32)
    inputs = (weight[rng.integers(300, size=600)] + 0.5 * rng.standard_normal((600, 40))).astype(np.float32)
    for rule in (hm.Margin(), hm.Rigorous(), hm.FixedRows(250)):
        for precision in ("float32", "bfloat16", "int8"):
            head = hm.progressive(weight, bias, calibration=inputs, rule=rule, precisions=[precision], agreement=0.99)
            found = head.topk(inputs, 5)
            yield f"head {type(rule).__name__} {precision}: {head.storage().total} {digest(*found)}"


def main() -> None:
    """Print all digests."""
    print("names", " ".join(hm.__all__))
    for part in (products, allocations, heads):
        for line in part():
            print(line, flush=True)


if __name__ == "__main__":
    main()
