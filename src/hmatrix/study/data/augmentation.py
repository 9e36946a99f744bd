"""Images in a new order each time, cropped and mirrored at random, for distillation with few images."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor, nn

from hmatrix.study.data.datasets import LabelledImages, read_ahead

_WORKERS = 2
_LEAST_SIDE = 0.6
"""Least side of a crop, as a fraction of the image's."""


@dataclass(frozen=True)
class ShuffledImages:
    """Batches of some images of a data set, read anew each time.

    Parameters
    ----------
    images
        The data set; its inputs are ``(channels, height, width)``, or vectors, which are not cropped.
    rows
        Numbers of the images.
    size
        Size of a batch.
    seed
        Seed of order, crops and mirroring; every iteration goes on where the last one ended.
    """

    images: LabelledImages
    rows: tuple[int, ...]
    size: int
    seed: int = 0
    _generator: torch.Generator = field(init=False, default_factory=torch.Generator)

    def __post_init__(self) -> None:
        self._generator.manual_seed(self.seed)

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self.rows), generator=self._generator).tolist()
        with read_ahead(self.images, [self.rows[number] for number in order], _WORKERS) as inputs:
            while batch := list(islice(inputs, self.size)):
                changed = torch.stack([self._changed(image) for image in batch])
                # In this order convolutions train faster.
                yield changed.contiguous(memory_format=torch.channels_last) if changed.dim() == 4 else changed

    def _changed(self, image: Tensor) -> Tensor:
        if image.dim() != 3:
            return image
        size = image.shape[-2:]
        across, down, left, mirrored = torch.rand(4, generator=self._generator).tolist()
        side = _LEAST_SIDE + (1 - _LEAST_SIDE) * across
        height, width = (round(side * length) for length in size)
        top, first = int(down * (size[0] - height + 1)), int(left * (size[1] - width + 1))
        crop = image[None, :, top : top + height, first : first + width]
        crop = nn.functional.interpolate(crop, size=size, mode="bilinear", antialias=True)[0]
        return crop.flip(-1) if mirrored < 0.5 else crop
