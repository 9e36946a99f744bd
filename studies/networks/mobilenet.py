"""MobileNetV2 with all pointwise convolutions and the head compressed: what it loses, and how long it takes.

Calibrated on the images of the even-numbered classes, judged on those of the odd-numbered ones, or the other way round.

    HMATRIX_DATA=FOLDER python -m studies.networks.mobilenet [--storage 0.25,0.125] [--finetune MINUTES] [--cache DIR]
                                                             [--calibrate even]

FOLDER holds models/mobilenetv2_100.safetensors and data/imagenet-sample/val. With --finetune, each network is trained
back to the outputs of the original afterwards: on 7/8 of the calibration images, the rest telling which is the best.
"""

import argparse
import copy
from functools import partial
from pathlib import Path

import numpy as np
import torch

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix._support.files import write_file
from hmatrix._support.machine import threads
from hmatrix.study.config.studyfile import read_study
from hmatrix.study.data.datasets import LabelledImages, open_data, read_ahead
from hmatrix.study.measure.statistics import paired_interval
from hmatrix.study.networks.models import load_network
from hmatrix.study.whole.whole_images import open_classifier
from studies.networks.turns import rounds, times

STUDY = Path(__file__).parents[1] / "mobilenetv2-sample.toml"
BATCH = 16


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", default="0.25,0.125", help="fractions of the float32 storage of the layers")
    parser.add_argument("--finetune", type=float, metavar="MINUTES", help="distillation of each network")
    parser.add_argument("--calibrate", choices=("even", "odd"), default="even", help="classes that calibrate")
    parser.add_argument("--threads", type=int, default=1, help="of distillation")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--rounds", type=rounds, default=15, help="of the timing")
    options = parser.parse_args()
    if options.finetune is not None and options.calibrate == "odd":
        parser.error("--finetune trains on images of the even-numbered classes")
    study = read_study(STUDY)
    assert study.data is not None
    network = load_network(study.networks[0])
    whole = open_classifier(study.networks[0], study.data)
    images = open_data(study.data, network)
    is_odd = images.labels % 2 == 1
    is_judged = is_odd if options.calibrate == "even" else ~is_odd
    calibration, judged = (batches(images, np.flatnonzero(chosen)) for chosen in (~is_judged, is_judged))
    labels = torch.from_numpy(images.labels[is_judged])

    def scores(model: torch.nn.Module) -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([model(batch) for batch in judged])

    def right(found: torch.Tensor) -> np.ndarray:
        return (found.argmax(dim=1) == labels).numpy()

    def tell(model: torch.nn.Module) -> None:
        found = scores(model)
        now = right(found)
        lost, gained = int((reference & ~now).sum()), int((now & ~reference).sum())
        low, high = paired_interval(len(labels), lost, gained)
        print(
            f"top-1 {100 * now.mean():.2f}, lost {100 * (lost - gained) / len(labels):.2f} points "
            f"(95 % interval {100 * low:.2f} to {100 * high:.2f})\n"
            f"output changed by {hnn.SquaredError()(found, dense):.4f} of its variance, "
            f"divergence of class probabilities {hnn.Divergence(1.0)(found, dense):.4f}",
            flush=True,
        )

    dense = scores(network.module)
    reference = right(dense)
    print(f"dense: top-1 {100 * reference.mean():.2f} on {len(labels)} images", flush=True)
    models = {"dense": network.module}
    for storage in map(float, options.storage.split(",")):
        model, report = hnn.compress(
            network.module,
            hm.Budget(storage=storage),
            select=pointwise,
            calibration=calibration,
            cache=options.cache,
        )
        print(f"\n{storage:.1%} of the storage\n{report}")
        tell(model)
        if options.finetune is not None:
            with threads(options.threads):
                model, tuned = hnn.finetune(
                    model,
                    network.module,
                    whole.training,
                    hnn.Finetuning(seconds=60 * options.finetune, rate=1e-5, codes=0.0, loss=hnn.Divergence(1.0)),
                    held_out=whole.held_out,
                )
            print(f"distillation, {options.threads} thread(s)\n{tuned}")
            tell(model)
        models[f"{storage:.1%}"] = model
        if options.cache:
            write_file(options.cache / f"mobilenet-{storage}.json", report.to_json())
    image = judged[0][:1]
    calls = {}
    for name, model in models.items():
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        calls[name] = partial(model, image)
        calls[f"{name}, channels last"] = partial(last, image.contiguous(memory_format=torch.channels_last))
    print("\ntime of one image, and quartiles, in ms, alternating")
    for count in (1, 2):
        with threads(count), torch.inference_mode():
            print(f"  {count} thread(s): {times(calls, options.rounds)}")


def pointwise(_: str, module: torch.nn.Module) -> bool:
    """Select convolutions of 1 x 1 and linear layers."""
    return not isinstance(module, torch.nn.Conv2d) or module.kernel_size == (1, 1)


def batches(images: LabelledImages, rows: np.ndarray) -> list[torch.Tensor]:
    """Read images as batches."""
    with read_ahead(images, rows.tolist(), 2) as inputs:
        return list(torch.stack(list(inputs)).split(BATCH))


if __name__ == "__main__":
    main()
