"""``hmatrix finetune``: a compressed network trained back to the outputs of the original."""

import argparse
from pathlib import Path

import hmatrix
from hmatrix._support.files import check_place
from hmatrix._support.store import default_cache
from hmatrix.cli.arguments import Commands, add_command, number_from_zero, positive, positive_number
from hmatrix.errors import ArgumentError

EXAMPLES = """\
examples:
  hmatrix finetune small.safetensors --steps 500 -o better.safetensors
      the embedded network, in a minute; it needs neither weights nor data
  hmatrix finetune small.safetensors --data imagenet/val --weights mine.safetensors -o better.safetensors
      images of even-numbered classes train, as they calibrated; those of odd-numbered ones judge
  hmatrix finetune small.safetensors --data imagenet/val --codes 0 --rate 1e-5 --divergence 1 -o better.safetensors
      the same for a large classifier: codes stay, steps are short, and probabilities of classes are what counts
  hmatrix finetune small.safetensors --data sentences.txt --minutes 30 -o better.safetensors
      a text encoder, whose original lies in its folder
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "finetune",
        run,
        short="train a compressed network back to what the original computes",
        long="Load a network that hmatrix compress wrote, and train it so that its outputs are again those of the "
        "original on the data that calibrated it: labels are not needed. It keeps its size. A part of these data is "
        "held out, and the network that is best there is written; it is never worse there than the one that was "
        "given. Ctrl-C ends the training early, and the best network so far is written; before the training has begun, "
        "nothing is.",
        examples=EXAMPLES,
    )
    parser.add_argument("file", type=Path, help="a file written by hmatrix compress")
    parser.add_argument("--data", metavar="DATA", help="the data that calibrated it: images, imagenette, or a text")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="weights of the original (default: those of the library)"
    )
    parser.add_argument(
        "--minutes", type=positive_number, metavar="M", help="how long (default: 10, or as long as --steps takes)"
    )
    parser.add_argument(
        "--steps", type=positive, metavar="N", help="end after so many steps: the same result each time"
    )
    parser.add_argument(
        "--rate",
        type=positive_number,
        metavar="R",
        help="length of a step, in proportion to the size of what is trained (default: 2e-4); shorter where the "
        "held-out loss rises",
    )
    parser.add_argument(
        "--codes",
        type=number_from_zero,
        metavar="C",
        help="length of a step of integer codes, in codes (default: 5e-3); 0 leaves them as they are, which large "
        "networks need",
    )
    parser.add_argument(
        "--divergence",
        type=positive_number,
        metavar="T",
        help="the loss is the divergence of class probabilities, at temperature T (1: as they are), instead of the "
        "square error of outputs",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the file to write")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    import hmatrix.nn as hnn
    from hmatrix.study.whole.compared import compare
    from hmatrix.study.whole.whole_files import load_whole, reopen

    check_place(options.output)
    given = {
        "seconds": None if options.minutes is None else 60 * options.minutes,
        "steps": options.steps,
        "rate": options.rate,
        "codes": options.codes,
        "loss": None if options.divergence is None else hnn.Divergence(options.divergence),
    }
    settings = hnn.Finetuning(**{name: value for name, value in given.items() if value is not None})
    print(f"kernel {hmatrix.backend().name}")
    network = load_whole(options.file)
    original = reopen(options.file, options.data, options.weights, default_cache())
    if original.training is None or original.judge is None:
        raise ArgumentError("--data", "is not given", "name a folder of images, or a text for an encoder")
    model, report = hnn.finetune(
        network.module,
        original.module,
        original.training,
        settings,
        held_out=original.held_out,
        forward=original.forward,
    )
    print(report)
    hnn.save(model, options.output, original.architecture)
    reference, before, after = (original.judge.scores(module) for module in (original.module, network.module, model))
    print(f"score    {before.mean():.2f} -> {after.mean():.2f}: {original.judge.name}")
    print(compare(reference, after))
    print(f"written  {options.output} ({options.output.stat().st_size / 1e6:.2f} MB)")
    return 0
