"""Agreement of progressive heads with the dense layer, and their time: ``python -m studies.heads.progressive_bench``.

Subjects are MobileNetV2 of a study file (even classes calibrate, odd ones are evaluated), the head of the digits
network (training images calibrate), and a synthetic vocabulary of clustered rows with a decaying spectrum.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

import hmatrix as hm
from hmatrix._support.machine import threads
from hmatrix._support.memory import aligned
from hmatrix._support.store import default_cache
from hmatrix._support.typing import FloatArray
from hmatrix.heads.rules import Rule
from hmatrix.heads.samples import Samples
from hmatrix.nn.layers.progressive import ProgressiveLinear
from hmatrix.study.measure.environment import environment
from hmatrix.study.measure.timing import alternate, dense_products, going_through
from studies.heads.head_rivals import Search, faiss_rivals
from studies.heads.head_subjects import (
    HeadSubject,
    corrupted_subjects,
    digits_subject,
    saved_subject,
    study_subject,
    vocabulary,
)

VOCABULARY_RANKS = (16, 32, 64, 128)
"""Fewer than for a small head, since each takes its time to try."""


def main() -> int:
    """Print a table for each subject."""
    parser = argparse.ArgumentParser(prog="python -m studies.heads.progressive_bench", description=__doc__)
    parser.add_argument("--features", type=Path, help="npz file with X, labels, weight and bias, instead of images")
    parser.add_argument("--study", type=Path, help="a study file with images in folders of classes")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="of the images' features")
    parser.add_argument(
        "--corrupted", type=int, default=0, metavar="N", help="evaluate on N images with noise and blur"
    )
    parser.add_argument(
        "--agreement", type=float, metavar="X", help="of one head alone, beside nothing but the dense products"
    )
    parser.add_argument("--top", type=int, default=1, metavar="K", help="outputs that are to be the dense layer's")
    parser.add_argument(
        "--coarse",
        type=float,
        metavar="STORAGE",
        help="also heads whose coarse part is an H-matrix of so much storage, such as 0.05 of the dense one's",
    )
    parser.add_argument("--digits", action="store_true", help="the digits network")
    parser.add_argument("--vocabulary", type=int, default=0, metavar="ROWS", help="such as 50000")
    options = parser.parse_args()
    found = environment(1)
    print(f"kernel {found['kernel']}, {found['cpu']}, 1 thread, {', '.join(found['blas'])}")
    with threads(1):
        if options.features or options.study:
            subject = (
                saved_subject(options.features) if options.features else study_subject(options.study, options.cache)
            )
            corrupted = corrupted_subjects(options.study, options.cache, options.corrupted) if options.corrupted else []
            if options.agreement is not None:
                rules: list[Rule] | None = [hm.Margin()]
                agreements = [options.agreement]
            else:
                rules, agreements = None, [0.99, 0.995, 0.999]
            report(subject, agreements, list(corrupted), rules=rules, coarse=options.coarse, top=options.top)
        if options.digits:
            report(digits_subject(), [0.999])
        if options.vocabulary:
            report(
                vocabulary(options.vocabulary, 1024),
                [0.999],
                rules=[hm.Margin(), hm.Rigorous()],
                rivals=faiss_rivals,
                ranks=VOCABULARY_RANKS,
                without_clusters=True,
            )
    return 0


def report(
    subject: HeadSubject,
    agreements: list[float],
    corrupted: Sequence[HeadSubject] = (),
    rules: list[Rule] | None = None,
    rivals: Callable[[HeadSubject], dict[str, Search]] | None = None,
    ranks: Sequence[int] | None = None,
    without_clusters: bool = False,
    coarse: float | None = None,
    top: int = 1,
) -> None:
    """Print agreement and time of the heads of a subject, and of what else there is."""
    make = partial(hm.progressive, subject.weight, subject.bias, top=top)
    dense = Samples.of(subject.inputs, subject.weight, subject.bias, 1)
    heads = {
        f"{type(rule).__name__} {agreement}": make(
            calibration=subject.calibration, agreement=agreement, rule=rule, ranks=ranks
        )
        for rule in rules or [hm.Margin(), hm.Rigorous()]
        for agreement in (agreements if isinstance(rule, hm.Margin) else agreements[-1:])
    }
    if without_clusters:
        heads |= {
            f"Margin {agreement}, no clusters": make(
                calibration=subject.calibration, agreement=agreement, ranks=ranks, cluster_rows=[0]
            )
            for agreement in agreements
        }
    others = rivals(subject) if rivals else {}
    if coarse is not None:
        matrix, unseen = _allocated(subject, coarse)
        name = f"H-matrix of {coarse:.1%}"
        heads |= {
            f"Margin {agreement}, {name}": make(calibration=unseen, agreement=agreement, coarse=matrix)
            for agreement in agreements
        }
        others[f"{name} alone"] = lambda x: (matrix.apply(x) + subject.bias).argmax(axis=1)
    contenders = {name: going_through(call, subject.inputs) for name, call in _calls(heads, top).items()}
    contenders |= {name: going_through(call, subject.inputs[:, None]) for name, call in others.items()}
    products = dense_products(subject.weight, aligned(subject.inputs[0]))
    times = {time.contender: time for time in alternate({**products, **contenders})}
    fastest = min(times[name].median for name in products)
    m, n = subject.weight.shape
    print(f"\n## {subject.name}: {m} x {n}, {len(subject.inputs)} inputs; fastest dense {fastest * 1e6:.1f} µs\n")
    print(
        "| | coarse, clusters, rows, precision | rows refined | agreement | top-1 (dense) | top-5 (dense) | µs "
        "| of dense | bytes |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, head in heads.items():
        low_rank = f"{head.rank} {head.coarse_precision.name.lower()}"
        part = low_rank if head.coarse is None else f"{len(head.coarse.pack().leaves)} leaves"
        point = f"{part}, {head.clusters}, {head.most}, {head.precision.name.lower()}"
        agreed = dense.agree(head.topk(subject.inputs)[1]).mean()
        refined = head.refined(subject.inputs, top).mean()
        for call in (name, f"{name}, topk", f"{name}, module"):
            time = times[call]
            accuracy = _accuracies(subject, head)
            print(
                f"| {call} | {point} | {refined:.1f} | {agreed:.2%} | {accuracy} | {time.median * 1e6:.1f} "
                f"| {time.median / fastest:.3f} | {head.storage().ratio:.2f} |"
            )
    for name, search in others.items():
        agreed = dense.agree(search(subject.inputs)[:, None]).mean()
        median = times[name].median
        print(f"| {name} | | | {agreed:.2%} | | | {median * 1e6:.1f} | {median / fastest:.3f} | |")
    if corrupted:
        _report_corrupted(heads, corrupted)


def _allocated(subject: HeadSubject, storage: float) -> tuple[hm.HMatrix, FloatArray]:
    """Return an H-matrix fitted to half of the calibration inputs, and the other half, which it has not seen."""
    budget = hm.Budget(storage=storage)
    seen, unseen = subject.calibration[::2], subject.calibration[1::2]
    return hm.allocate(subject.weight, budget, calibration=seen, activations="int8").matrix, unseen


def _report_corrupted(heads: dict[str, hm.ProgressiveHead], corrupted: Sequence[HeadSubject]) -> None:
    """Print how heads agree where inputs are not like those that calibrated them.

    With the dense layer, and with its rows as the head stores them: what the rigorous rule promises.
    """
    print("\n| inputs | | agreement | with its own rows | rows refined | top-1 (dense) | top-5 (dense) |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for other in corrupted:
        truth = Samples.of(other.inputs, other.weight, other.bias, 1)
        for name, head in heads.items():
            found = head.topk(other.inputs)[1]
            rows = head.pack().rows_of(np.arange(len(other.weight)))
            own = Samples.of(other.inputs, rows, other.bias, 1)
            print(
                f"| {other.name} | {name} | {truth.agree(found).mean():.2%} | {own.agree(found).mean():.2%} "
                f"| {head.refined(other.inputs).mean():.1f} | {_accuracies(other, head)} |"
            )


def _calls(heads: dict[str, hm.ProgressiveHead], top: int) -> dict[str, Callable[[FloatArray], object]]:
    calls: dict[str, Callable[[FloatArray], object]] = {}
    for name, head in heads.items():
        calls[name] = head
        calls[f"{name}, topk"] = _top(head, top)
        calls[f"{name}, module"] = _module(head)
    return calls


def _top(head: hm.ProgressiveHead, top: int) -> Callable[[FloatArray], object]:
    return lambda x: head.topk(x, top)


def _module(head: hm.ProgressiveHead) -> Callable[[FloatArray], object]:
    layer = ProgressiveLinear(head)
    return lambda x: layer(torch.from_numpy(x))


def _accuracies(subject: HeadSubject, head: hm.ProgressiveHead) -> str:
    if subject.labels is None:
        return "|"
    dense = subject.inputs @ subject.weight.T + subject.bias
    own = head(subject.inputs)
    cells = []
    for k in (1, 5):
        right = [(np.argsort(-y, axis=1)[:, :k] == subject.labels[:, None]).any(axis=1).mean() for y in (own, dense)]
        cells.append(f"{right[0]:.1%} ({right[1]:.1%})")
    return " | ".join(cells)


if __name__ == "__main__":
    sys.exit(main())
