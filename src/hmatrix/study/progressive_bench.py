"""How progressive heads agree with the dense layer, and their time: ``python -m hmatrix.study.progressive_bench``.

Subjects are MobileNetV2 of a study file (even classes calibrate, odd ones are evaluated), the head of the digits
network (training images calibrate), and a synthetic vocabulary of clustered rows with a decaying spectrum.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms import functional as transforms

import hmatrix as hm
from hmatrix._memory import aligned
from hmatrix._validation import FloatArray
from hmatrix.errors import DataError
from hmatrix.study import digits
from hmatrix.study.datasets import LabelledImages, open_data
from hmatrix.study.environment import environment
from hmatrix.study.features import cached_features
from hmatrix.study.models import LoadedNetwork, load_network
from hmatrix.study.studyfile import read_study
from hmatrix.study.timing import alternate, dense_products, threads

Search: TypeAlias = Callable[[FloatArray], npt.NDArray[np.int64]]
"""From inputs ``(batch, n)`` to the row of the largest output of each."""

VOCABULARY_RANKS = (32, 64, 128)
"""Fewer than for a small head, since each takes its time to try."""

_TIMED = 64
"""Inputs that the calls of a timing go through, since a head's time depends on its input."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A head, inputs that calibrate it, and inputs that it is evaluated on, with their labels where there are any."""

    name: str
    weight: FloatArray
    bias: FloatArray
    calibration: FloatArray
    inputs: FloatArray
    labels: npt.NDArray[np.int64] | None


