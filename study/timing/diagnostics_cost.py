"""What diagnostics cost beside training, in the paper's sequences.

Each kind of diagnostics is timed by itself, and the times are added up as often as a sequence asks for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from study.config import Diagnostics
from study.contracts import Dataset
from study.timing import speed
from study.timing.side_by_side import BATCH_SIZE, WIDTHS
from study.timing.speed import DIAGNOSTICS

LARGE = 20_000
"""From this many training images on, a data set's tasks are cut down to the images of the diagnostics' sample."""


@dataclass(frozen=True)
class Sequence:
    """A task sequence of the paper.

    Attributes:
        tasks: their number.
        images: training images of a task, in each lane.
        diagnostics: how often each kind is due.
    """

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
        lanes: seeds that are diagnosed together.
        images: of each lane that were used: fewer than were asked for where a task has no more.
        units_seconds, curvature_seconds, onset_seconds: of diagnosing once.
        earlier_seconds: of evaluating one earlier task again.
        seconds: of all diagnostics of the sequence together.
        training: seconds of training on the sequence, by method, at the measured speeds.
    """

    sequence: str
    lanes: int
    images: int
    units_seconds: float
    curvature_seconds: float
    earlier_seconds: float
    onset_seconds: float
    seconds: float
    training: Mapping[str, float]


def overhead(
    dataset: Dataset, sequence: str, lanes: int, device: str, speeds: Mapping[str, float], repeats: int = 2
) -> Overhead:
    """Times the diagnostics of one of the paper's sequences.

    Args:
        dataset: on the CPU.
        sequence: a key of `PAPER`.
        lanes: seeds at once.
        device: "cpu" or "cuda".
        speeds: images a second over all lanes, by method.
        repeats: how often each kind is computed; the last counts. A single one includes what is made once.
    """
    seconds, images = _measured(dataset, sequence, lanes, device, repeats)
    plan = PAPER[sequence]
    total = sum(seconds[kind] * speed.diagnostics_count(plan.tasks, plan.diagnostics, kind) for kind in DIAGNOSTICS)
    training = {method: plan.tasks * plan.images * lanes / rate for method, rate in speeds.items()}
    units, curvature, earlier, onset = (seconds[kind] for kind in DIAGNOSTICS)
    return Overhead(sequence, lanes, images, units, curvature, earlier, onset, total, training)


def _measured(
    dataset: Dataset, sequence: str, lane_count: int, device: str, repeats: int
) -> tuple[dict[str, float], int]:
    """Seconds of each kind of diagnostics after a second task.

    And how many images of a lane they used.
    """
    asked = Diagnostics()
    tasks: dict[str, str | int] = {"name": sequence, "count": 3}
    if len(dataset.train_labels) >= LARGE:
        tasks["images_per_task"] = asked.images
    optimizer = {"name": "sgd", "lr": 0.1}
    lanes = speed.lanes_of(dataset, "sgd", lane_count, WIDTHS, BATCH_SIZE, device, tasks=tasks, optimizer=optimizer)
    params = lanes.trained(2)
    seconds = {kind: lanes.diagnostics_seconds(kind, params, repeats) for kind in DIAGNOSTICS}
    return seconds, min(asked.images, lanes.experiment.tasks.task(1).train.shape[1])
