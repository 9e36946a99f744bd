"""The positions of a batch that are no padding."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class Present:
    """The positions of a batch that are no padding, where it has a mask by the name that transformers use."""

    def __init__(self) -> None:
        self._mask: Tensor | None = None

    def begin(self, batch: Any) -> None:
        """Go on to the next batch."""
        mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
        self._mask = mask.bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None

    def among(self, x: Tensor) -> Tensor:
        """Return a layer's inputs or outputs at these positions: vectors ``(k, n)``, or indices ``(k,)``."""
        mask = self.mask_of(x)
        return x if mask is None else x[mask]

    def mask_of(self, x: Tensor) -> Tensor | None:
        """Return the mask of these positions in x; ``None`` for all, or where x has no such positions."""
        positions = x.shape[:-1] if x.is_floating_point() else x.shape
        return None if self._mask is None or positions != self._mask.shape else self._mask.to(x.device)
