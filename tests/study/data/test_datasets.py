import shutil
import urllib.error
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hmatrix.errors import DataError, NetworkError
from hmatrix.study.config.settings import DigitsData, FolderData, ImagenetteData, Interpolation
from hmatrix.study.data import datasets
from hmatrix.study.data.datasets import LabelledImages, open_data, read_ahead
from hmatrix.study.networks.models import LoadedNetwork, Preprocessing

TENCH, CHURCH, PARACHUTE = "n01440764", "n03028079", "n03888257"
INDICES = {TENCH: 0, CHURCH: 497, PARACHUTE: 701}
PREPROCESSING = Preprocessing(12, 8, Interpolation.BILINEAR, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def network(classes=1000, preprocessing=PREPROCESSING):
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8 if preprocessing else 64, classes))
    return LoadedNetwork("small", module, preprocessing, "1", module[1], "digest")


def write_image(path, seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate([f"{PARACHUTE}/b.JPEG", f"{PARACHUTE}/a.png", f"{TENCH}/z.JPEG", f"{CHURCH}/c.jpg"]):
        write_image(tmp_path / "set" / name, seed)
    return tmp_path / "set"


def test_a_subset_of_the_classes_keeps_their_indices(folder):
    images = open_data(FolderData(folder), network())
    assert images.labels.dtype == np.int64
    assert images.labels.tolist() == [0, 497, 701, 701]
    assert len(images) == 4
    tensor, label = images[2]
    assert label == 701
    with Image.open(folder / PARACHUTE / "a.png") as image:
        assert torch.equal(tensor, PREPROCESSING.apply(image))


def test_other_files_are_left_out(folder):
    (folder / "list.txt").write_text("text")
    (folder / TENCH / "list.txt").write_text("text")
    (folder / TENCH / ".hidden.JPEG").write_text("text")
    (folder / ".hidden").mkdir()
    assert len(open_data(FolderData(folder), network())) == 4


def test_validation_folder_is_found(folder, tmp_path):
    (tmp_path / "imagenet" / "train" / TENCH).mkdir(parents=True)
    folder.rename(tmp_path / "imagenet" / "val")
    images = open_data(FolderData(tmp_path / "imagenet"), network())
    direct = open_data(FolderData(tmp_path / "imagenet" / "val"), network())
    assert images.labels.tolist() == [0, 497, 701, 701]
    assert images.name == direct.name == "imagenet/val"
    assert images.digest == direct.digest


def test_digest_depends_on_what_settles_the_inputs(folder, tmp_path):
    def digest(path=folder, preprocessing=PREPROCESSING):
        return open_data(FolderData(path), network(preprocessing=preprocessing)).digest

    first = digest()
    assert digest() == first
    digests = {first, digest(preprocessing=replace(PREPROCESSING, resize=13))}
    shutil.copytree(folder, tmp_path / "copy")
    digests.add(digest(tmp_path / "copy"))
    with (folder / TENCH / "z.JPEG").open("ab") as file:
        file.write(b"more")
    digests.add(digest())
    (folder / TENCH / "z.JPEG").rename(folder / TENCH / "y.JPEG")
    digests.add(digest())
    assert len(digests) == 5


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match="is no folder"):
        open_data(FolderData(tmp_path / "nowhere"), network())


def test_folder_without_folders(tmp_path):
    write_image(tmp_path / "image.png")
    with pytest.raises(DataError, match="has no folders"):
        open_data(FolderData(tmp_path), network())


def test_unknown_classes(folder):
    for name in ("n00000001", "cats"):
        (folder / name).mkdir()
    with pytest.raises(DataError, match=r"no class of ImageNet \(cats, n00000001\)"):
        open_data(FolderData(folder), network())


def test_no_images(tmp_path):
    (tmp_path / TENCH).mkdir()
    with pytest.raises(DataError, match="has no images"):
        open_data(FolderData(tmp_path), network())


def test_unreadable_folder(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"cannot be listed .*Permission denied"):
        open_data(FolderData(folder), network())


@pytest.mark.parametrize("content", [b"", b"no image", "truncated"])
def test_corrupt_image(folder, content):
    file = folder / CHURCH / "c.jpg"
    file.write_bytes(file.read_bytes()[:-300] if content == "truncated" else content)
    images = open_data(FolderData(folder), network())
    with pytest.raises(DataError, match=r"c\.jpg: cannot be read"):
        images[1]
    assert images[0][1] == 0


def test_too_few_outputs(folder):
    assert open_data(FolderData(folder), network(classes=702)).labels.max() == 701
    with pytest.raises(DataError, match="labels up to 701, but network small tells 701 classes apart"):
        open_data(FolderData(folder), network(classes=701))


def test_too_many_outputs(folder):
    with pytest.raises(DataError, match="21841 classes"):
        open_data(FolderData(folder), network(classes=21841))


