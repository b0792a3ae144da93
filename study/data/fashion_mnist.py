"""Fashion-MNIST: 60,000 training and 10,000 test pictures of clothes.

Xiao, Rasul and Vollgraf 2017, through torchvision, or from Debian's package `dataset-fashion-mnist`.
"""

from pathlib import Path

from study.config import StrictSettings
from study.contracts import Dataset
from study.data import Published, from_torchvision, noise

PUBLISHED = Published(
    name="fashion_mnist",
    class_name="FashionMNIST",
    fingerprint="ece172613115fb18",
    digests={
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
    packaged=Path("/usr/share/datasets/fashion-mnist"),  # Debian's dataset-fashion-mnist
)


class Settings(StrictSettings):
    """This data set has no settings."""


def files(folder: Path) -> Path:
    """The folder of its four files after the download."""
    return PUBLISHED.place(folder)


def stand_in() -> Dataset:
    """Random images of the same shape."""
    return noise("fashion_mnist", 60_000, 10_000, (1, 28, 28), 10)


def build(settings: Settings, folder: Path) -> Dataset:
    """The data set in `folder/FashionMNIST/raw`, downloaded on first use."""
    return from_torchvision(PUBLISHED, folder)
