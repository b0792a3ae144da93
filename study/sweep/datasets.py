"""What the trials of a plan are made of: their data sets and task sequences, all built before the first trial starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from study import experiment, parts
from study.config import TrialConfig
from study.contracts import Dataset
from study.errors import StudyError
from study.sweep.plan import Plan, extremes

DatasetSource = Callable[[TrialConfig, Path], Dataset]
"""Where the data set of a trial comes from, given the folder of downloaded ones."""


@dataclass(frozen=True)
class Material:
    """What the trials of a plan are made of.

    Attributes:
        task_counts: number of tasks of each scenario.
        datasets: every data set that a trial names, on the CPU, by `data_key`.
    """

    task_counts: dict[str, int]
    datasets: dict[str, Dataset]


def data_key(config: TrialConfig) -> str:
    """What a trial asks for as its data set, as text."""
    return json.dumps(config.data.model_dump(), sort_keys=True)


def load(plan: Plan, data_dir: Path, dataset_of: DatasetSource = experiment.load_dataset) -> Material:
    """Loads what the trials need and builds every different task sequence.

    Args:
        plan: of the trials.
        data_dir: folder of downloaded data sets.
        dataset_of: where a trial's data set comes from, see `found_or_stand_in`.

    Raises:
        StudyError: a data set is not to be had, or has fewer tasks or images than asked for, or trials of one scenario
            have different numbers of tasks.
    """
    material = Material({}, {})
    seen: dict[str, int] = {}
    for group in plan.groups:
        for point in extremes(group):
            config = plan.trial_config(group, point)
            dataset = dataset_of(config, data_dir)
            material.datasets[data_key(config)] = dataset
            what = json.dumps([config.data.model_dump(), config.tasks.model_dump()], sort_keys=True)
            if what not in seen:
                seen[what] = experiment.build_tasks(config, dataset).count
            count = material.task_counts.setdefault(group.scenario, seen[what])
            if count != seen[what]:
                raise StudyError(
                    f"The trials of {group.scenario} must have equally many tasks to be compared, but tasks/count is "
                    f"{count} in some and {seen[what]} in others; make two scenarios of them."
                )
    return material


def missing(config: TrialConfig, data_dir: Path) -> bool:
    """Whether a trial's data set would have to be downloaded first."""
    files = getattr(parts.find("data", config.data.name), "files", None)
    return files is not None and not files(data_dir).is_dir()


def found_or_stand_in(config: TrialConfig, data_dir: Path) -> Dataset:
    """A trial's data set, or noise of its shape where it would have to be downloaded first.

    Raises:
        StudyError: it is damaged, or not there and without a stand-in.
    """
    if not missing(config, data_dir):
        return experiment.load_dataset(config, data_dir)
    stand_in: Callable[[], Dataset] | None = getattr(parts.find("data", config.data.name), "stand_in", None)
    if stand_in is None:
        raise StudyError(
            f"The data set {config.data.name!r} is not in {str(data_dir)!r}, and nothing can stand in for it."
        )
    return stand_in()
