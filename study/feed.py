"""The images of one task on their way into the network: gathered on the device, as bytes until the last moment."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from study.contracts import Dataset, Task
from study.lanes import generator

EVALUATION_BATCH = 500
"""Images at once in an evaluation, in each lane; bounds the memory, and changes no result but by rounding."""

LARGEST_GREY = 255


class Feed:
    """The images of one task, gathered from the data set on the device.

    The grey values 0 to 255 become 0 to 1. Feature j of a lane's input is pixel `task.pixel_order[lane, j]`, or pixel j
    when the feed moves no pixels.

    Attributes:
        outputs: see `Task`, on the device.
        pixel_order: int64 [lane, feature] in which the feed takes the pixels; None: as they are.
        feature_order: the same when it is not the feed that does it.
    """

    def __init__(self, dataset: Dataset, task: Task, device: str, *, moves_pixels: bool = True) -> None:
        self._dataset = dataset
        self._train = task.train
        self._validation = task.validation.to(device)
        self._test = task.test.to(device)
        self._device = device
        self._lanes = len(task.train)
        self.outputs = task.outputs.to(device)
        order = None if task.pixel_order is None else task.pixel_order.to(device)
        self.pixel_order = order if moves_pixels else None
        self.feature_order = None if moves_pixels else order

    @property
    def train_count(self) -> int:
        """Training images of the task, in each lane."""
        return self._train.shape[1]

    def choices(self, seeds: tuple[int, ...], task: int, size: int, passes: int) -> Iterator[Tensor]:
        """The images of each step, int64 [lane, batch]; every pass goes over all in a new order from (seed, "order", task).

        The last minibatch of a pass is smaller when `size` does not divide the number of images.
        """
        draws = [generator(seed, "order", task) for seed in seeds]
        for _ in range(passes):
            order = torch.stack([torch.randperm(self.train_count, generator=draw) for draw in draws])
            yield from torch.split(self._train.gather(1, order).to(self._device), size, dim=1)

    def minibatch(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs [lane, batch, feature] and labels [lane, batch] of chosen training images [lane, batch]."""
        return minibatch(self._dataset, chosen, self.outputs, self.pixel_order)

    def validation(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out images, in pieces."""
        for chosen in torch.split(self._validation, EVALUATION_BATCH, dim=1):
            yield self.minibatch(chosen)

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The test images, in pieces; as one lane, [1, batch, feature], when the pixels are where they were."""
        lanes = 1 if self.pixel_order is None else self._lanes
        for chosen in torch.split(self._test, EVALUATION_BATCH):
            pixels = _pixels(self._dataset.test_images, chosen.expand(lanes, -1), self.pixel_order)
            yield pixels, self.outputs[self._dataset.test_labels[chosen]].expand(self._lanes, -1)


def minibatch(dataset: Dataset, chosen: Tensor, outputs: Tensor, pixel_order: Tensor | None) -> tuple[Tensor, Tensor]:
    """Inputs [lane, batch, feature] and labels [lane, batch] of training images; see `study.contracts.Task`."""
    labels = outputs[dataset.train_labels[chosen]]
    return _pixels(dataset.train_images, chosen, pixel_order), labels


def _pixels(images: Tensor, chosen: Tensor, pixel_order: Tensor | None) -> Tensor:
    """Grey values from 0 to 1 of the chosen images, float32 [lane, image, feature]."""
    pixels = images.index_select(0, chosen.flatten()).unflatten(
        0, chosen.shape
    )  # on a CPU 15 times as fast as images[chosen]
    if pixel_order is not None:
        pixels = pixels.gather(2, pixel_order.unsqueeze(1).expand(pixels.shape))
    grey: Tensor = pixels.to(torch.float32).mul_(1 / LARGEST_GREY)
    return grey
