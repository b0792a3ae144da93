"""CIFAR-10: 60,000 pictures in colour of ten classes.

50,000 are for training. Krizhevsky 2009, through torchvision, which compares each file with its published MD5. Classes in
order: airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck.
"""

from pathlib import Path

from study.contracts import Dataset
from study.data import _torchvision

SOURCE = _torchvision.Source(
    name="cifar10",
    class_name="CIFAR10",
    files="cifar-10-batches-py",
    shape=(3, 32, 32),
    counts=(50_000, 10_000),
    classes=10,
    part=_torchvision.cifar,
    digests=_torchvision.cifar_digests,
)

Settings = _torchvision.Settings
files, stand_in = SOURCE.folder, SOURCE.stand_in


def build(settings: _torchvision.Settings, folder: Path) -> Dataset:
    """The data set in `folder/cifar-10-batches-py`, downloaded on first use."""
    return SOURCE.load(folder)
