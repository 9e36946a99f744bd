"""How images are divided for calibration, training and evaluation."""

import numpy as np
import pytest
import torch
from PIL import Image

from hmatrix.errors import DataError
from hmatrix.study.config.settings import FolderData, Network
from hmatrix.study.whole.whole_images import open_classifier


def test_images_are_split_for_training(tmp_path):
    from timm.data.imagenet_info import ImageNetInfo

    names = ImageNetInfo("imagenet-1k").label_names()
    for label in range(20):
        (tmp_path / "data" / names[label]).mkdir(parents=True)
        Image.new("RGB", (40, 32), (12 * label, 0, 0)).save(tmp_path / "data" / names[label] / "a.png")
    torch.manual_seed(0)
    import timm

    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "weights.pt")
    network = Network("timm:test_vit", weights=tmp_path / "weights.pt")
    whole = open_classifier(network, FolderData(tmp_path / "data"))

    def reds(batches):
        """Of crops of single colours, which images they are."""
        return sorted(image[0, 0, 0].item() for batch in batches for image in batch)

    held_out, trained = reds(whole.held_out), reds(whole.training)
    assert (len(held_out), len(trained)) == (1, 9)
    np.testing.assert_allclose(sorted(held_out + trained), reds(whole.calibration), atol=1e-6)


def test_images_of_one_parity_are_refused(tmp_path):
    from timm.data.imagenet_info import ImageNetInfo

    wnid = ImageNetInfo("imagenet-1k").label_names()[1]
    (tmp_path / "data" / wnid).mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(tmp_path / "data" / wnid / "a.png")
    torch.manual_seed(0)
    import timm

    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "weights.pt")
    network = Network("timm:test_vit", weights=tmp_path / "weights.pt")
    with pytest.raises(DataError, match="odd-numbered classes only"):
        open_classifier(network, FolderData(tmp_path / "data"))
