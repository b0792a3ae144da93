"""Minibatches of a task, gathered on the device.

Images are kept as bytes and become floats only in the minibatch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from study.contracts import Dataset, Task
from study.lanes import generator
from study.pixels import Scale

EVALUATION_BATCH = 500
"""Images at once in an evaluation, in each lane. It bounds the memory; results change by rounding only."""

ALIGNED = 16
"""Pixels are kept in multiples of this number: float32 numbers in 64 bytes."""


@dataclass(frozen=True)
class Pictures:
    """A selection of training images and of their pixels.

    Attributes:
        images: uint8 [image, pixel].
        labels: int64 [image].
        rows: bool [image of the data set], which images are selected.
        pixels: int64 [pixel], which pixels are selected; None: all.
        scale: how bytes become inputs of a network.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor
    pixels: Tensor | None
    scale: Scale

    def positions(self, chosen: Tensor) -> Tensor:
        """Indices into this selection of images of the data set.

        `chosen` and the result are int64 of any shape.
        """
        return (self.rows.cumsum(0) - 1)[chosen]


def whole(dataset: Dataset) -> Pictures:
    """All training images with all pixels."""
    rows = torch.ones(len(dataset.train_labels), dtype=torch.bool)
    return Pictures(dataset.train_images, dataset.train_labels, rows, None, dataset.scale)


