"""Random labels: each task deals the labels out anew.

The images are the same in every task, and their labels are permuted among them, so that all classes stay as frequent as they are
(Kumar et al. 2023, arXiv 2308.11958). The input stays and the answers change: a network must learn each task by heart. Published
as "random label MNIST" and "random label CIFAR-10": 1,200 images, minibatches of 16, 400 passes (30,000 steps) a task, 50 tasks:

    tasks/images=1200, tasks/count=50, training/passes=400, training/batch_size=16

There is nothing to generalise to. So accuracy is measured on the task's own images, after the last step: validation accuracy, the
objective, on the share `validation_fraction` of them, at least one, and test accuracy on the others. Both are trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from study.contracts import Dataset, Relabelled, Task
from study.errors import StudyError
from study.lanes import generator
from study.tasks import TaskSettings, check_sizes, subset, test_images

PUBLISHED_TASKS = 50


class Settings(TaskSettings):
    """Settings of every task sequence; by default 50 tasks."""

    images: int | None = Field(
        None,
        ge=1,
        le=2**31,
        description="Training images of the whole sequence, drawn once for each seed; default: all.",
    )


@dataclass(frozen=True)
class PermutedLabels:
    """The sequence for one data set and some seeds.

    Attributes:
        images: int64 [lane, image], training images of the sequence.
    """

    settings: Settings
    dataset: Dataset
    seeds: tuple[int, ...]
    count: int
    images: Tensor

    @property
    def output_count(self) -> int:
        """Number of classes."""
        return self.dataset.class_count

    @property
    def has_validation(self) -> bool:
        """Whether some of the images count as validation images."""
        return self.settings.validation_fraction > 0

    def task(self, index: int) -> Task:
        """The task at `index`.

        Labels are drawn from (seed, "labels", index), and the images that count as validation from (seed, "validation", index).
        """
        train = subset(self.images, self.settings.images_per_task, self.seeds, index)
        orders = [torch.randperm(train.shape[1], generator=generator(s, "validation", index)) for s in self.seeds]
        mixed = train.gather(1, torch.stack(orders))
        share = _share(self.settings, train.shape[1])
        validation, test = mixed[:, :share], mixed[:, min(share, train.shape[1] - 1) :]  # a single image does both
        return Task(
            name=f"labels {index}",
            train=train,
            validation=validation,
            test=test_images(self.dataset, range(self.dataset.class_count)),
            outputs=torch.arange(self.dataset.class_count),
            pixel_order=None,
            relabelled=Relabelled(self._labels(index), test),
        )

    def _labels(self, index: int) -> Tensor:
        """The label of each training image of the data set, int64 [lane, image]."""
        labels = self.dataset.train_labels.expand(len(self.seeds), -1).clone()
        old = labels.gather(1, self.images)
        orders = [torch.randperm(old.shape[1], generator=generator(s, "labels", index)) for s in self.seeds]
        return labels.scatter_(1, self.images, old.gather(1, torch.stack(orders)))


def _share(settings: Settings, images: int) -> int:
    """Number of a task's images that count as validation images."""
    return max(1, round(settings.validation_fraction * images)) if settings.validation_fraction > 0 else 0


def build(settings: Settings, dataset: Dataset, seeds: Sequence[int]) -> PermutedLabels:
    """The sequence for one data set and some seeds.

    Raises StudyError if the settings ask for more images than the data set has.
    """
    available = len(dataset.train_labels)
    if settings.images is not None and settings.images > available:
        raise StudyError(f"tasks/images={settings.images} is too many: {dataset.name} has {available} training images.")
    images = torch.arange(available).expand(len(seeds), -1)
    if settings.images is not None:
        images = images.gather(1, _drawn(available, settings.images, seeds))
    each = settings.images_per_task or images.shape[1]
    check_sizes(settings, images.shape[1], _share(settings, each), f"in {dataset.name}")
    return PermutedLabels(settings, dataset, tuple(seeds), settings.count or PUBLISHED_TASKS, images)


def _drawn(available: int, size: int, seeds: Sequence[int]) -> Tensor:
    """So many of the available images for each seed, in ascending order, int64 [lane, image]."""
    orders = [torch.randperm(available, generator=generator(seed, "images of the sequence"))[:size] for seed in seeds]
    return torch.stack(orders).sort(dim=1).values
