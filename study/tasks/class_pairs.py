"""Class-incremental tasks: each task tells two classes apart.

All pairs share one head with two outputs. They come in the order of arXiv 2409.17300: 0-1, 0-2, ..., 0-9, 1-2, ..., 8-9. With
`order_seed` they come in a random order, of which `count` makes a sample. Many classes in random pairs are Continual ImageNet
(Dohare et al. 2024, Nature 632). A task has the images of its pair only; the smaller class is output 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

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


class Settings(TaskSettings):
    """Settings of every task sequence, and the order.

    By default all pairs: 45 of 10 classes.
    """

    order_seed: int | None = ORDER_SEED


@dataclass(frozen=True)
class ClassPairs:
    """The sequence for one data set and some seeds."""

    settings: Settings
    dataset: Dataset
    seeds: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    train: Tensor
    validation: Tensor

    output_count = 2

    @property
    def count(self) -> int:
        """Number of tasks, one for each pair."""
        return len(self.pairs)

    @property
    def has_validation(self) -> bool:
        """Whether validation images are held out."""
        return self.settings.validation_fraction > 0

    def task(self, index: int) -> Task:
        """The pair at `index`."""
        pair = self.pairs[index]
        train = of_classes(self.train, self.dataset.train_labels, pair)
        validation = of_classes(self.validation, self.dataset.train_labels, pair)
        outputs = torch.full((self.dataset.class_count,), -1)
        outputs[list(pair)] = torch.tensor([0, 1])
        return Task(
            name=f"{pair[0]}-{pair[1]}",
            train=subset(train, self.settings.images_per_task, self.seeds, index),
            validation=validation,
            test=test_images(self.dataset, pair),
            outputs=outputs,
            pixel_order=None,
        )


def build(settings: Settings, dataset: Dataset, seeds: Sequence[int]) -> ClassPairs:
    """The sequence for one data set and some seeds.

    Raises StudyError if the settings ask for more tasks or images than the data set has.
    """
    pairs = tuple(shuffled(tuple(combinations(range(dataset.class_count), 2)), settings.order_seed, "class pairs"))
    count = settings.count or len(pairs)
    if count > len(pairs):
        raise StudyError(f"tasks/count={count} is too many: {dataset.name} has {len(pairs)} pairs of classes.")
    train, validation = split(dataset.train_labels, settings.validation_fraction, seeds)
    available, held_out = class_sizes(train, dataset), class_sizes(validation, dataset)
    for a, b in pairs[:count]:
        check_sizes(settings, available[a] + available[b], held_out[a] + held_out[b], f"of the pair {a}-{b}")
    return ClassPairs(settings, dataset, tuple(seeds), pairs[:count], train, validation)
