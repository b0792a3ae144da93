"""MNIST: 60,000 training and 10,000 test digits.

LeCun, Cortes and Burges 1998, through torchvision.
"""

from pathlib import Path

from study.config import StrictSettings
from study.contracts import Dataset
from study.data import from_torchvision, noise, raw_files


class Settings(StrictSettings):
    """This data set has no settings."""


def files(folder: Path) -> Path:
    """The folder of its four files after the download."""
    return raw_files("MNIST", folder)


def stand_in() -> Dataset:
    """Random images of the same shape."""
    return noise("mnist", 60_000, 10_000, 28 * 28, 10)


def build(settings: Settings, folder: Path) -> Dataset:
    """The data set in `folder/MNIST/raw`, downloaded on first use."""
    return from_torchvision("mnist", "MNIST", folder)
