"""Patches of ten photographs in colour, without a download.

Which photograph is a patch of 32 x 32 pixels from? Each of the ten classes has 400 patches for training and 100 for testing. A
photograph, or one of the two largest at half its size, is cut into tiles of 64 x 64 pixels. Every fourth tile of a row, one
further to the left in the next row, gives test patches, all others give training patches, and no patch crosses the edge of a
tile; so no pixel is in both. Patches overlap within a tile. Flat ones, such as sky, are left out.

Each channel of a patch is moved and scaled to a mean of 128 and a standard deviation of 64 and clipped to 0..255. So brightness,
colour cast and contrast tell nothing. What is left is structure, and how the channels vary together.

| class | photograph | licence |
| --- | --- | --- |
| 0 | astronaut (NASA, Eileen Collins) | public domain |
| 1 | Chelsea, a cat (Stefan van der Walt) | CC0 |
| 2 | china, a temple (danielbuechele) | CC BY 2.0 |
| 3 | coffee (Rachel Michetti, Pikolo Espresso Bar) | CC0 |
| 4 | flower, a dahlia (vultilion) | CC BY 2.0 |
| 5 | Grace Hopper (James S. Davis, U.S. Navy) | public domain |
| 6 | Hubble eXtreme Deep Field (NASA) | public domain |
| 7 | stained tissue (Center for Microscopy And Molecular Imaging) | no known copyright restrictions |
| 8 | retina (Mikael Häggström) | CC0 |
| 9 | rocket (SpaceX) | public domain |

scikit-learn carries `china` and `flower`, Matplotlib Grace Hopper, and scikit-image the others, inside the package.
"""

import functools
import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from study.config import StrictSettings
from study.contracts import Dataset
from study.data import dataset
from study.errors import StudyError, cut, first_line

PHOTOGRAPHS = (
    ("scikit-image", "skimage/data/astronaut.png"),
    ("scikit-image", "skimage/data/chelsea.png"),
    ("scikit-learn", "sklearn/datasets/images/china.jpg"),
    ("scikit-image", "skimage/data/coffee.png"),
    ("scikit-learn", "sklearn/datasets/images/flower.jpg"),
    ("matplotlib", "matplotlib/mpl-data/sample_data/grace_hopper.jpg"),
    ("scikit-image", "skimage/data/hubble_deep_field.jpg"),
    ("scikit-image", "skimage/data/ihc.png"),
    ("scikit-image", "skimage/data/retina.jpg"),
    ("scikit-image", "skimage/data/rocket.jpg"),
)
"""Of each class, the package to install and the file in it."""

WIDEST = 800
"""Pixels of the width above which a photograph is halved."""

SIDE = 32
"""Pixels of a side of a patch."""

TILE = 64
"""Pixels of a side of a tile, which is for training or for testing as a whole."""

STEP = 8
"""Pixels from one patch of a tile to the next."""

TEST_TILES = 4
"""One tile of so many is for testing."""

FLATTEST = 5
"""Least standard deviation of each channel of a patch, in values from 0 to 255."""

MEAN, DEVIATION = 128, 64
"""Of each channel of a patch."""

TRAIN_IMAGES_PER_CLASS, TEST_IMAGES_PER_CLASS = 400, 100

FINGERPRINT = "c006f6adfbb229df"
"""Of the data set, see `study.data.dataset`."""


class Settings(StrictSettings):
    """This data set has no settings."""


def build(settings: Settings, folder: Path) -> Dataset:
    """The data set; `folder` is not used.

    Raises StudyError if a photograph is missing or is not the expected one.
    """
    classes = [_patches(package, file) for package, file in PHOTOGRAPHS]
    train, test = (torch.cat([patches[part] for patches in classes]) for part in (0, 1))
    labels = torch.arange(len(PHOTOGRAPHS))
    loaded = dataset(
        "natural_patches",
        train,
        labels.repeat_interleave(TRAIN_IMAGES_PER_CLASS),
        test,
        labels.repeat_interleave(TEST_IMAGES_PER_CLASS),
    )
    if loaded.fingerprint != FINGERPRINT:
        raise StudyError(
            f"The data set 'natural_patches' has the fingerprint {loaded.fingerprint} instead of {FINGERPRINT}: a photograph "
            f"has changed or is decoded differently; run `pip install --force-reinstall --no-deps scikit-image scikit-learn "
            f"matplotlib pillow`."
        )
    return loaded


