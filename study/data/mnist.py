"""MNIST (LeCun, Cortes and Burges 1998): 60,000 training and 10,000 test digits, through torchvision."""

from pathlib import Path

from study.config import StrictSettings
from study.contracts import Dataset
from study.data import from_torchvision, noise, raw_files


class Settings(StrictSettings):
    """This data set has no settings."""


def files(folder: Path) -> Path:
    """Where its four files lie once it is downloaded."""
    return raw_files("MNIST", folder)


def stand_in() -> Dataset:
    """Noise of its shape."""
    return noise("mnist", 60_000, 10_000, 28 * 28, 10)


def build(settings: Settings, folder: Path) -> Dataset:
    """The data set, out of `folder/MNIST/raw`, where it is downloaded on first use."""
    return from_torchvision("mnist", "MNIST", folder)
