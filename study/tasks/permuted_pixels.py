"""Domain-incremental tasks: each task permutes the pixels anew.

The permutation of a task is the same for all its images; every task has all classes. Permutations: Goodfellow et al. 2013
(arXiv 1312.6211); sequence of 100: arXiv 2409.17300; 10,000 images a task, minibatches of 16, 500 tasks: Kumar et al. 2023
(arXiv 2308.11958). Task 0 is permuted like all others. The sequence has no end: any number of tasks is possible.

By default every value of a picture moves by itself, also from one colour to another. With `whole_pixels` all channels of a pixel
move together. For grey pictures both are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from study.contracts import Dataset, Task
from study.lanes import generator
from study.tasks import TaskSettings, check_sizes, split, subset, test_images

PAPER_TASKS = 100


class Settings(TaskSettings):
    """Settings of every task sequence; by default 100 tasks."""

    whole_pixels: bool = Field(
        False,
        description="Whether all channels of a pixel move together; otherwise every value of a picture moves by itself.",
    )


@dataclass(frozen=True)
class PermutedPixels:
    """The sequence for one data set and some seeds."""

    count: int
    output_count: int
    has_validation: bool
    images_per_task: int | None
    seeds: tuple[int, ...]
    feature_count: int
    channels: int  # that move together
    train: Tensor
    validation: Tensor
    test: Tensor

    def task(self, index: int) -> Task:
        """The task at `index`.

        Its permutation is drawn from (seed, "permutation", index).
        """
        positions = self.feature_count // self.channels
        orders = [torch.randperm(positions, generator=generator(s, "permutation", index)) for s in self.seeds]
        starts = torch.arange(self.channels) * positions  # of each channel that moves with the others
        return Task(
            name=f"permutation {index}",
            train=subset(self.train, self.images_per_task, self.seeds, index),
            validation=self.validation,
            test=self.test,
            outputs=torch.arange(self.output_count),
            pixel_order=(starts.unsqueeze(1) + torch.stack(orders).unsqueeze(1)).flatten(1),  # [lane, feature]
        )


def build(settings: Settings, dataset: Dataset, seeds: Sequence[int]) -> PermutedPixels:
    """The sequence for one data set and some seeds.

    Raises StudyError if the settings ask for more images than the data set has.
    """
    train, validation = split(dataset.train_labels, settings.validation_fraction, seeds)
    check_sizes(settings, train.shape[1], validation.shape[1], f"in {dataset.name}")
    return PermutedPixels(
        count=settings.count or PAPER_TASKS,
        output_count=dataset.class_count,
        has_validation=settings.validation_fraction > 0,
        images_per_task=settings.images_per_task,
        seeds=tuple(seeds),
        feature_count=dataset.train_images.shape[1],
        channels=dataset.shape[0] if settings.whole_pixels else 1,
        train=train,
        validation=validation,
        test=test_images(dataset, range(dataset.class_count)),
    )
