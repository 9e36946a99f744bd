"""The codes whose values are nearest to coefficients that are trained.

Codes of a trellis are found word by word on the CPU, by the Viterbi algorithm, in an operator, so that compilers need
not see it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hmatrix.codes.precision import Precision
from hmatrix.codes.trellis import ALL_TRIES
from hmatrix.nn.ops.coefficients import TABLES, Coefficients, Columns


class Rounded(NamedTuple):
    """Coefficients and their rounded values, each ``(leaves, rows, columns)``.

    Parameters
    ----------
    wanted
        The coefficients, inside the range of the codes, in units of the scale.
    held
        Values of the codes, in units of the scale.
    codes
        Codes of any type.
    """

    wanted: Tensor
    held: Tensor
    codes: Tensor


def rounded(columns: Columns, wanted: Tensor) -> Rounded:
    """Round coefficients.

    Parameters
    ----------
    columns
        Their columns, of an integer precision.
    wanted
        ``(leaves, rows, columns)``, float32 or float64, in units of the scale.
    """
    precision = columns.precision
    levels = _levels(precision)
    # The range includes half a step beyond the first and the last value: these round to them, too.
    wanted = wanted.clamp(1.5 * levels[0] - 0.5 * levels[1], 1.5 * levels[-1] - 0.5 * levels[-2])
    if precision not in TABLES:
        codes = (wanted + precision.zero).round().clamp(0, len(levels) - 1)
        return Rounded(wanted, codes - precision.zero, codes)
    if precision is Precision.LLOYD4:
        values = torch.tensor(levels, dtype=wanted.dtype, device=wanted.device)
        codes = torch.bucketize(wanted, (values[1:] + values[:-1]) / 2)
        return Rounded(wanted, values[codes], codes)
    codes = _encoded(wanted.detach(), int(precision), columns.lengths)
    return Rounded(wanted, Coefficients.of(columns, codes).integers().to(wanted.dtype), codes)


def apart(precision: Precision) -> float:
    """Return the distance of neighbouring values of an entry, on average, in units of the scale.

    In a trellis these are the values that it can have beside its neighbours' present codes.
    """
    if precision not in TABLES:
        return 1.0
    choices = np.reshape(TABLES[precision], (-1, 2**precision.bits))
    return float(np.ptp(choices, axis=1).mean() / (choices.shape[1] - 1))


def _levels(precision: Precision) -> list[float]:
    """Return all values that entries may have, in order, in units of the scale."""
    if precision in TABLES:
        return sorted(set(TABLES[precision]))
    return [code - precision.zero for code in range(2**precision.bits)]


@torch.library.custom_op("hmatrix::encoded", mutates_args=())
def _encoded(wanted: Tensor, precision: int, lengths: Sequence[int]) -> Tensor:
    """Return the codes of words of a trellis, uint8 ``(leaves, rows, columns)``; words begin where runs do."""
    trellis = Precision(precision).trellis
    assert trellis is not None
    runs = torch.split(wanted.flatten(0, 1).float().cpu(), list(lengths), dim=1)
    # All states are tried, so that what codes stand for is rounded to these values again.
    codes = np.concatenate([trellis.nearest(run.numpy(), ALL_TRIES) for run in runs], axis=1)
    return torch.from_numpy(codes).view(wanted.shape).to(wanted.device)


@_encoded.register_fake
def _shape_of_codes(wanted: Tensor, precision: int, lengths: Sequence[int]) -> Tensor:  # noqa: ARG001
    return torch.empty_like(wanted, dtype=torch.uint8)
