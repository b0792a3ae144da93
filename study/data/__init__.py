"""Data sets, one per file.

Each file exposes `Settings` and `build(settings, folder) -> Dataset`, with the data on the CPU.

A published data set has a known fingerprint. What is loaded is compared with it each time: the fingerprint of a result is
computed from the same bytes anyway (0.07 s of MNIST), so a file that changes later is noticed too, and nothing has to be stored.

A data set that is downloaded also exposes `files(folder) -> Path`, the folder of its downloaded files, and
`stand_in() -> Dataset`, random images of the same shape. They stand in when the time of training is measured before the download.
"""

import contextlib
import functools
import gzip
import hashlib
import io
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from study.contracts import Dataset, Shape
from study.errors import StudyError, first_line


class NoImagesError(StudyError):
    """The folder of a user's own images is missing."""


def dataset(
    name: str,
    train_images: Tensor,
    train_labels: Tensor,
    test_images: Tensor,
    test_labels: Tensor,
    shape: Shape | None = None,
) -> Dataset:
    """A data set of images [image, ...] and labels [image].

    The fingerprint is the first 16 hexadecimal digits of SHA-256 over the bytes of training images, training labels,
    test images and test labels, in this order, labels as little-endian 64-bit integers.

    Args:
        name: of the data set.
        train_images, test_images: [image, channel, height, width]; [image, height, width] if grey; or [image, feature].
        train_labels, test_labels: from 0.
        shape: of a picture, for images [image, feature]; without it they are taken for grey squares.

    Raises:
        StudyError: the images do not have that shape, or have none and are no squares.
    """
    found = _shape_of(name, train_images, shape)
    if math.prod(test_images.shape[1:]) != math.prod(found):
        raise StudyError(f"The test images of data set {name!r} must have the shape of its training images, {found}.")
    parts = (
        train_images.to(torch.uint8).flatten(1).contiguous(),
        train_labels.to(torch.int64).contiguous(),
        test_images.to(torch.uint8).flatten(1).contiguous(),
        test_labels.to(torch.int64).contiguous(),
    )
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.numpy().tobytes())
    classes = int(max(parts[1].max(), parts[3].max())) + 1
    return Dataset(name, *parts, class_count=classes, shape=found, fingerprint=digest.hexdigest()[:16])


def _shape_of(name: str, images: Tensor, given: Shape | None) -> Shape:
    """Channels, height and width of images [image, ...]."""
    sizes, features = tuple(images.shape[1:]), math.prod(images.shape[1:])
    if len(sizes) in (2, 3):
        channels, height, width = (1, *sizes) if len(sizes) == 2 else sizes
    elif given is not None and len(given) == 3:
        channels, height, width = given
    else:
        channels, height, width = 1, math.isqrt(features), math.isqrt(features)
    found = (channels, height, width)
    if math.prod(found) != features or (given is not None and given != found):
        raise StudyError(
            f"The pictures of data set {name!r} have {features} values and shape {given or 'unknown'}; give the channels, "
            f"height and width whose product this is."
        )
    return found


@functools.cache
def noise(name: str, train_count: int, test_count: int, shape: Shape, classes: int) -> Dataset:
    """A data set of random images, classes taking turns.

    Training on it takes as long as on real images.
    """
    draw = torch.Generator().manual_seed(0)

    def pictures(count: int) -> tuple[Tensor, Tensor]:
        images = torch.randint(0, 256, (count, math.prod(shape)), generator=draw, dtype=torch.uint8)
        return images, torch.arange(count) % classes

    return dataset(name, *pictures(train_count), *pictures(test_count), shape)


IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
"""The files of a data set of the MNIST family."""

IMAGES_HEADER, LABELS_HEADER = 16, 8
"""Bytes before the pixels, or the labels, in these files."""

IDX_SIDE = 28


@dataclass(frozen=True)
class Published:
    """A data set of torchvision's MNIST family.

    Attributes:
        name: of the data set here.
        class_name: of torchvision's class, and of its folder.
        fingerprint: see `dataset`.
        digests: MD5 of each of its four unpacked files, by file name.
        packaged: where a package of the operating system has these files, packed by gzip.
    """

    name: str
    class_name: str
    fingerprint: str
    digests: Mapping[str, str]
    packaged: Path | None = None

    def place(self, folder: Path) -> Path:
        """Where its files are, or will be after the download."""
        return self.packaged if self.is_packaged(folder) and self.packaged else self.raw(folder)

    def is_packaged(self, folder: Path) -> bool:
        """Whether only a package of the operating system has it."""
        return self.packaged is not None and self.packaged.is_dir() and not self.raw(folder).exists()

    def raw(self, folder: Path) -> Path:
        """The folder in which torchvision keeps the four files."""
        return raw_files(self.class_name, folder)


