"""Fashion-MNIST: 60,000 training and 10,000 test pictures of clothes.

Xiao, Rasul and Vollgraf 2017, through torchvision.
"""

from pathlib import Path

from study.config import StrictSettings
from study.contracts import Dataset
from study.data import from_torchvision, noise, raw_files


class Settings(StrictSettings):
    """This data set has no settings."""


def files(folder: Path) -> Path:
    """The folder of its four files after the download."""
    return raw_files("FashionMNIST", folder)


def stand_in() -> Dataset:
    """Random images of the same shape."""
    return noise("fashion_mnist", 60_000, 10_000, 28 * 28, 10)


def build(settings: Settings, folder: Path) -> Dataset:
    """The data set in `folder/FashionMNIST/raw`, downloaded on first use."""
    return from_torchvision("fashion_mnist", "FashionMNIST", folder)
