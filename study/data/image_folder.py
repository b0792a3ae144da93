"""Images of one's own, in a folder for each class.

Either there are folders `train` and `test` of class folders, or class folders alone; then a share of each class is for testing.
Classes are numbered in the alphabetical order of their folders' names. Images may lie deeper in a class folder, as in Tiny
ImageNet. Files that are no images by their name, and hidden ones, are passed over.

Each image is turned as its camera says, cut to a square about its middle, resized (bilinear, antialiased) and made colour or
grey. All this is done once: the bytes are kept in `image_folder/` in the folder of downloaded data sets, under a name that
depends on the names, sizes and times of all files and on the settings. What is there may be deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from study import provenance
from study.config import StrictSettings
from study.contracts import Dataset
from study.data import NoImagesError, dataset
from study.errors import StudyError, first_line
from study.files import draft_of
from study.lanes import generator

IMAGES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})

PARTS = ("train", "test")

Listing = dict[str, list[Path]]
"""The images of each class, by name of the class."""


class Settings(StrictSettings):
    """Where the images are, and what becomes of them."""

    path: str = Field(
        "images", min_length=1, description="Folder of class folders; a relative one is meant from the data folder."
    )
    size: int = Field(32, ge=1, le=1024, description="Pixels of a side of the pictures after resizing.")
    colour: bool = Field(True, description="Whether pictures have three channels; otherwise they are grey.")
    test_fraction: float = Field(
        0.2, gt=0, lt=1, description="Share of each class for testing, if there are no folders `train` and `test`."
    )


def build(settings: Settings, folder: Path) -> Dataset:
    """The images in the folder that the settings name.

    Raises StudyError if it is not there, has no two classes, too few images, or an image that cannot be read.
    """
    place = folder / Path(settings.path).expanduser()
    train, test = _listed(place, settings)
    if train.keys() != test.keys():
        odd = sorted(train.keys() ^ test.keys())[0]
        raise StudyError(f"The class {odd!r} of {str(place)!r} has no images in one of the folders `train` and `test`.")
    if len(train) < 2:
        raise StudyError(
            f"{str(place)!r} needs a folder of images for each of at least two classes, directly or in `train` and `test`; "
            f"it has {len(train)}."
        )
    _check_memory(settings, [*train.values(), *test.values()])
    cache = folder / "image_folder" / f"{_key(place, settings, train, test)}.npz"
    arrays = _cached(cache)
    if arrays is None:
        arrays = _read(settings, train, test)
        with contextlib.suppress(OSError):  # where nothing can be written, images are read again next time
            cache.parent.mkdir(parents=True, exist_ok=True)
            with draft_of(cache) as draft:
                with draft.open("wb") as stream:
                    np.savez(stream, allow_pickle=False, **arrays)
                draft.replace(cache)
    train_images, train_labels, test_images, test_labels = (torch.from_numpy(arrays[name]) for name in _names())
    return dataset("image_folder", train_images, train_labels, test_images, test_labels)


def _names() -> tuple[str, ...]:
    """Names of the arrays, in the order of `study.data.dataset`."""
    return tuple(f"{part} {what}" for part in PARTS for what in ("images", "labels"))


def _listed(place: Path, settings: Settings) -> tuple[Listing, Listing]:
    """The images for training and for testing."""
    if not place.is_dir():
        raise NoImagesError(f"There is no folder {str(place)!r} with images; name one with --set data/path=FOLDER.")
    try:
        if all((place / part).is_dir() for part in PARTS):
            train, test = (_classes(place / part) for part in PARTS)
            return train, test
        train, test = {}, {}
        for label, (name, images) in enumerate(_classes(place).items()):
            count = round(settings.test_fraction * len(images))
            if not 0 < count < len(images):
                raise StudyError(
                    f"data/test_fraction={settings.test_fraction} of the {len(images)} images of the class {name!r} of "
                    f"{str(place)!r} leaves none to test on or none to train on."
                )
            order = torch.randperm(len(images), generator=generator(0, "test images", label)).tolist()
            test[name] = [images[index] for index in sorted(order[:count])]
            train[name] = [images[index] for index in sorted(order[count:])]
        return train, test
    except OSError as error:
        raise StudyError(f"The images in {str(place)!r} cannot be listed: {first_line(error)}.") from None


def _classes(place: Path) -> Listing:
    """The images of each class folder that has any."""
    found = {}
    for folder in sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")):
        images = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in IMAGES and not path.name.startswith(".") and path.is_file()
        )
        if images:
            found[folder.name] = images
    return found


def _check_memory(settings: Settings, images: Sequence[Sequence[Path]]) -> None:
    needed = sum(map(len, images)) * settings.size**2 * (3 if settings.colour else 1)
    if needed > provenance.memory_bytes():
        raise StudyError(
            f"The images need {needed / 2**30:,.1f} GiB of memory at data/size={settings.size}, and this machine has "
            f"{provenance.memory_bytes() / 2**30:,.1f}; choose a smaller size."
        )


def _key(place: Path, settings: Settings, train: Listing, test: Listing) -> str:
    """32 hexadecimal digits of all that the bytes depend on, as far as it can be known without reading the images."""
    digest = hashlib.sha256(json.dumps(settings.plain(), sort_keys=True).encode())
    for part in (train, test):
        for name, images in part.items():
            for path in images:
                about = path.stat()
                entry = [name, str(path.relative_to(place)), about.st_size, about.st_mtime_ns]
                digest.update(json.dumps(entry).encode())
    return digest.hexdigest()[:32]


def _cached(cache: Path) -> Mapping[str, np.ndarray] | None:
    """The arrays of an earlier reading, or None if there are none or they are damaged."""
    try:
        with np.load(cache, allow_pickle=False) as stored:
            return {name: stored[name] for name in _names()}
    except Exception:  # numpy and zipfile raise whatever a damaged file provokes
        return None


def _read(settings: Settings, train: Listing, test: Listing) -> dict[str, np.ndarray]:
    """Images [image, channel, height, width] and labels [image] of both parts."""
    from tqdm import tqdm  # slow to import, and most data sets do not need it

    count = sum(len(images) for part in (train, test) for images in part.values())
    arrays = {}
    with tqdm(total=count, desc="reading images", unit="", delay=1, leave=False, disable=None) as progress:
        for part, listing in zip(PARTS, (train, test), strict=True):
            pictures, labels = [], []
            for label, images in enumerate(listing.values()):
                for path in images:
                    pictures.append(_picture(path, settings))
                    labels.append(label)
                    progress.update()
            arrays[f"{part} images"] = np.stack(pictures)
            arrays[f"{part} labels"] = np.array(labels, dtype=np.int64)
    return arrays


def _picture(path: Path, settings: Settings) -> np.ndarray:
    """An image as bytes [channel, height, width]."""
    from PIL import Image, ImageOps  # slow to import, and most data sets do not need it

    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB" if settings.colour else "L")
            square = ImageOps.fit(upright, (settings.size, settings.size), Image.Resampling.BILINEAR)
            values = np.asarray(square, dtype=np.uint8)
    except Exception as error:  # Pillow raises whatever a damaged file provokes
        raise StudyError(
            f"The image {str(path)!r} cannot be read ({first_line(error)}); delete or replace it."
        ) from None
    return np.ascontiguousarray(values.transpose(2, 0, 1)) if settings.colour else values[None]
