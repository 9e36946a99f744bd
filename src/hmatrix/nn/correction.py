"""Biases corrected one after the other, each layer seeing what the layers before it make of the data.

Compression corrects each bias for the inputs that a layer has in the original network. In the compressed network its
inputs have changed, and their means with them. Here the mean output of each layer with a bias becomes that of the same
layer of the original, in one pass: a layer is corrected before its output goes on to the next.

References
----------
M. Nagel et al., *Data-free quantization through weight equalization and bias correction*, ICCV 2019, arXiv:1906.04721.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from hmatrix.nn.conv import HConv2d
from hmatrix.nn.matching import Pair, recording, watching
from hmatrix.nn.running import Forward, evaluating


def correct_biases(pair: Pair, batches: Iterable[Any], forward: Forward) -> None:
    """Give the layers of the student the mean outputs of the teacher's, in place, by their biases."""
    for number, batch in enumerate(batches, start=1):
        with evaluating(pair.teacher), recording(pair.teacher_layers) as wanted:
            forward(pair.teacher, batch)

        def corrected(name: str, output: Tensor) -> Tensor | None:
            layer = pair.student_layers[name]
            bias = layer._parameters.get("bias")
            target = wanted[name].pop(0)
            if bias is None:
                return None
            axis = -3 if isinstance(layer, HConv2d) else -1
            others = [dim for dim in range(output.dim()) if dim != axis % output.dim()]
            # The means of all batches so far, by what each of them adds to those before.
            shift = (target.mean(dim=others, keepdim=True) - output.mean(dim=others, keepdim=True)) / number  # noqa: B023
            bias.add_(shift.flatten())
            return output + shift

        with evaluating(pair.student), watching(pair.student_layers, corrected):
            forward(pair.student, batch)
