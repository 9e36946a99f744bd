"""Searches of faiss-cpu for the largest output of a head, where it is installed."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from hmatrix._support.typing import FloatArray, Integers64
from hmatrix.heads.samples import Samples
from studies.heads.head_subjects import HeadSubject

Search: TypeAlias = Callable[[FloatArray], Integers64]
"""Function of inputs ``(batch, n)``: the row of the largest output of each."""

CANDIDATES = (2, 4, 8, 16, 64)
"""Numbers of candidates whose inner products are computed exactly, by faiss."""


def faiss_rivals(subject: HeadSubject) -> dict[str, Search]:
    """Return searches of faiss-cpu for the largest inner product, where it is installed.

    Exact ones; and an 8-bit scalar quantiser, alone, with its best ranked again, and behind an inverted file, also
    ranked again: with the fewest lists and candidates with which the calibration inputs agree in 99.9 %.
    """
    try:
        import faiss
    except ModuleNotFoundError:
        print("\nnot timed: faiss-cpu is not installed")
        return {}
    faiss.omp_set_num_threads(1)
    print(f"\nfaiss {faiss.__version__}, {faiss.get_compile_options().strip()}")
    m, n = subject.weight.shape
    weight, X = subject.weight, subject.calibration
    truth = Samples.of(X, weight, subject.bias, 1)

    def agrees(index: object) -> bool:
        return bool(truth.agree(_search(index)(X)[:, None]).mean() >= 0.999)

    flat = faiss.IndexFlatIP(n)
    flat.add(weight)
    codes = faiss.IndexScalarQuantizer(n, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    codes.train(weight)
    codes.add(weight)
    found = {"faiss flat": flat, "faiss SQ8": codes}
    ranked = faiss.IndexRefine(codes, flat)
    ranked.k_factor = next((k for k in CANDIDATES if _with(ranked, k) and agrees(ranked)), CANDIDATES[-1])
    found[f"faiss SQ8, {ranked.k_factor:.0f} ranked again"] = ranked
    for lists in (int(np.sqrt(m)), int(4 * np.sqrt(m))):
        ivf = faiss.index_factory(n, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        ivf.train(weight[: 40 * lists])
        ivf.add(weight)
        ranked = faiss.IndexRefine(ivf, flat)
        for ivf.nprobe in [*(2**i for i in range(int(np.log2(lists)) + 1)), lists]:
            if _with(ranked, CANDIDATES[-1]) and agrees(ranked):
                break
        ranked.k_factor = next((k for k in CANDIDATES if _with(ranked, k) and agrees(ranked)), CANDIDATES[-1])
        found[f"faiss IVF{lists} SQ8, {ivf.nprobe} probes, {ranked.k_factor:.0f} ranked again"] = ranked
    return {name: _search(index) for name, index in found.items()}


def _with(index: Any, candidates: int) -> bool:
    index.k_factor = candidates
    return True


def _search(index: object) -> Callable[[FloatArray], Integers64]:
    return lambda x: index.search(x, 1)[1][:, 0]  # type: ignore[attr-defined]
