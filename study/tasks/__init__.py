"""Task sequences, one per file, and what they share.

Each file exposes `Settings` and `build(settings, dataset, seeds) -> TaskSequence`.

Shared are the number of tasks, the training images held out for validation, and the choice among the rest that a task trains
on. Held-out images are drawn once per seed, class by class, and stay held out in every task. This matters for class pairs, which
share images: an image that validates one pair must not train another.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from study.config import StrictSettings
from study.contracts import Dataset
from study.errors import StudyError
from study.lanes import generator

Item = TypeVar("Item")

ORDER_SEED: Any = Field(
    None,
    ge=0,
    lt=2**31,
    description="Seed of a random order, the same for all of a trial's seeds; default: ascending.",
)
"""The setting of a sequence whose tasks can come in a random order."""


class TaskSettings(StrictSettings):
    """Settings of every task sequence."""

    count: int | None = Field(
        None, ge=1, le=2**31, description="Number of tasks: a prefix of the sequence; default: the paper's."
    )
    images_per_task: int | None = Field(
        None,
        ge=1,
        le=2**31,
        description="Training images of each task, drawn anew for each; default: all that are not held out.",
    )
    validation_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of each class's training images held out for validation; 0: none, and so no objective.",
    )


def split(labels: Tensor, fraction: float, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Training and held-out images of each lane, [lane, image] each.

    In ascending order. Of each class `round(fraction * size)` images are held out, so all lanes have equally many.

    Args:
        labels: int64 [image].
        fraction: share held out, from 0 to below 1.
        seeds: one for each lane.
    """
    held_out = torch.zeros(len(seeds), len(labels), dtype=torch.bool)  # [lane, image]
    for lane, seed in enumerate(seeds):
        draw = generator(seed, "validation")
        for label in range(int(labels.max()) + 1):
            members = (labels == label).nonzero().squeeze(1)
            order = torch.randperm(len(members), generator=draw)
            held_out[lane, members[order[: round(fraction * len(members))]]] = True
    train = torch.stack([(~lane).nonzero().squeeze(1) for lane in held_out])
    validation = torch.stack([lane.nonzero().squeeze(1) for lane in held_out])
    return train, validation


def subset(images: Tensor, size: int | None, seeds: Sequence[int], task: int) -> Tensor:
    """`size` images of each lane, drawn for this task.

    Args:
        images: [lane, image], to draw from.
        size: None for all of them.
        seeds: one for each lane.
        task: index of the task.
    """
    if size is None:
        return images
    orders = [torch.randperm(images.shape[1], generator=generator(seed, "images", task))[:size] for seed in seeds]
    return images.gather(1, torch.stack(orders))


def check_sizes(settings: TaskSettings, available: int, held_out: int, where: str) -> None:
    """Raises StudyError if a task has too few images.

    Args:
        settings: of the task sequence.
        available: training images that are not held out.
        held_out: images held out for validation.
        where: completes the message, for example "of the pair 0-1".
    """
    if available < 1:
        raise StudyError(
            f"tasks/validation_fraction={settings.validation_fraction} leaves no image to train on {where}."
        )
    if settings.images_per_task is not None and settings.images_per_task > available:
        raise StudyError(
            f"tasks/images_per_task={settings.images_per_task} is too many: {where} {available} training images are left."
        )
    if settings.validation_fraction > 0 and held_out < 1:
        raise StudyError(f"tasks/validation_fraction={settings.validation_fraction} holds out no image {where}.")


def of_classes(images: Tensor, labels: Tensor, classes: Sequence[int]) -> Tensor:
    """The images [lane, image] whose label is among the classes.

    Every lane must have equally many.
    """
    return images[torch.isin(labels[images], torch.tensor(classes))].reshape(len(images), -1)


def class_sizes(images: Tensor, dataset: Dataset) -> list[int]:
    """Number of images of each class.

    `images` are training images [lane, image]; every lane has equally many of a class.
    """
    sizes: list[int] = dataset.train_labels[images[0]].bincount(minlength=dataset.class_count).tolist()
    return sizes


def shuffled(items: Sequence[Item], seed: int | None, purpose: str, time: int = 0) -> list[Item]:
    """The items in a random order, with a seed.

    It is drawn from (seed, purpose, time).
    """
    if seed is None:
        return list(items)
    return [items[place] for place in torch.randperm(len(items), generator=generator(seed, purpose, time)).tolist()]


def test_images(dataset: Dataset, classes: Sequence[int]) -> Tensor:
    """All test images of the given classes, [image]."""
    return torch.isin(dataset.test_labels, torch.tensor(classes)).nonzero().squeeze(1)
