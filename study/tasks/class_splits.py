"""Class-incremental tasks: each tells the next few classes apart.

The classes come in an order, and each task takes the next ones, which no task before had. Sizes may alternate: with [5, 1] a task
of five classes is followed by one of a single class, and so on. When too few classes are left for the next task, all of them come
again; with `order_seed`, in another order. This is the sequence "5+1 CIFAR-100" of Kumar et al. 2023
(arXiv 2308.11958): classes in a random order, each with an output of its own, minibatches of 16. In their code each task takes
625 steps; here each image is seen equally often, so a task of one class takes a fifth of the steps of one of five.

If classes have no outputs of their own, those of a task share the first outputs, the smallest class output 0. A task of a single
class then has nothing to learn but that output.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from study.config import Listed
from study.contracts import Dataset, Task
from study.errors import StudyError
from study.tasks import (
    ORDER_SEED,
    TaskSettings,
    check_sizes,
    class_sizes,
    of_classes,
    shuffled,
    split,
    subset,
    test_images,
)

MOST_TASKS = 10_000


class Settings(TaskSettings):
    """Settings of every task sequence, of classes and outputs.

    By default as many tasks as the classes suffice for once.
    """

    classes: Annotated[tuple[Annotated[int, Field(ge=1, le=2**31)], ...], Listed] = Field(
        (2,),
        min_length=1,
        max_length=1000,
        description="Classes of each task, in turn: `[5, 1]` means 5, 1, 5, 1 and so on.",
    )
    own_outputs: bool = Field(
        False,
        description="Whether each class has an output of its own; otherwise the classes of a task have the first outputs.",
    )
    order_seed: int | None = ORDER_SEED


@dataclass(frozen=True)
class ClassSplits:
    """The sequence for one data set and some seeds.

    Attributes:
        groups: the classes of each task, in ascending order.
    """

    settings: Settings
    dataset: Dataset
    seeds: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    output_count: int
    train: Tensor
    validation: Tensor

    @property
    def count(self) -> int:
        """Number of tasks."""
        return len(self.groups)

    @property
    def has_validation(self) -> bool:
        """Whether validation images are held out."""
        return self.settings.validation_fraction > 0

    def task(self, index: int) -> Task:
        """The group of classes at `index`."""
        group = self.groups[index]
        train = of_classes(self.train, self.dataset.train_labels, group)
        validation = of_classes(self.validation, self.dataset.train_labels, group)
        outputs = torch.full((self.dataset.class_count,), -1)
        outputs[list(group)] = torch.tensor(group) if self.settings.own_outputs else torch.arange(len(group))
        return Task(
            name=_name(group) if index == self.groups.index(group) else f"{_name(group)}, task {index}",
            train=subset(train, self.settings.images_per_task, self.seeds, index),
            validation=validation,
            test=test_images(self.dataset, group),
            outputs=outputs,
            pixel_order=None,
        )


def build(settings: Settings, dataset: Dataset, seeds: Sequence[int]) -> ClassSplits:
    """The sequence for one data set and some seeds.

    Raises StudyError if the settings ask for more tasks, classes or images than the data set has.
    """
    once = len(_groups(range(dataset.class_count), settings.classes))
    if not once:
        raise StudyError(
            f"tasks/classes={list(settings.classes)} is too many: {dataset.name} has {dataset.class_count} classes."
        )
    count = settings.count or once
    if count > MOST_TASKS:
        raise StudyError(f"tasks/count={count} is too many: class_splits has at most {MOST_TASKS:,} tasks.")
    groups: list[tuple[int, ...]] = []
    while len(groups) < count:
        order = shuffled(range(dataset.class_count), settings.order_seed, "class splits", len(groups) // once)
        groups += _groups(order, settings.classes)
    groups = groups[:count]
    train, validation = split(dataset.train_labels, settings.validation_fraction, seeds)
    available, held_out = class_sizes(train, dataset), class_sizes(validation, dataset)
    for group in groups:
        where = f"of the classes {_name(group)}"
        check_sizes(settings, sum(available[label] for label in group), sum(held_out[label] for label in group), where)
    outputs = dataset.class_count if settings.own_outputs else max(len(group) for group in groups)
    return ClassSplits(settings, dataset, tuple(seeds), tuple(groups), outputs, train, validation)


def _name(group: tuple[int, ...]) -> str:
    """The classes of a task as one word."""
    return "-".join(map(str, group))


def _groups(classes: Sequence[int], sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """The classes in groups of these sizes, in turn; what is left over is dropped."""
    groups: list[tuple[int, ...]] = []
    start = 0
    for size in cycle(sizes):
        group = classes[start : start + size]
        if len(group) < size:
            return groups
        groups.append(tuple(sorted(group)))
        start += size
    raise AssertionError("sizes are not empty")
