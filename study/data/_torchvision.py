"""Data sets of torchvision without a known fingerprint.

torchvision compares what it downloads with the published MD5, and for CIFAR and SVHN the unpacked files too. The number of images
of each part is compared here.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from study.config import StrictSettings
from study.contracts import Dataset, Shape
from study.data import dataset, noise
from study.errors import StudyError, first_line


class Settings(StrictSettings):
    """These data sets have no settings."""


Part = tuple[Tensor, Tensor]
"""Images uint8 [image, height, width] or [image, channel, height, width], and labels int64 [image]."""


@dataclass(frozen=True)
class Source:
    """A data set of torchvision.

    Attributes:
        name: of the data set here.
        class_name: of torchvision's class.
        files: its files' folder within the folder of downloaded data sets.
        shape: of a picture.
        counts: images for training and for testing.
        classes: number of classes.
        part: makes a part out of torchvision's class, the folder and whether it is for training.
        digests: MD5 of its unpacked files by name, out of torchvision's class.
    """

    name: str
    class_name: str
    files: str
    shape: Shape
    counts: tuple[int, int]
    classes: int
    part: Callable[[Any, str, bool], Part]
    digests: Callable[[Any], Mapping[str, str]] = lambda _: {}

    def folder(self, folder: Path) -> Path:
        """The folder of its files after the download."""
        return folder / self.files

    def stand_in(self) -> Dataset:
        """Random images of the same shape."""
        return noise(self.name, *self.counts, self.shape, self.classes)

    def load(self, folder: Path) -> Dataset:
        """The data set in `folder`, downloaded on first use.

        Raises StudyError if it cannot be downloaded or is damaged.
        """
        from torchvision import datasets  # slow to import, and most data sets do not need it

        source, own = getattr(datasets, self.class_name), self.folder(folder)
        absent = [path for path in (own, *own.parents) if not path.exists()]
        try:
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):  # progress bars
                parts = [self.part(source, str(folder), training) for training in (True, False)]
            loaded = dataset(self.name, *parts[0], *parts[1], self.shape)
        except Exception as error:  # torchvision raises whatever a damaged file provokes
            for empty in absent:  # torchvision may have made these folders before it failed
                with contextlib.suppress(OSError):
                    empty.rmdir()
            raise self._refusal(own, source, first_line(error)) from None
        found = (len(loaded.train_images), len(loaded.test_images), loaded.class_count)
        if found != (*self.counts, self.classes):
            raise StudyError(
                f"The data set {self.name!r} in {str(own)!r} is damaged: it has {found[0]:,} + {found[1]:,} images of {found[2]} "
                f"classes, not {self.counts[0]:,} + {self.counts[1]:,} of {self.classes}; delete its files so that they are "
                f"downloaded again."
            )
        return loaded

    def _refusal(self, own: Path, source: Any, reason: str) -> StudyError:
        damaged = [
            name for name, md5 in self.digests(source).items() if (own / name).exists() and _md5(own / name) != md5
        ]
        if damaged:
            fault, cure = f"{', '.join(damaged[:3])} damaged", "delete what is damaged"
        else:
            fault, cure = "not there or damaged", "unpack its files there"
        return StudyError(
            f"The data set {self.name!r} in {str(own)!r} is {fault} and cannot be downloaded ({reason}); {cure}, name another "
            f"--data-dir, or use --set data/name=natural_patches."
        )


@functools.cache
def _md5(path: Path) -> str:
    """The MD5 of a file; "" if it cannot be read."""
    try:
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    except OSError:
        return ""


def cifar(source: Any, folder: str, training: bool) -> Part:
    """A part of CIFAR-10 or CIFAR-100."""
    loaded = source(folder, train=training, download=True)
    return torch.from_numpy(loaded.data).permute(0, 3, 1, 2), torch.tensor(loaded.targets)


def cifar_digests(source: Any) -> dict[str, str]:
    """MD5 of the files of CIFAR-10 or CIFAR-100."""
    return dict([*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])])


def kmnist(source: Any, folder: str, training: bool) -> Part:
    """A part of KMNIST."""
    loaded = source(folder, train=training, download=True)
    return loaded.data, loaded.targets


def emnist(source: Any, folder: str, training: bool) -> Part:
    """A part of EMNIST's balanced split.

    Its files have rows and columns exchanged.
    """
    loaded = source(folder, split="balanced", train=training, download=True)
    return loaded.data.transpose(1, 2), loaded.targets


def svhn(source: Any, folder: str, training: bool) -> Part:
    """A part of SVHN, in a folder of its own."""
    loaded = source(str(Path(folder) / "SVHN"), split="train" if training else "test", download=True)
    return torch.from_numpy(loaded.data), torch.from_numpy(loaded.labels)


def svhn_digests(source: Any) -> dict[str, str]:
    """MD5 of the files of SVHN."""
    return {name: md5 for part in ("train", "test") for _, name, md5 in [source.split_list[part]]}
