"""The factors of leaves as parameters that are rounded as the packed matrix rounds them.

Codes are trained with the straight-through estimator: the forward pass rounds as the packed matrix does, the backward
pass takes rounding for the identity, inside the range of the codes. Gains of the scales are learned with them. Unlike
in learned step size quantization, coefficients are rounded by the scales that they came with, and the learned ones
multiply the codes: in LSQ the gradient of a scale is the movement of rounding, which is zero in a matrix that was
packed. With int8 activations the forward pass quantises activations, too.

References
----------
Y. Bengio, N. Leonard, A. Courville, *Estimating or propagating gradients through stochastic neurons for
conditional computation*, arXiv:1308.3432. S. Esser et al., *Learned step size quantization*, ICLR 2020,
arXiv:1902.08153.
"""

import torch
from torch import Tensor, nn

from hmatrix.codes.precision import Precision
from hmatrix.errors import ArgumentError
from hmatrix.nn.ops import batched
from hmatrix.nn.ops.coefficients import Coefficients, Columns
from hmatrix.nn.ops.modes import outside_modes
from hmatrix.nn.ops.nearest import Rounded, apart, rounded


class TrainableFactor(nn.Module):
    """The factors of a stack of leaves as parameters.

    Parameters
    ----------
    stored
        Coefficients to begin with.
    quantized
        Whether activations are int8 where they meet codes.

    Attributes
    ----------
    latent
        ``(leaves, rows, columns)``: the coefficients before they are rounded.
    scales
        ``(leaves, rows, groups)``, by which codes are rounded; ``None`` where there are no codes. Not trained.
    gains
        Factors by which the scales change, of the same shape; they begin as 1.
    """

    latent: nn.Parameter
    scales: Tensor | None
    gains: nn.Parameter | None

    def __init__(self, stored: Coefficients, *, quantized: bool) -> None:
        super().__init__()
        self.columns: Columns = stored.columns
        self._quantized = quantized and stored.scales is not None
        self._kept: Rounded | None = None
        with outside_modes(), torch.no_grad():
            self.latent = nn.Parameter(stored.values().clone())
            self.register_buffer("scales", None if stored.scales is None else stored.scales.clone())
            gains = None if stored.scales is None else nn.Parameter(torch.ones_like(stored.scales))
            self.register_parameter("gains", gains)

    def values(self) -> Tensor:
        """Return the coefficients ``(leaves, rows, columns)`` as they are rounded, with straight-through gradients."""
        latent = _single(self.latent)
        if self.columns.precision is Precision.BFLOAT16:
            return _straight_through(latent, latent.to(torch.bfloat16).to(latent.dtype))
        if self.scales is None:
            return latent
        found = self._rounded()
        return self.columns.by_column(self._gained()) * _straight_through(found.wanted, found.held)

    def multiply(self, x: Tensor) -> Tensor:
        """Multiply x ``(leaves, batch, columns)``, quantised where the packed matrix quantises it."""
        if self._quantized:
            codes, steps = batched.quantize(x.detach(), self.columns)
            x = _straight_through(x, codes * self.columns.by_run(steps))
        return x @ self.values().mT

    def coefficients(self) -> Coefficients:
        """Return the coefficients as they are stored.

        Raises
        ------
        ArgumentError
            If they are not finite.
        """
        if not bool(self.latent.isfinite().all()):
            raise ArgumentError("latent", "holds NaN or infinity", "train with shorter steps")
        if self.scales is None:
            return Coefficients.of(self.columns, self.latent.detach())
        return Coefficients.of(self.columns, self._rounded().codes.to(torch.uint8), self._gained().detach().float())

    def steps(self) -> Tensor:
        """Return the distance of neighbouring values of each coefficient, on average, ``(leaves, rows, columns)``."""
        assert self.scales is not None
        return self.columns.by_column(_single(self.scales)).abs() * apart(self.columns.precision)

    @torch.no_grad()
    def keep_codes(self) -> None:
        """Train only scales from now on: `latent` stays as it is, and is not rounded anew each time."""
        self.latent.requires_grad_(False)
        self._kept = self._rounded()

    def extra_repr(self) -> str:
        """Describe the factors in the printed network."""
        return f"{tuple(self.latent.shape)}, {self.columns.precision.name.lower()}"

    def _gained(self) -> Tensor:
        """Return the scales as they were learned."""
        assert self.scales is not None
        assert self.gains is not None
        return _single(self.scales) * _single(self.gains)

    def _rounded(self) -> Rounded:
        """Return the rounded coefficients, in units of the scale."""
        assert self.scales is not None
        if self._kept is not None:
            return self._kept
        scales = self.columns.by_column(_single(self.scales))
        # Where the scale is zero, the codes do not matter.
        return rounded(self.columns, _single(self.latent) / torch.where(scales == 0, 1, scales))


def _single(x: Tensor) -> Tensor:
    """Return a tensor in float32, or float64."""
    return x if x.dtype == torch.float64 else x.float()


def _straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """Return `rounded`, with the gradient of x."""
    return x + (rounded - x).detach()
