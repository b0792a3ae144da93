"""CIFAR-100: 60,000 pictures in colour of a hundred classes.

50,000 are for training. Krizhevsky 2009, through torchvision, which compares each file with its published MD5. Labels are the
fine ones, in alphabetical order from apple to worm.
"""

from pathlib import Path

from study.contracts import Dataset
from study.data import _torchvision

SOURCE = _torchvision.Source(
    name="cifar100",
    class_name="CIFAR100",
    files="cifar-100-python",
    shape=(3, 32, 32),
    counts=(50_000, 10_000),
    classes=100,
    part=_torchvision.cifar,
    digests=_torchvision.cifar_digests,
)

Settings = _torchvision.Settings
files, stand_in = SOURCE.folder, SOURCE.stand_in


def build(settings: _torchvision.Settings, folder: Path) -> Dataset:
    """The data set in `folder/cifar-100-python`, downloaded on first use."""
    return SOURCE.load(folder)
