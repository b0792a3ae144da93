"""The images of one task on their way into the network: gathered on the device, as bytes until the last moment."""

from collections.abc import Iterator

import torch
from torch import Tensor

from study.contracts import Dataset, Task
from study.lanes import generator

EVALUATION_BATCH = 500
"""Images at once in an evaluation, in each lane; bounds the memory, and changes no result but by rounding."""


class Feed:
    """The images of one task, gathered from the data set on the device.

    The grey values 0 to 255 become 0 to 1. Feature j of a lane's input is pixel `pixel_order[lane, j]`.
    """

    def __init__(self, dataset: Dataset, task: Task, device: str) -> None:
        self._dataset = dataset
        self._train = task.train
        self._validation = task.validation.to(device)
        self._test = task.test.to(device)
        self._outputs = task.outputs.to(device)
        self._pixel_order = None if task.pixel_order is None else task.pixel_order.to(device)
        self._device = device
        self._lanes = len(task.train)

    @property
    def train_count(self) -> int:
        """Training images of the task, in each lane."""
        return self._train.shape[1]

    def minibatches(self, seeds: tuple[int, ...], task: int, size: int, passes: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and labels of each step; every pass goes over all images in a new order drawn from (seed, "order", task).

        The last minibatch of a pass is smaller when `size` does not divide the number of images.
        """
        draws = [generator(seed, "order", task) for seed in seeds]
        for _ in range(passes):
            order = torch.stack([torch.randperm(self.train_count, generator=draw) for draw in draws])
            images = self._train.gather(1, order).to(self._device)
            for chosen in torch.split(images, size, dim=1):
                yield self._gather(self._dataset.train_images, self._dataset.train_labels, chosen)

    def validation(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out images, in pieces."""
        for chosen in torch.split(self._validation, EVALUATION_BATCH, dim=1):
            yield self._gather(self._dataset.train_images, self._dataset.train_labels, chosen)

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The test images, in pieces."""
        for chosen in torch.split(self._test, EVALUATION_BATCH):
            yield self._gather(self._dataset.test_images, self._dataset.test_labels, chosen.expand(self._lanes, -1))

    def _gather(self, images: Tensor, labels: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        pixels = images[chosen]
        if self._pixel_order is not None:
            pixels = pixels.gather(2, self._pixel_order.unsqueeze(1).expand(pixels.shape))
        return pixels.to(torch.float32) / 255, self._outputs[labels[chosen]]