def raw_files(class_name: str, folder: Path) -> Path:
    """The folder in which torchvision keeps an MNIST-like data set."""
    return folder / class_name / "raw"


def from_torchvision(published: Published, folder: Path) -> Dataset:
    """A data set of torchvision's MNIST family.

    It is downloaded into `folder` on first use, unless a package of the operating system has it.

    Raises:
        StudyError: it is not in `folder` and cannot be downloaded into it, or its files are not the published ones.
    """
    if published.packaged is not None and published.is_packaged(folder):
        return _from_package(published, published.packaged)
    from torchvision import datasets  # slow to import, and most data sets do not need it

    source = getattr(datasets, published.class_name)
    raw = published.raw(folder)
    absent = [path for path in (raw, raw.parent, folder) if not path.exists()]
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # torchvision's progress bars
            train, test = (source(str(folder), train=part, download=True) for part in (True, False))
        loaded = dataset(published.name, train.data, train.targets, test.data, test.targets)
    except Exception as error:  # torchvision raises whatever a damaged file provokes
        reason = first_line(error)
        damaged = _damaged(raw, published, dict(source.resources))
        if damaged or all((raw / file).exists() for file in published.digests):
            raise _refusal(published, raw, damaged, reason) from None
        for empty in absent:  # torchvision may have made these folders before it failed
            with contextlib.suppress(OSError):
                empty.rmdir()
        raise StudyError(
            f"The data set {published.name!r} is not in {str(raw)!r} and cannot be downloaded ({reason}); "
            f"unpack its files there, name another --data-dir, or use --set data/name=mnist5k."
        ) from None
    if loaded.fingerprint != published.fingerprint:
        legacy = [str(path.relative_to(raw.parent)) for path in sorted((raw.parent / "processed").glob("*.pt"))]
        raise _refusal(published, raw, _damaged(raw, published, dict(source.resources)) or legacy, "other images")
    return loaded


def _from_package(published: Published, place: Path) -> Dataset:
    """The data set in the packed files of the operating system's package."""
    unpacked = {}
    for name, md5 in published.digests.items():
        try:
            content = gzip.decompress((place / f"{name}.gz").read_bytes())
        except (OSError, EOFError, zlib.error):
            content = b""
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            raise StudyError(
                f"The file {name}.gz of the data set {published.name!r} in {str(place)!r} is not the published one; install "
                f"its package again, or download the data set into --data-dir."
            )
        header = IMAGES_HEADER if "images" in name else LABELS_HEADER
        unpacked[name] = torch.frombuffer(bytearray(content[header:]), dtype=torch.uint8)
    train_images, train_labels, test_images, test_labels = (unpacked[name] for name in IDX_FILES)
    train_images, test_images = (images.view(-1, IDX_SIDE, IDX_SIDE) for images in (train_images, test_images))
    return dataset(published.name, train_images, train_labels, test_images, test_labels)


def _damaged(raw: Path, published: Published, packed: Mapping[str, str]) -> list[str]:
    """The files that are there and are not the published ones.

    A packed file, with its MD5 in `packed`, is looked at where the unpacked one is missing, for torchvision would unpack it.
    """
    expected = {**published.digests, **packed}
    damaged = []
    for name, md5 in expected.items():
        path = raw / name
        if not path.exists() or (name in packed and path.with_suffix("").exists()):
            continue
        try:
            content = path.read_bytes()
        except PermissionError:
            raise StudyError(f"The file {str(path)!r} may not be read; change its permissions.") from None
        except OSError:  # a folder, say, or a bad sector
            content = b""
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            damaged.append(name)
    return damaged


def _refusal(published: Published, raw: Path, damaged: Sequence[str], reason: str) -> StudyError:
    """What is damaged, and what to do about it."""
    if not damaged:
        fault, cure = reason, "delete its four files so that they are downloaded again"
    elif len(damaged) == 1:
        fault, cure = f"{damaged[0]} is not the published file", "delete it so that it is downloaded again"
    elif len(damaged) < len(published.digests):
        fault = f"{', '.join(damaged)} are not the published files"
        cure = "delete them so that they are downloaded again"
    else:
        fault = "none of its files is the published one"
        cure = "delete its four files so that they are downloaded again"
    return StudyError(
        f"The data set {published.name!r} in {str(raw)!r} is damaged ({fault}); {cure}, name another folder with "
        f"--data-dir, or use --set data/name=mnist5k."
    )
