"""Labelled images on which a network's accuracy is measured."""

import hashlib
import shutil
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.data.imagenet_info import ImageNetInfo
from torchvision.datasets import Imagenette

from hmatrix._support.typing import Integers64
from hmatrix.errors import DataError
from hmatrix.study.config.settings import Data, DigitsData, FolderData, ImagenetteData
from hmatrix.study.networks import digits
from hmatrix.study.networks.models import ImageNetwork, Preprocessing
from hmatrix.study.networks.weights import digest_tensors, shortened

_SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
# Sizes of Imagenette, and the folders that its archives hold; the first is downloaded, as smaller
# images cost accuracy.
_IMAGENETTE = {"full": "imagenette2", "320px": "imagenette2-320"}
_IMAGENETTE_IMAGES = 3925
_AHEAD = 32


@dataclass(frozen=True)
class LabelledImages:
    """Images as a network's inputs, with their labels.

    Parameters
    ----------
    name
        Name for people.
    digest
        sha256 of all that settles the inputs: place, names and sizes of the files, and the preprocessing.
    labels
        Class index of each image; int64 of shape (samples,).
    read
        Function of an image's number that returns the network's input; may be called from several threads.
    """

    name: str
    digest: str
    labels: Integers64
    read: Callable[[int], torch.Tensor]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Return the input and the label of one image.

        Raises
        ------
        DataError
            If the image cannot be read.
        """
        return self.read(index), int(self.labels[index])


def check_data(data: Data | None) -> None:
    """Check, before long work, that a folder of images is there.

    Raises
    ------
    DataError
        If it is not.
    """
    if isinstance(data, FolderData):
        with _listing(data.path):
            _check_folder(data.path)


def open_data(data: Data, network: ImageNetwork) -> LabelledImages:
    """Open a data set, prepared as `network` wants it.

    Only names and sizes are looked at; the images are read one by one, when they are asked for.

    Raises
    ------
    DataError
        If the data set is missing, empty, cannot be downloaded, has classes that ImageNet lacks, or
        does not belong to the network.
    NetworkError
        If the network is no classifier.
    """
    if isinstance(data, DigitsData):
        images = _open_digits(network)
    elif network.preprocessing is None:
        raise DataError("data", f"network {network.name} reads digits, not images", "use the data set digits")
    elif isinstance(data, FolderData):
        images = _open_folder(data.path, network.preprocessing)
    else:
        images = _open_imagenette(data, network.preprocessing)
    classes = network.count_classes()
    if not images.labels.max() < classes <= len(_classes()):
        came = f"has labels up to {images.labels.max()}, but network {network.name} tells {classes} classes apart"
        raise DataError(f"data {images.name}", came, "use a network of the same classes")
    return images


@contextmanager
def read_ahead(images: LabelledImages, rows: Sequence[int], workers: int) -> Iterator[Iterator[torch.Tensor]]:
    """Read inputs in `workers` threads, some of them ahead of their use; they come in the order of `rows`.

    Raises
    ------
    DataError
        By the iterator, when it comes to an image that cannot be read.
    """
    ahead = _AHEAD * workers
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        # Some of ImageNet's images have damaged EXIF data, which is not used.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")

        def inputs() -> Iterator[torch.Tensor]:
            pending: deque[Future[torch.Tensor]] = deque()
            for row in rows:
                pending.append(pool.submit(images.read, row))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

        try:
            yield inputs()
        finally:
            pool.shutdown(cancel_futures=True)


def _open_digits(network: ImageNetwork) -> LabelledImages:
    if network.preprocessing is not None:
        raise DataError("data digits", f"network {network.name} reads images, not digits", "name a folder of images")
    inputs, labels = digits.held_out()
    return LabelledImages("digits", digest_tensors({"inputs": inputs}, "digits"), labels, inputs.__getitem__)


def _open_imagenette(data: ImagenetteData, preprocessing: Preprocessing) -> LabelledImages:
    folder = _find_imagenette(data)
    images = _open_folder(folder / "val", preprocessing)
    if len(images) != _IMAGENETTE_IMAGES:
        came = f"has {len(images)} images instead of {_IMAGENETTE_IMAGES}"
        raise DataError(f"data {folder}", came, "remove the folder, so that it is downloaded again")
    return images


def _find_imagenette(data: ImagenetteData) -> Path:
    """Return the folder that holds Imagenette, downloaded where it is not there yet."""
    folders = {size: data.root / name for size, name in _IMAGENETTE.items()}
    found = next((folder for folder in folders.values() if folder.exists()), None)
    if found is not None:
        return found
    size, folder = next(iter(folders.items()))
    try:
        Imagenette(data.root, split="val", size=size, download=True)
    except BaseException as error:
        # A partly unpacked folder would pass for the whole set the next time.
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, Exception):
            raise
        came = f"cannot be downloaded ({type(error).__name__}: {error})"
        mend = f"connect to the internet, or unpack {folder.name}.tgz in {data.root}"
        raise DataError("data imagenette", came, mend) from error
    return folder


@cache
def _classes() -> dict[str, int]:
    """Return the index among ImageNet's thousand classes of each WordNet id."""
    names = ImageNetInfo("imagenet-1k").label_names()  # type: ignore[no-untyped-call]
    return {wnid: index for index, wnid in enumerate(names)}


def _open_folder(path: Path, preprocessing: Preprocessing) -> LabelledImages:
    subject = f"data {path}"
    with _listing(path):
        _check_folder(path)
        folders = _list_folders(path)
        if not any(folder.name in _classes() for folder in folders) and (path / "val").is_dir():
            path = path / "val"
            folders = _list_folders(path)
        unknown = [folder.name for folder in folders if folder.name not in _classes()]
        if unknown or not folders:
            came = f"has folders that name no class of ImageNet ({shortened(unknown)})" if unknown else "has no folders"
            raise DataError(subject, came, "lay it out as <path>/<WordNet id>/<image>")
        files = [
            (file, file.stat().st_size, _classes()[folder.name])
            for folder in folders
            for file in sorted(folder.iterdir())
            if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")
        ]
    if not files:
        raise DataError(subject, "has no images", f"put images into its folders: {', '.join(sorted(_SUFFIXES))}")
    place = path.resolve()
    digest = hashlib.sha256(repr((str(place), preprocessing)).encode())
    for file, size, _ in files:
        digest.update(repr((file.relative_to(path).as_posix(), size)).encode())
    labels = np.array([label for *_, label in files], dtype=np.int64)
    read = partial(_read_image, tuple(file for file, *_ in files), preprocessing)
    return LabelledImages("/".join(place.parts[-2:]), digest.hexdigest(), labels, read)


@contextmanager
def _listing(path: Path) -> Iterator[None]:
    """Raise DataError for a folder that cannot be listed."""
    try:
        yield
    except OSError as error:
        raise DataError(f"data {path}", f"cannot be listed ({error})", "make its folders readable") from error


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        raise DataError(f"data {path}", "is no folder", "name a folder <path>/<WordNet id>/<image>")


def _list_folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _read_image(files: tuple[Path, ...], preprocessing: Preprocessing, index: int) -> torch.Tensor:
    try:
        with Image.open(files[index]) as image:
            return preprocessing.apply(image)
    except Exception as error:  # decoders raise anything from OSError to struct.error on damaged data
        raise DataError(f"image {files[index]}", f"cannot be read ({error})", "copy it again, or remove it") from error