@functools.cache
def _patches(package: str, file: str) -> tuple[Tensor, Tensor]:
    """Training and test patches of a photograph, uint8 [image, channel, height, width]."""
    try:
        photograph = _photograph(_path(file))
        train, test = _tiles(photograph)
        return (
            _standardised(_evenly(_cut(train), TRAIN_IMAGES_PER_CLASS)),
            _standardised(_evenly(_cut(test), TEST_IMAGES_PER_CLASS)),
        )
    except Exception as error:  # whatever a damaged file provokes
        raise StudyError(
            f"The photograph {file!r} of the data set 'natural_patches' is damaged or missing ({cut(first_line(error), 80)}); "
            f"reinstall it with `pip install --force-reinstall --no-deps {package}`."
        ) from None


def _path(file: str) -> Path:
    """The file in the installed package, which is not imported."""
    name, _, rest = file.partition("/")
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the package {name} is not installed")
    return Path(spec.origin).parent / rest


def _photograph(path: Path) -> Tensor:
    """The pixels of a file, uint8 [channel, height, width]."""
    from PIL import Image  # slow to import, and most data sets do not need it

    with Image.open(path) as picture:
        colours = picture.convert("RGB")
        return torch.from_numpy(np.array(colours.reduce(2) if colours.width > WIDEST else colours)).permute(2, 0, 1)


def _tiles(photograph: Tensor) -> tuple[Tensor, Tensor]:
    """The tiles for training and for testing, uint8 [tile, channel, height, width]."""
    tiles = photograph.unfold(1, TILE, TILE).unfold(2, TILE, TILE)  # [channel, row, column, height, width]
    rows, columns = tiles.shape[1:3]
    tests = (torch.arange(rows).unsqueeze(1) + torch.arange(columns)) % TEST_TILES == 0  # [row, column]
    flat = tiles.permute(1, 2, 0, 3, 4)
    return flat[~tests], flat[tests]


def _cut(tiles: Tensor) -> Tensor:
    """The patches of tiles that are not flat, uint8 [image, channel, height, width]."""
    patches = tiles.unfold(2, SIDE, STEP).unfold(3, SIDE, STEP)  # [tile, channel, row, column, height, width]
    cut = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, tiles.shape[1], SIDE, SIDE)
    return cut[_spread(cut).amin(dim=1) >= (FLATTEST * SIDE * SIDE) ** 2]


def _spread(patches: Tensor) -> Tensor:
    """Of each channel the variance times the square of the number of pixels, int64 [image, channel]."""
    values = patches.flatten(2).to(torch.int32)
    return values.shape[2] * values.square().sum(2) - values.sum(2).square()


def _evenly(patches: Tensor, count: int) -> Tensor:
    """So many of the patches, evenly spaced."""
    if len(patches) < count:
        raise ValueError(f"it has {len(patches)} patches that are not flat, not {count}")
    return patches[torch.arange(count) * len(patches) // count]


def _standardised(patches: Tensor) -> Tensor:
    """The patches with the same mean and deviation in each channel, uint8.

    Sums are of integers, so that every processor gets the same bytes.
    """
    pixels = SIDE * SIDE
    above = pixels * patches.to(torch.int64) - patches.sum((2, 3), keepdim=True)  # pixels * (value - mean)
    deviation = _spread(patches).to(torch.float64).sqrt()  # pixels * deviation, which is not 0
    scaled = MEAN + DEVIATION * (above / deviation[:, :, None, None])
    return scaled.round().clamp(0, 255).to(torch.uint8)