def test_no_classifier(folder):
    module = nn.Linear(8, 8)
    with pytest.raises(NetworkError, match="not one row of class scores"):
        open_data(FolderData(folder), LoadedNetwork("odd", module, PREPROCESSING, "", module, "digest"))


def test_digits():
    images = open_data(DigitsData(), network(10, None))
    assert images.name == "digits"
    assert len(images) == 899
    assert images[5][0].shape == (64,)
    assert images[5][1] == images.labels[5]


def test_digits_and_images_do_not_mix(folder):
    with pytest.raises(DataError, match="reads images, not digits"):
        open_data(DigitsData(), network())
    with pytest.raises(DataError, match="reads digits, not images"):
        open_data(FolderData(folder), network(10, None))


class FakeImagenette:
    """Unpacks three images, as torchvision would 3,925, and then fails if told to."""

    failure = None

    def __init__(self, root, split, size, download):
        assert (split, size, download) == ("val", "full", True)
        for wnid in INDICES:
            write_image(Path(root) / "imagenette2" / "val" / wnid / "image.JPEG")
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def imagenette(monkeypatch):
    monkeypatch.setattr(datasets, "Imagenette", FakeImagenette)
    monkeypatch.setattr(datasets, "_IMAGENETTE_IMAGES", 3)
    return FakeImagenette


def test_imagenette_is_downloaded_once(tmp_path, imagenette, monkeypatch):
    first = open_data(ImagenetteData(tmp_path), network())
    assert first.labels.tolist() == [0, 497, 701]
    monkeypatch.setattr(imagenette, "failure", RuntimeError("downloaded twice"))
    assert open_data(ImagenetteData(tmp_path), network()).digest == first.digest


def test_small_imagenette_is_used_where_it_is(tmp_path, imagenette, monkeypatch):
    monkeypatch.setattr(imagenette, "failure", RuntimeError("downloaded"))
    for wnid in INDICES:
        write_image(tmp_path / "imagenette2-320" / "val" / wnid / "image.JPEG")
    assert open_data(ImagenetteData(tmp_path), network()).name == "imagenette2-320/val"


def test_imagenette_download_fails(tmp_path, imagenette, monkeypatch):
    monkeypatch.setattr(imagenette, "failure", urllib.error.URLError("no route"))
    with pytest.raises(DataError, match=r"cannot be downloaded .*no route.*unpack imagenette2\.tgz"):
        open_data(ImagenetteData(tmp_path), network())
    assert not (tmp_path / "imagenette2").exists()


def test_imagenette_download_is_interrupted(tmp_path, imagenette, monkeypatch):
    monkeypatch.setattr(imagenette, "failure", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        open_data(ImagenetteData(tmp_path), network())
    assert not (tmp_path / "imagenette2").exists()


@pytest.mark.usefixtures("imagenette")
def test_imagenette_is_incomplete(tmp_path):
    open_data(ImagenetteData(tmp_path), network())
    (tmp_path / "imagenette2" / "val" / TENCH / "image.JPEG").unlink()
    with pytest.raises(DataError, match="has 2 images instead of 3"):
        open_data(ImagenetteData(tmp_path), network())


@pytest.mark.parametrize("workers", [1, 3])
def test_read_ahead_keeps_the_order(workers):
    images = LabelledImages("rows", "digest", np.arange(300), torch.tensor)
    rows = np.random.default_rng(0).permutation(300).tolist()
    with read_ahead(images, rows, workers) as inputs:
        assert [int(tensor) for tensor in inputs] == rows


def test_read_ahead_raises_in_its_turn():
    def read(index):
        if index == 5:
            raise DataError("image 5", "cannot be read", "copy it again")
        return torch.tensor(index)

    images = LabelledImages("rows", "digest", np.arange(10), read)
    with read_ahead(images, range(10), 2) as inputs:
        assert [int(next(inputs)) for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(DataError, match="image 5"):
            next(inputs)


def test_damaged_exif_is_no_matter(folder):
    file = folder / TENCH / "z.JPEG"
    # One directory entry that points beyond the end.
    broken = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x0f\x01\x02\0\xff\0\0\0\xff\xff\0\0\0\0\0\0"
    write_image(file, exif=broken)
    content = file.read_bytes()
    start = content.index(b"\xff\xe0")
    # Without the JFIF header, Pillow looks for the resolution in the EXIF data.
    length = int.from_bytes(content[start + 2 : start + 4], "big")
    file.write_bytes(content[:start] + content[start + 2 + length :])
    images = open_data(FolderData(folder), network())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images[0]
    assert any("TiffImagePlugin" in warning.filename for warning in caught)
    with read_ahead(images, [0], 1) as inputs:
        assert next(inputs).shape == (3, 8, 8)