def without_blank_pixels(dataset: Dataset, task: Task, before: Pictures | None) -> Pictures:
    """The training images of a task without its blank pixels.

    Blank pixels are 0 in all images of the task; a tenth to a half of all pixels are. A few of them may stay, so that rows of
    weights are aligned with the processor's vectors. If `before` has exactly the images of this task, it is returned.
    """
    rows = torch.zeros(len(dataset.train_labels), dtype=torch.bool)
    rows[task.train.flatten()] = True
    if before is not None and torch.equal(rows, before.rows):
        return before
    images = dataset.train_images[rows]
    blank = images.amax(dim=0) == 0  # [pixel]
    count = min(len(blank), -(-int((~blank).sum()) // ALIGNED) * ALIGNED) or 1  # rounded up
    pixels = blank.int().argsort(stable=True)[:count].sort().values  # all that are not blank, then the first blank ones
    return Pictures(images[:, pixels], dataset.train_labels[rows], rows, pixels, dataset.scale)


class Feed:
    """The images of one task, gathered from the data set.

    Bytes become floats by `Dataset.scale`. There are two ways to permute pixels. Either they are moved in every image: feature
    j of a lane's input is pixel `task.pixel_order[lane, j]`. Or they stay in place, and the weights of the first layer are
    reordered by `features` once a task.

    Attributes:
        pictures: the training images.
        labels: int64 [picture], the network's output for each of the pictures, or [lane, picture] if the task is relabelled.
        pixel_order: int64 [lane, feature], the order into which pixels are moved; None: they stay in place.
        features: int64 [lane, pixel], the network's feature for each pixel, if pixels stay in place; None: pixel j is feature j.
    """

    def __init__(self, dataset: Dataset, task: Task, device: str, pictures: Pictures | None = None) -> None:
        """Pixels of `pictures` stay in place; without, all are moved."""
        self._dataset = dataset
        self._train = task.train if pictures is None else pictures.positions(task.train)
        self._validation = task.validation.to(device)
        self._task = task
        self._device = device
        self._lanes = len(task.train)
        self.pictures = pictures or whole(dataset)
        self.labels = _labels(task, self.pictures, device)
        order = None if task.pixel_order is None else task.pixel_order.to(device)
        self.pixel_order = order if pictures is None else None
        self.features = order.argsort(dim=1) if order is not None and pictures is not None else None

    @property
    def trained_features(self) -> Tensor | None:
        """The network's features that are trained, int64 [lane, pixel].

        They belong to the selected pixels. None: all features in their order.
        """
        if self.pictures.pixels is None:
            return self.features
        if self.features is None:
            return self.pictures.pixels.expand(self._lanes, -1)
        return self.features[:, self.pictures.pixels]

    @property
    def train_count(self) -> int:
        """Number of training images of the task, in each lane."""
        return self._train.shape[1]

    def choices(self, seeds: tuple[int, ...], task: int, size: int, passes: int) -> Iterator[Tensor]:
        """The pictures of each step, int64 [lane, batch].

        Each pass takes all images in a new order, drawn from (seed, "order", task). The last minibatch of a pass is smaller if
        `size` does not divide the number of images.

        Args:
            seeds: one for each lane.
            task: index of the task.
            size: of a minibatch.
            passes: over the images of the task.
        """
        draws = [generator(seed, "order", task) for seed in seeds]
        for _ in range(passes):
            order = torch.stack([torch.randperm(self.train_count, generator=draw) for draw in draws])  # [lane, image]
            yield from torch.split(self._train.gather(1, order).to(self._device), size, dim=1)

    def minibatch(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs [lane, batch, feature] and labels [lane, batch].

        `chosen` are the pictures, int64 [lane, batch].
        """
        return minibatch(self.pictures, chosen, self.labels, self.pixel_order)

    def validation(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out images with all pixels, in batches.

        Each batch is inputs [lane, batch, feature] and labels [lane, batch].
        """
        held_out = whole(self._dataset)
        labels = _labels(self._task, held_out, self._device)
        for chosen in torch.split(self._validation, EVALUATION_BATCH, dim=1):
            yield minibatch(held_out, chosen, labels, self.pixel_order)

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The test images with all pixels, in batches.

        Each batch is inputs [lane, batch, feature], or [1, batch, feature] if pixels stay in place, and labels [lane, batch].
        """
        return _test_batches(self._dataset, Tested.of(self._task, self._device), self.pixel_order, self._lanes)

    def sample(self, seeds: tuple[int, ...], size: int) -> tuple[Tensor, Tensor]:
        """A minibatch of at most `size` training images per lane.

        In every task the images at the same positions are taken, drawn from (seed, "sample").
        """
        orders = [torch.randperm(self.train_count, generator=generator(seed, "sample"))[:size] for seed in seeds]
        return self.minibatch(self._train.gather(1, torch.stack(orders)).to(self._device))


@dataclass(frozen=True)
class Tested:
    """The images that a task is tested on, as indices.

    Attributes:
        chosen: int64 [image], of the data set's test images; of a relabelled task int64 [lane, image], of its training images.
        outputs: int64 [class], see `Task`.
        labels: int64 [lane, image], of the chosen images of a relabelled task; None: those of the data set.
    """

    chosen: Tensor
    outputs: Tensor
    labels: Tensor | None

    @classmethod
    def of(cls, task: Task, device: str, size: int | None = None) -> Tested:
        """The test images, or `size` of them, evenly spaced."""
        test = task.test if task.relabelled is None else task.relabelled.test
        count = test.shape[-1]
        if size is not None and size < count:
            test = test[..., torch.arange(size) * count // size]
        labels = None if task.relabelled is None else task.relabelled.labels.gather(1, test).to(device)
        return cls(test.to(device), task.outputs.to(device), labels)


@dataclass(frozen=True)
class EarlierTask:
    """Some test images of a task, to evaluate on later.

    Only indices are kept.

    Attributes:
        tested: the images.
        pixel_order, features: see `Feed`.
    """

    tested: Tested
    pixel_order: Tensor | None
    features: Tensor | None

    @classmethod
    def of(cls, task: Task, device: str, size: int, *, moves_pixels: bool) -> EarlierTask:
        """At most `size` of the task's test images, evenly spaced.

        With `moves_pixels` their pixels are moved; otherwise they stay in place, and weights are reordered. See `Feed`.
        """
        order = None if task.pixel_order is None else task.pixel_order.to(device)
        moved = order if moves_pixels else None
        features = order.argsort(dim=1) if order is not None and not moves_pixels else None
        return cls(Tested.of(task, device, size), moved, features)

    def batches(self, dataset: Dataset, lanes: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The images in batches, as `Feed.test` gives them."""
        return _test_batches(dataset, self.tested, self.pixel_order, lanes)


def _test_batches(
    dataset: Dataset, tested: Tested, pixel_order: Tensor | None, lanes: int
) -> Iterator[tuple[Tensor, Tensor]]:
    if tested.labels is not None:
        pieces = (torch.split(values, EVALUATION_BATCH, dim=1) for values in (tested.chosen, tested.labels))
        for chosen, labels in zip(*pieces, strict=True):
            yield _pixels(dataset.train_images, dataset.scale, chosen, pixel_order), labels
        return
    input_lanes = 1 if pixel_order is None else lanes  # pixels in place are the same for all lanes
    for chosen in torch.split(tested.chosen, EVALUATION_BATCH):
        pixels = _pixels(dataset.test_images, dataset.scale, chosen.expand(input_lanes, -1), pixel_order)
        yield pixels, tested.outputs[dataset.test_labels[chosen]].expand(lanes, -1)


def _labels(task: Task, pictures: Pictures, device: str) -> Tensor:
    """The network's output for each picture, see `Feed.labels`."""
    if task.relabelled is None:
        return task.outputs.to(device)[pictures.labels]
    return task.relabelled.labels[:, pictures.rows].to(device)


def minibatch(pictures: Pictures, chosen: Tensor, labels: Tensor, pixel_order: Tensor | None) -> tuple[Tensor, Tensor]:
    """Inputs [lane, batch, feature] and labels [lane, batch].

    Args:
        pictures: to choose from.
        chosen: int64 [lane, batch].
        labels: see `Feed`.
        pixel_order: int64 [lane, feature]; None: pixels stay in place.
    """
    shown = labels.take(chosen) if labels.dim() == 1 else labels.gather(1, chosen)  # `take` is the faster one
    return _pixels(pictures.images, pictures.scale, chosen, pixel_order), shown


def _pixels(images: Tensor, scale: Scale, chosen: Tensor, pixel_order: Tensor | None) -> Tensor:
    """Chosen images as inputs, float32 [lane, image, feature]."""
    # [lane * image, pixel]; on a CPU 15 times as fast as images[chosen]
    rows = images.index_select(0, chosen.flatten())
    return scale.inputs(rows.view(*chosen.shape, -1), pixel_order)
