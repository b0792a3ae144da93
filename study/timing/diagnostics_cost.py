"""What the diagnostics cost beside training, in the paper's two task sequences: timed look by look, and added up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from study.config import Diagnostics, TrialConfig
from study.contracts import Dataset
from study.experiment import build
from study.timing.speed import OPTIMIZERS
from study.training.diagnostics import due
from study.training.trainer import train

LARGE = 20_000
"""Training images of a data set from which on its tasks are cut down to as many as a look takes."""


@dataclass(frozen=True)
class Sequence:
    """A task sequence of the paper: its length, the training images of a task in each lane, and when it is looked into."""

    tasks: int
    images: int
    diagnostics: Diagnostics


PAPER = {
    "permuted_pixels": Sequence(100, 60_000, Diagnostics()),
    "class_pairs": Sequence(45, 12_000, Diagnostics(curvature_every=5)),
}
"""As in `search_spaces.paper_grid` with full MNIST, of which a pair of digits is a fifth."""


@dataclass(frozen=True)
class Overhead:
    """What the diagnostics of one task sequence cost.

    Attributes:
        sequence: "permuted_pixels" or "class_pairs".
        lanes: seeds looked into together.
        images: of each lane that a look took: fewer than were asked for where a task has no more.
        units_seconds, curvature_seconds: of one look.
        earlier_seconds: of asking for one earlier task.
        seconds: all looks of the sequence together.
        training: seconds of training on the sequence, by method, at the speeds that were measured.
    """

    sequence: str
    lanes: int
    images: int
    units_seconds: float
    curvature_seconds: float
    earlier_seconds: float
    seconds: float
    training: Mapping[str, float]


def overhead(dataset: Dataset, sequence: str, lanes: int, device: str, speeds: Mapping[str, float]) -> Overhead:
    """Times the looks of one task sequence of the paper's network.

    Args:
        dataset: on the CPU.
        sequence: see `PAPER`.
        lanes: seeds at once.
        device: "cpu" or "cuda".
        speeds: images a second over all lanes, by method.
    """
    off = Diagnostics(units_every=0, curvature_every=0, forgetting_every=0)
    (units, images), (curvature, _), (earlier, _) = (
        _look(dataset, sequence, lanes, device, off.model_copy(update={name: 1}))
        for name in ("units_every", "curvature_every", "forgetting_every")
    )
    earlier /= 2  # the first task is asked for by itself, and again as one of those before
    plan = PAPER[sequence]
    asked = plan.diagnostics
    total = (
        units * len(due(plan.tasks, asked.units_every))
        + curvature * len(due(plan.tasks, asked.curvature_every))
        + earlier * sum(index + 1 for index in due(plan.tasks, asked.forgetting_every))
    )
    training = {method: plan.tasks * plan.images * lanes / speed for method, speed in speeds.items()}
    return Overhead(sequence, lanes, images, units, curvature, earlier, total, training)


def _look(dataset: Dataset, sequence: str, lanes: int, device: str, asked: Diagnostics) -> tuple[float, int]:
    """Seconds of the looks after a second task, the first one having paid for what is made once; and images of a lane."""
    tasks: dict[str, str | int] = {"name": sequence, "count": 3}
    if len(dataset.train_labels) >= LARGE:
        tasks["images_per_task"] = asked.images
    config = TrialConfig.from_plain(
        {
            "data": {"name": dataset.name},
            "tasks": tasks,
            "model": {"name": "mlp", "widths": [100, 100]},
            "optimizer": OPTIMIZERS["sgd"] | {"lr": 0.1},
            "training": {"device": device},
            "diagnostics": asked.plain(),
            "seeds": list(range(lanes)),
        }
    )
    experiment = build(config, dataset)
    results = train(experiment)
    seconds = [next(results).diagnostics_seconds for _ in range(2)][1]
    return seconds, min(asked.images, experiment.tasks.task(1).train.shape[1])