def main() -> int:
    """Print a table for each subject."""
    parser = argparse.ArgumentParser(prog="python -m hmatrix.study.progressive_bench", description=__doc__)
    parser.add_argument("--features", type=Path, help="npz file with X, labels, weight and bias, instead of images")
    parser.add_argument("--study", type=Path, help="a study file with images in folders of classes")
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache" / "hmatrix", help="of the images' features"
    )
    parser.add_argument(
        "--corrupted", type=int, default=0, metavar="N", help="evaluate on N images with noise and blur"
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
            report(subject, [0.99, 0.995, 0.999], list(corrupted))
        if options.digits:
            report(digits_subject(), [0.999])
        if options.vocabulary:
            report(
                vocabulary(options.vocabulary, 1024),
                [0.999],
                rules=[hm.Margin()],
                rivals=faiss_rivals,
                ranks=VOCABULARY_RANKS,
            )
    return 0


def saved_subject(path: Path) -> Subject:
    """Return the head and the features in a file."""
    with np.load(path) as file:
        X, labels, weight, bias = (file[name] for name in ("X", "labels", "weight", "bias"))
    even = labels % 2 == 0
    return Subject(path.stem, weight, bias, X[even], X[~even], labels[~even])


def study_subject(study: Path, cache: Path) -> Subject:
    """Return the head of a study's network on its images."""
    network, images = _opened(study)
    X = cached_features(network, images, cache).inputs
    even = images.labels % 2 == 0
    weight, bias = network.layer.weight.numpy(), network.layer.bias.numpy()
    return Subject(network.name, np.ascontiguousarray(weight), bias, X[even], X[~even], images.labels[~even])


def corrupted_subjects(study: Path, cache: Path, count: int) -> Iterator[Subject]:
    """Yield the same head on some images of the odd classes, as they are and corrupted."""
    network, images = _opened(study)
    odd = np.flatnonzero(images.labels % 2 == 1)
    chosen = odd[np.linspace(0, len(odd) - 1, count).astype(int)]
    weight, bias = network.layer.weight.numpy(), network.layer.bias.numpy()
    for name, read in _corruptions(images, chosen):
        digest = f"{images.digest} {name} {count}"
        some = replace(images, digest=digest, labels=images.labels[chosen], read=read)
        X = cached_features(network, some, cache).inputs
        yield Subject(name, np.ascontiguousarray(weight), bias, X, X, some.labels)


def _opened(study: Path) -> tuple[LoadedNetwork, LabelledImages]:
    settings = read_study(study)
    if settings.data is None:
        raise DataError(f"study {study}", "names no data", "name a folder of images")
    network = load_network(settings.networks[0])
    return network, open_data(settings.data, network)


def digits_subject() -> Subject:
    """Return the last layer of the digits network."""
    network = digits.train()
    layer = network.get_submodule("fc3")
    body = network[:-1]
    (seen, _), (images, labels) = digits.training(), digits.held_out()
    with torch.inference_mode():
        calibration, inputs = body(seen).numpy(), body(images).numpy()
    weight, bias = (np.ascontiguousarray(layer.get_parameter(name).numpy()) for name in ("weight", "bias"))
    return Subject("digits", weight, bias, calibration, inputs, labels)


def vocabulary(rows: int, columns: int, samples: int = 1500) -> Subject:
    """Draw rows around cluster centres, with a decaying spectrum, and inputs near rows."""
    rng = np.random.default_rng(0)
    spectrum = (np.arange(1, columns + 1) ** -1.0).astype(np.float32)
    centres = rng.standard_normal((max(1, rows // 100), columns), np.float32)
    weight = centres[rng.integers(0, len(centres), rows)] + 0.7 * rng.standard_normal((rows, columns), np.float32)
    weight *= spectrum
    chosen = rng.integers(0, rows, samples)
    X = weight[chosen] / np.linalg.norm(weight[chosen], axis=1, keepdims=True)
    X += 0.5 * spectrum * rng.standard_normal((samples, columns), np.float32) / np.linalg.norm(spectrum)
    half = samples // 2
    return Subject("vocabulary", weight, np.zeros(rows, np.float32), X[:half], np.ascontiguousarray(X[half:]), None)


def report(
    subject: Subject,
    agreements: list[float],
    corrupted: list[Subject] | None = None,
    rules: list[hm.Margin | hm.Rigorous] | None = None,
    rivals: Callable[[Subject], dict[str, Search]] | None = None,
    ranks: Sequence[int] | None = None,
) -> None:
    """Print agreement and time of the heads of a subject, and of what else there is."""
    dense = (subject.inputs @ subject.weight.T + subject.bias).argmax(axis=1)
    heads = {
        f"{type(rule).__name__} {agreement}": hm.progressive(
            subject.weight, subject.bias, calibration=subject.calibration, agreement=agreement, rule=rule, ranks=ranks
        )
        for rule in rules or [hm.Margin(), hm.Rigorous()]
        for agreement in (agreements if isinstance(rule, hm.Margin) else agreements[-1:])
    }
    xs = [aligned(x) for x in subject.inputs[:_TIMED]]
    others = rivals(subject) if rivals else {}
    contenders = {name: _going_through(call, xs) for name, call in _calls(heads).items()}
    contenders |= {name: _going_through(call, [x[None] for x in xs]) for name, call in others.items()}
    products = dense_products(subject.weight, xs[0])
    times = {time.contender: time for time in alternate({**products, **contenders})}
    fastest = min(times[name].median for name in products)
    m, n = subject.weight.shape
    print(f"\n## {subject.name}: {m} x {n}, {len(subject.inputs)} inputs; fastest dense {fastest * 1e6:.1f} µs\n")
    print(
        "| | rank, rows, precision | rows refined | agreement | top-1 (dense) | top-5 (dense) | µs | of dense | bytes |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, head in heads.items():
        point = f"{head.rank}, {head.most}, {head.precision.name.lower()}"
        agreed = np.mean(head.topk(subject.inputs)[1][:, 0] == dense)
        refined = head.refined(subject.inputs).mean()
        for call in (name, f"{name}, topk"):
            time = times[call]
            accuracy = _accuracies(subject, head)
            print(
                f"| {call} | {point} | {refined:.1f} | {agreed:.2%} | {accuracy} | {time.median * 1e6:.1f} "
                f"| {time.median / fastest:.3f} | {head.storage().ratio:.2f} |"
            )
    for name, search in others.items():
        agreed = np.mean(search(subject.inputs) == dense)
        median = times[name].median
        print(f"| {name} | | | {agreed:.2%} | | | {median * 1e6:.1f} | {median / fastest:.3f} | |")
    for other in corrupted or []:
        truth = (other.inputs @ other.weight.T + other.bias).argmax(axis=1)
        for name, head in heads.items():
            agreed = np.mean(head.topk(other.inputs)[1][:, 0] == truth)
            print(
                f"\n{other.name}, {name}: agreement {agreed:.2%}, {head.refined(other.inputs).mean():.1f} rows refined"
            )


def faiss_rivals(subject: Subject) -> dict[str, Search]:
    """Return searches of faiss-cpu for the largest inner product, where it is installed.

    The lists that IVF probes, and the candidates that are ranked again, are the fewest with which the calibration
    inputs agree in 99.9 %.
    """
    try:
        import faiss
    except ModuleNotFoundError:
        print("\nnot timed: faiss-cpu is not installed")
        return {}
    faiss.omp_set_num_threads(1)
    m, n = subject.weight.shape
    truth = (subject.calibration @ subject.weight.T + subject.bias).argmax(axis=1)
    flat = faiss.IndexFlatIP(n)
    flat.add(subject.weight)
    sq8 = faiss.IndexScalarQuantizer(n, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    sq8.train(subject.weight)
    sq8.add(subject.weight)
    lists = max(1, int(4 * np.sqrt(m)))
    ivf = faiss.index_factory(n, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    ivf.train(subject.weight[: 40 * lists])
    ivf.add(subject.weight)
    ranked = faiss.IndexRefine(ivf, flat)
    ranked.k_factor = 16
    for probes in (1, 2, 4, 8, 16, 32, 64, 128, lists):
        ivf.nprobe = probes
        if np.mean(ranked.search(subject.calibration, 1)[1][:, 0] == truth) >= 0.999:
            break
    indices = {"faiss flat": flat, "faiss SQ8": sq8, f"faiss IVF{lists} SQ8, {ivf.nprobe} probes, ranked again": ranked}
    return {name: _search(index) for name, index in indices.items()}


def _search(index: object) -> Callable[[FloatArray], npt.NDArray[np.int64]]:
    return lambda x: index.search(x, 1)[1][:, 0]  # type: ignore[attr-defined]


def _calls(heads: dict[str, hm.ProgressiveHead]) -> dict[str, Callable[[FloatArray], object]]:
    calls: dict[str, Callable[[FloatArray], object]] = {}
    for name, head in heads.items():
        calls[name] = head
        calls[f"{name}, topk"] = _top(head)
    return calls


def _top(head: hm.ProgressiveHead) -> Callable[[FloatArray], object]:
    return lambda x: head.topk(x, 1)


def _going_through(call: Callable[[FloatArray], object], xs: list[FloatArray]) -> Callable[[], object]:
    following = cycle(xs).__next__
    return lambda: call(following())


def _accuracies(subject: Subject, head: hm.ProgressiveHead) -> str:
    if subject.labels is None:
        return "|"
    dense = subject.inputs @ subject.weight.T + subject.bias
    own = head(subject.inputs)
    cells = []
    for k in (1, 5):
        right = [(np.argsort(-y, axis=1)[:, :k] == subject.labels[:, None]).any(axis=1).mean() for y in (own, dense)]
        cells.append(f"{right[0]:.1%} ({right[1]:.1%})")
    return " | ".join(cells)


def _corruptions(
    images: LabelledImages, chosen: npt.NDArray[np.intp]
) -> Iterator[tuple[str, Callable[[int], torch.Tensor]]]:
    """Yield chosen images as they are, with noise, and blurred."""

    def clean(index: int) -> torch.Tensor:
        return images.read(int(chosen[index]))

    def noisy(index: int) -> torch.Tensor:
        image = clean(index)
        return image + 0.5 * torch.randn(image.shape, generator=torch.Generator().manual_seed(index))

    def blurred(index: int) -> torch.Tensor:
        image: torch.Tensor = transforms.gaussian_blur(clean(index), [13, 13], [3.0, 3.0])
        return image

    yield "images as they are", clean
    yield "noise of 0.5", noisy
    yield "blur of 3 pixels", blurred


if __name__ == "__main__":
    sys.exit(main())
