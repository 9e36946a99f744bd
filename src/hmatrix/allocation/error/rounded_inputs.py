"""The error that int8 activations add to a layer's output.

Where they meet integer codes, the inputs of a block are rounded to 127 steps of their largest magnitude on either side.
The errors of rounding are as good as random: their squares add up, weighted by the block's own entries.
"""

from typing import Self

import numpy as np

from hmatrix._support.typing import AnyArray, FloatArray
from hmatrix.packed.kernels import quantize_activations

_MOST_SAMPLES = 256


class RoundedInputs:
    """Inputs of a layer that products with integer codes round.

    Parameters
    ----------
    samples
        The inputs, not centred, float32 ``(samples, n)``.
    """

    def __init__(self, samples: FloatArray) -> None:
        few = np.linspace(0, len(samples) - 1, min(len(samples), _MOST_SAMPLES)).astype(np.intp)
        self.samples = samples[np.unique(few)]

    def permuted(self, order: AnyArray) -> Self:
        """Return some of the inputs, ``(columns,)``, in another order."""
        return type(self)(self.samples[:, order])

    def added(self, columns: slice) -> FloatArray:
        """Return the mean square that rounding adds to each input of a block, ``(columns,)``."""
        entries = self.samples[:, columns]
        codes, steps = quantize_activations(entries)
        added: FloatArray = np.square(entries - codes * steps[:, None]).mean(axis=0)
        return added
