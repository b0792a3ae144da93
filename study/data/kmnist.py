"""Kuzushiji-MNIST: 60,000 training and 10,000 test pictures of hiragana.

Clanuwat et al. 2018 (arXiv 1812.01718), through torchvision. Its packed files are compared with their MD5 after the download;
the unpacked ones have no published fingerprint here, so only the number of their images is checked.
"""

from pathlib import Path

from study.contracts import Dataset
from study.data import _torchvision

SOURCE = _torchvision.Source(
    name="kmnist",
    class_name="KMNIST",
    files="KMNIST/raw",
    shape=(1, 28, 28),
    counts=(60_000, 10_000),
    classes=10,
    part=_torchvision.kmnist,
)

Settings = _torchvision.Settings
files, stand_in = SOURCE.folder, SOURCE.stand_in


def build(settings: _torchvision.Settings, folder: Path) -> Dataset:
    """The data set in `folder/KMNIST/raw`, downloaded on first use."""
    return SOURCE.load(folder)
