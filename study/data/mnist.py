"""MNIST: 60,000 training and 10,000 test digits.

LeCun, Cortes and Burges 1998, through torchvision.
"""

from pathlib import Path

from study.config import StrictSettings
from study.contracts import Dataset
from study.data import Published, from_torchvision, noise

PUBLISHED = Published(
    name="mnist",
    class_name="MNIST",
    fingerprint="1e35582d42a90940",
    digests={
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
)


class Settings(StrictSettings):
    """This data set has no settings."""


def files(folder: Path) -> Path:
    """The folder of its four files after the download."""
    return PUBLISHED.raw(folder)


def stand_in() -> Dataset:
    """Random images of the same shape."""
    return noise("mnist", 60_000, 10_000, (1, 28, 28), 10)


def build(settings: Settings, folder: Path) -> Dataset:
    """The data set in `folder/MNIST/raw`, downloaded on first use."""
    return from_torchvision(PUBLISHED, folder)
