"""SVHN: digits of house numbers in colour.

73,257 are for training and 26,032 for testing. Netzer et al. 2011, through torchvision, which compares each file with its
published MD5. The extra training images are not used.
"""

from pathlib import Path

from study.contracts import Dataset
from study.data import _torchvision

SOURCE = _torchvision.Source(
    name="svhn",
    class_name="SVHN",
    files="SVHN",
    shape=(3, 32, 32),
    counts=(73_257, 26_032),
    classes=10,
    part=_torchvision.svhn,
    digests=_torchvision.svhn_digests,
)

Settings = _torchvision.Settings
files, stand_in = SOURCE.folder, SOURCE.stand_in


def build(settings: _torchvision.Settings, folder: Path) -> Dataset:
    """The data set in `folder/SVHN`, downloaded on first use."""
    return SOURCE.load(folder)
