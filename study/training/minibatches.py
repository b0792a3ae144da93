"""The images of one task on their way into the network: gathered on the device, as bytes until the last moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from study.contracts import Dataset, Task
from study.lanes import generator

EVALUATION_BATCH = 500
"""Images at once in an evaluation, in each lane; bounds the memory, and changes no result but by rounding."""

LARGEST_GREY = 255

ALIGNED = 16
"""Float32 numbers in 64 bytes."""


@dataclass(frozen=True)
class Pictures:
    """Training images, and which of a data set's images and pixels they are.

    Attributes:
        images: uint8 [image, pixel].
        labels: int64 [image].
        rows: bool [image of the data set], those that are here.
        pixels: int64 [pixel], those that are here; None: all.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor
    pixels: Tensor | None

    def positions(self, chosen: Tensor) -> Tensor:
        """Where images of the data set are here."""
        return (self.rows.cumsum(0) - 1)[chosen]


def whole(dataset: Dataset) -> Pictures:
    """All training images as they are."""
    rows = torch.ones(len(dataset.train_labels), dtype=torch.bool)
    return Pictures(dataset.train_images, dataset.train_labels, rows, None)


def without_blank_pixels(dataset: Dataset, task: Task, before: Pictures | None) -> Pictures:
    """The training images of a task without the pixels that are 0 in all of them, which is a tenth to a half of them.

    A few blank ones may stay, so that rows of weights begin at the borders of the processor's vectors. When `before` holds
    the very images of this task, that is it.
    """
    rows = torch.zeros(len(dataset.train_labels), dtype=torch.bool)
    rows[task.train.flatten()] = True
    if before is not None and torch.equal(rows, before.rows):
        return before
    images = dataset.train_images[rows]
    blank = images.amax(dim=0) == 0
    count = min(len(blank), -(-int((~blank).sum()) // ALIGNED) * ALIGNED) or 1
    pixels = blank.int().argsort(stable=True)[:count].sort().values
    return Pictures(images[:, pixels], dataset.train_labels[rows], rows, pixels)


class Feed:
    """The images of one task, gathered from the data set on the device.

    The grey values 0 to 255 become 0 to 1. Feature j of a lane's input is pixel `task.pixel_order[lane, j]`, or the pixels are
    left as they are.

    Attributes:
        pictures: those trained on.
        outputs: see `Task`, on the device.
        pixel_order: int64 [lane, feature] in which the feed takes the pixels; None: as they are.
        features: int64 [lane, pixel], which feature of the network each pixel is when the pixels are left; None: the same.
    """

    def __init__(self, dataset: Dataset, task: Task, device: str, pictures: Pictures | None = None) -> None:
        """`pictures` are to be left as they are; None: all pixels are taken in the task's order."""
        self._dataset = dataset
        self._train = task.train if pictures is None else pictures.positions(task.train)
        self._validation = task.validation.to(device)
        self._test = task.test.to(device)
        self._device = device
        self._lanes = len(task.train)
        self.pictures = pictures or whole(dataset)
        self.outputs = task.outputs.to(device)
        order = None if task.pixel_order is None else task.pixel_order.to(device)
        self.pixel_order = order if pictures is None else None
        self.features = order.argsort(dim=1) if order is not None and pictures is not None else None

    @property
    def trained_features(self) -> Tensor | None:
        """The features that the pictures' pixels are, int64 [lane, pixel]; None: all of them, in their order."""
        if self.pictures.pixels is None:
            return self.features
        if self.features is None:
            return self.pictures.pixels.expand(self._lanes, -1)
        return self.features[:, self.pictures.pixels]

    @property
    def train_count(self) -> int:
        """Training images of the task, in each lane."""
        return self._train.shape[1]

    def choices(self, seeds: tuple[int, ...], task: int, size: int, passes: int) -> Iterator[Tensor]:
        """The pictures of each step, int64 [lane, batch]; every pass goes over all in a new order from (seed, "order", task).

        The last minibatch of a pass is smaller when `size` does not divide the number of images.
        """
        draws = [generator(seed, "order", task) for seed in seeds]
        for _ in range(passes):
            order = torch.stack([torch.randperm(self.train_count, generator=draw) for draw in draws])
            yield from torch.split(self._train.gather(1, order).to(self._device), size, dim=1)

    def minibatch(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs [lane, batch, feature] and labels [lane, batch] of chosen pictures [lane, batch]."""
        return minibatch(self.pictures, chosen, self.outputs, self.pixel_order)

    def validation(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out images with all pixels, in pieces."""
        held_out = whole(self._dataset)
        for chosen in torch.split(self._validation, EVALUATION_BATCH, dim=1):
            yield minibatch(held_out, chosen, self.outputs, self.pixel_order)

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The test images with all pixels, in pieces; as one lane, [1, batch, feature], when the pixels are left."""
        return _test_batches(self._dataset, self._test, self.outputs, self.pixel_order, self._lanes)

    def sample(self, seeds: tuple[int, ...], size: int) -> tuple[Tensor, Tensor]:
        """At most `size` of each lane's training images, as `minibatch` gives them; of every task the same places."""
        orders = [torch.randperm(self.train_count, generator=generator(seed, "sample"))[:size] for seed in seeds]
        return self.minibatch(self._train.gather(1, torch.stack(orders)).to(self._device))


@dataclass(frozen=True)
class EarlierTask:
    """Some test images of a task, kept in a few numbers, to ask the network for them later on.

    Attributes:
        chosen: int64 [image], which of the data set's test images.
        outputs: see `Task`, on the device.
        pixel_order, features: see `Feed`.
    """

    chosen: Tensor
    outputs: Tensor
    pixel_order: Tensor | None
    features: Tensor | None

    @classmethod
    def of(cls, task: Task, device: str, size: int, *, moves_pixels: bool) -> EarlierTask:
        """At most `size` images, evenly spaced; their pixels are moved, or left while the weights are reordered."""
        count = len(task.test)
        chosen = task.test[torch.arange(min(size, count)) * count // min(size, count)].to(device)
        order = None if task.pixel_order is None else task.pixel_order.to(device)
        moved = order if moves_pixels else None
        features = order.argsort(dim=1) if order is not None and not moves_pixels else None
        return cls(chosen, task.outputs.to(device), moved, features)

    def batches(self, dataset: Dataset, lanes: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The images in pieces, as `Feed.test` gives them."""
        return _test_batches(dataset, self.chosen, self.outputs, self.pixel_order, lanes)


def _test_batches(
    dataset: Dataset, test: Tensor, outputs: Tensor, pixel_order: Tensor | None, lanes: int
) -> Iterator[tuple[Tensor, Tensor]]:
    seen_by = 1 if pixel_order is None else lanes
    for chosen in torch.split(test, EVALUATION_BATCH):
        pixels = _pixels(dataset.test_images, chosen.expand(seen_by, -1), pixel_order)
        yield pixels, outputs[dataset.test_labels[chosen]].expand(lanes, -1)


def minibatch(pictures: Pictures, chosen: Tensor, outputs: Tensor, pixel_order: Tensor | None) -> tuple[Tensor, Tensor]:
    """Inputs [lane, batch, feature] and labels [lane, batch] of chosen pictures; see `study.contracts.Task`."""
    labels = outputs.take(pictures.labels.take(chosen))  # on a CPU twice as fast as outputs[labels[chosen]]
    return _pixels(pictures.images, chosen, pixel_order), labels


def _pixels(images: Tensor, chosen: Tensor, pixel_order: Tensor | None) -> Tensor:
    """Grey values from 0 to 1 of the chosen images, float32 [lane, image, feature]."""
    rows = images.index_select(0, chosen.flatten())  # on a CPU 15 times as fast as images[chosen]
    pixels = rows.view(*chosen.shape, -1)
    if pixel_order is not None:
        pixels = pixels.gather(2, pixel_order.unsqueeze(1).expand(pixels.shape))
    grey: Tensor = pixels.to(torch.float32).mul_(1 / LARGEST_GREY)
    return grey
