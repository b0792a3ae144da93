"""Domain-incremental tasks: each task permutes the pixels anew.

The permutation of a task is the same for all its images; every task has all classes. Permutations: Goodfellow et al. 2013
(arXiv 1312.6211); sequence of 100: arXiv 2409.17300; 10,000 images a task, minibatches of 16, 500 tasks: Kumar et al. 2023
(arXiv 2308.11958). Task 0 is permuted like all others. The sequence has no end: any number of tasks is possible.

With `change` the tasks change gradually: each permutation differs from the one before at that share of the positions, which are
drawn at random and exchange their pixels in a circle. The more abrupt the change, the more plasticity is lost (Liu and Mou 2026,
arXiv 2602.09234, who interpolate between tasks instead).

By default every value of a picture moves by itself, also from one colour to another. With `whole_pixels` all channels of a pixel
move together. For grey pictures both are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from study.contracts import Dataset, Task
from study.errors import StudyError
from study.lanes import generator
from study.tasks import TaskSettings, check_sizes, split, subset, test_images

PAPER_TASKS = 100


class Settings(TaskSettings):
    """Settings of every task sequence; by default 100 tasks."""

    change: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the positions whose pixel differs from the task before; default: each permutation is drawn anew.",
    )
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
    moving: int | None  # positions that change from task to task; None: each permutation is drawn anew
    train: Tensor
    validation: Tensor
    test: Tensor

    def task(self, index: int) -> Task:
        """The task at `index`.

        Its permutation is drawn from (seed, "permutation", index); a gradual one also from those of all tasks before.
        """
        positions = self.feature_count // self.channels
        orders = [self._order(seed, index, positions) for seed in self.seeds]
        starts = torch.arange(self.channels) * positions  # of each channel that moves with the others
        return Task(
            name=f"permutation {index}",
            train=subset(self.train, self.images_per_task, self.seeds, index),
            validation=self.validation,
            test=self.test,
            outputs=torch.arange(self.output_count),
            pixel_order=(starts.unsqueeze(1) + torch.stack(orders).unsqueeze(1)).flatten(1),  # [lane, feature]
        )

    def _order(self, seed: int, index: int, positions: int) -> Tensor:
        """The permutation of one lane, int64 [position]."""
        if self.moving is None:
            return torch.randperm(positions, generator=generator(seed, "permutation", index))
        order = torch.randperm(positions, generator=generator(seed, "permutation", 0))
        for later in range(1, index + 1):
            drawn = torch.randperm(positions, generator=generator(seed, "permutation", later))[: self.moving]
            order[drawn] = order[drawn.roll(1)]  # each position gets another pixel
        return order


def build(settings: Settings, dataset: Dataset, seeds: Sequence[int]) -> PermutedPixels:
    """The sequence for one data set and some seeds.

    Raises StudyError if the settings ask for more images than the data set has, or change fewer than two positions.
    """
    train, validation = split(dataset.train_labels, settings.validation_fraction, seeds)
    check_sizes(settings, train.shape[1], validation.shape[1], f"in {dataset.name}")
    channels = dataset.shape[0] if settings.whole_pixels else 1
    positions = dataset.train_images.shape[1] // channels
    moving = None if settings.change is None else round(settings.change * positions)
    if moving is not None and moving < 2:
        raise StudyError(
            f"tasks/change={settings.change:g} of {positions} positions is fewer than two, which cannot exchange their pixels; "
            f"choose at least {2 / positions:.2g}."
        )
    return PermutedPixels(
        count=settings.count or PAPER_TASKS,
        output_count=dataset.class_count,
        has_validation=settings.validation_fraction > 0,
        images_per_task=settings.images_per_task,
        seeds=tuple(seeds),
        feature_count=dataset.train_images.shape[1],
        channels=channels,
        moving=moving,
        train=train,
        validation=validation,
        test=test_images(dataset, range(dataset.class_count)),
    )
