"""Images in a new order, cropped and mirrored."""

import numpy as np
import torch

from hmatrix.study.data.augmentation import ShuffledImages
from hmatrix.study.data.datasets import LabelledImages


def images(shape=(3, 20, 20), count=10):
    inputs = torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))
    return LabelledImages("noise", "", np.zeros(count, np.int64), inputs.__getitem__), inputs


def test_every_image_comes_once_in_a_new_order():
    data, inputs = images((5,))
    shuffled = ShuffledImages(data, (1, 2, 4, 7, 8), 2)
    orders = [torch.cat(list(shuffled)) for _ in range(2)]
    assert [len(batch) for batch in shuffled] == [2, 2, 1]
    for order in orders:
        # Vectors are left as they are.
        assert sorted(map(tuple, order.tolist())) == sorted(map(tuple, inputs[[1, 2, 4, 7, 8]].tolist()))
    assert not torch.equal(*orders)


def test_the_same_seed_gives_the_same_images():
    data, _ = images()
    first, second, other = (ShuffledImages(data, tuple(range(10)), 4, seed) for seed in (1, 1, 2))
    for _ in range(2):
        same = [torch.cat(list(shuffled)) for shuffled in (first, second, other)]
        assert torch.equal(same[0], same[1])
        assert not torch.equal(same[0], same[2])


def test_crops_lie_within_the_image():
    """Of a plane, a crop is a plane with smaller slopes, those across mirrored or not, and within its values."""
    ramp = torch.arange(40.0)
    image = torch.stack([ramp.expand(40, 40), ramp[:, None].expand(40, 40)])
    data = LabelledImages("plane", "", np.zeros(1, np.int64), lambda _: image)
    shuffled = ShuffledImages(data, (0,), 1)
    mirrored = []
    for _ in range(20):
        (batch,) = shuffled
        assert batch.shape == (1, 2, 40, 40)
        assert batch.is_contiguous(memory_format=torch.channels_last)
        across, down = (batch[0, channel].diff(dim=1 - channel)[5:-5, 5:-5] for channel in (0, 1))
        assert batch.min() >= 0
        assert batch.max() <= 39
        slope = down.mean().item()
        assert 0.59 <= slope <= 1.01
        torch.testing.assert_close(down, torch.full_like(down, slope), rtol=0, atol=0.01)
        torch.testing.assert_close(across.abs(), torch.full_like(across, slope), rtol=0, atol=0.01)
        mirrored.append(bool(across.mean() < 0))
    assert 0 < sum(mirrored) < 20
