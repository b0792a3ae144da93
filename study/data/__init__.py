"""Data sets, one per file.

Each file exposes `Settings` and `build(settings, folder) -> Dataset`, with the data on the CPU.

A data set that is downloaded also exposes `files(folder) -> Path`, the folder of its downloaded files, and
`stand_in() -> Dataset`, random images of the same shape. They stand in when the time of training is measured before the download.
"""

import contextlib
import functools
import hashlib
import io
from pathlib import Path

import torch
from torch import Tensor

from study.contracts import Dataset
from study.errors import StudyError, first_line


def dataset(name: str, train_images: Tensor, train_labels: Tensor, test_images: Tensor, test_labels: Tensor) -> Dataset:
    """A data set of images [image, ...] and labels [image].

    The fingerprint is the first 16 hexadecimal digits of SHA-256 over the bytes of training images, training labels,
    test images and test labels, in this order, labels as little-endian 64-bit integers.
    """
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
    return Dataset(name, *parts, class_count=classes, fingerprint=digest.hexdigest()[:16])


@functools.cache
def noise(name: str, train_count: int, test_count: int, features: int, classes: int) -> Dataset:
    """A data set of random images, classes taking turns.

    Training on it takes as long as on real images.
    """
    draw = torch.Generator().manual_seed(0)

    def pictures(count: int) -> tuple[Tensor, Tensor]:
        images = torch.randint(0, 256, (count, features), generator=draw, dtype=torch.uint8)
        return images, torch.arange(count) % classes

    return dataset(name, *pictures(train_count), *pictures(test_count))


def raw_files(class_name: str, folder: Path) -> Path:
    """The folder in which torchvision keeps an MNIST-like data set."""
    return folder / class_name / "raw"


def from_torchvision(name: str, class_name: str, folder: Path) -> Dataset:
    """A data set of torchvision's MNIST family.

    It is downloaded into `folder` on first use.

    Raises:
        StudyError: it is not in `folder` and cannot be downloaded into it, or its files are damaged.
    """
    from torchvision import datasets  # slow to import, and most data sets do not need it

    source = getattr(datasets, class_name)
    raw = raw_files(class_name, folder)
    absent = [path for path in (raw, raw.parent, folder) if not path.exists()]
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # torchvision's progress bars
            train, test = (source(str(folder), train=part, download=True) for part in (True, False))
    except Exception as error:  # torchvision raises whatever a damaged file provokes
        reason = first_line(error)
        if len(list(raw.glob("*-ubyte"))) == 4:
            raise StudyError(
                f"The data set {name!r} in {str(raw)!r} is damaged ({reason}); delete its four files "
                f"so that they are downloaded again, or use --set data/name=mnist5k."
            ) from None
        for empty in absent:  # torchvision may have made these folders before it failed
            with contextlib.suppress(OSError):
                empty.rmdir()
        raise StudyError(
            f"The data set {name!r} is not in {str(raw)!r} and cannot be downloaded ({reason}); "
            f"put its files there, name another folder with --data-dir, or use --set data/name=mnist5k."
        ) from None
    return dataset(name, train.data, train.targets, test.data, test.targets)
