"""EMNIST, balanced: 131,600 pictures of handwritten digits and letters.

112,800 are for training. Cohen et al. 2017 (arXiv 1702.05373), through torchvision: 47 classes; small and capital letters that
look alike share one. The pictures stand upright; in the files rows and columns are exchanged. The packed file is compared with
its MD5 after the download; the unpacked ones have no published fingerprint here, so only the number of their images is checked.
"""

from pathlib import Path

from study.contracts import Dataset
from study.data import _torchvision

SOURCE = _torchvision.Source(
    name="emnist",
    class_name="EMNIST",
    files="EMNIST/raw",
    shape=(1, 28, 28),
    counts=(112_800, 18_800),
    classes=47,
    part=_torchvision.emnist,
)

Settings = _torchvision.Settings
files, stand_in = SOURCE.folder, SOURCE.stand_in


def build(settings: _torchvision.Settings, folder: Path) -> Dataset:
    """The data set in `folder/EMNIST/raw`, downloaded on first use."""
    return SOURCE.load(folder)
