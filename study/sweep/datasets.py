"""The data sets and task sequences of a plan.

All of them are loaded and built before the first trial starts, so that one that cannot be built is found in time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from study import experiment, parts
from study.config import TrialConfig
from study.contracts import Dataset
from study.errors import StudyError
from study.sweep.plan import Plan, corners

DatasetSource = Callable[[TrialConfig, Path], Dataset]
"""Returns the data set of a trial, given the folder of downloaded data sets."""


@dataclass(frozen=True)
class Material:
    """The data sets and numbers of tasks of a plan.

    Attributes:
        task_counts: number of tasks of each scenario.
        datasets: every data set that a trial names, on the CPU, by `data_key`.
    """

    task_counts: dict[str, int]
    datasets: dict[str, Dataset]


def data_key(config: TrialConfig) -> str:
    """A text that identifies the data set of a trial."""
    return json.dumps(config.data.model_dump(), sort_keys=True)


def load(
    plan: Plan, data_dir: Path, dataset_of: DatasetSource = experiment.load_dataset, *, trained_here: bool = True
) -> Material:
    """Loads the data sets and builds the task sequences.

    Args:
        plan: of the trials.
        data_dir: folder of downloaded data sets.
        dataset_of: returns the data set of a trial; another choice is `found_or_stand_in`.
        trained_here: whether this machine trains them, so that its memory must hold them.

    Raises:
        StudyError: a data set cannot be loaded or downloaded, has too few tasks or images, a trial is too large for this
            machine, an intervention needs units that the network has not, or trials of one scenario have different numbers of
            tasks.
    """
    material = Material({}, {})
    task_counts: dict[str, int] = {}  # of each different task sequence
    for group in plan.groups:
        for point in corners(group):
            config = plan.trial_config(group, point)
            dataset = dataset_of(config, data_dir)
            material.datasets[data_key(config)] = dataset
            if trained_here:
                experiment.check_memory(config, dataset)
            sequence = json.dumps([config.data.model_dump(), config.tasks.model_dump()], sort_keys=True)
            if sequence not in task_counts:
                task_counts[sequence] = experiment.build_tasks(config, dataset).count
            experiment.check_acting(config, dataset, task_counts[sequence])
            count = material.task_counts.setdefault(group.scenario, task_counts[sequence])
            if count != task_counts[sequence]:
                raise StudyError(
                    f"The trials of {group.scenario} must have equally many tasks to be compared, but tasks/count is "
                    f"{count} in some and {task_counts[sequence]} in others; make two scenarios of them."
                )
    return material


def missing(config: TrialConfig, data_dir: Path) -> bool:
    """Whether a trial's data set has yet to be downloaded."""
    files = getattr(parts.find("data", config.data.name), "files", None)
    return files is not None and not files(data_dir).is_dir()


def found_or_stand_in(config: TrialConfig, data_dir: Path) -> Dataset:
    """Returns a trial's data set, or noise of its shape.

    Noise stands in for a data set that has yet to be downloaded.

    Raises:
        StudyError: it is damaged, or has yet to be downloaded and has no stand-in.
    """
    if not missing(config, data_dir):
        return experiment.load_dataset(config, data_dir)
    stand_in: Callable[[], Dataset] | None = getattr(parts.find("data", config.data.name), "stand_in", None)
    if stand_in is None:
        raise StudyError(
            f"The data set {config.data.name!r} is not in {str(data_dir)!r}, and nothing can stand in for it."
        )
    return stand_in()
