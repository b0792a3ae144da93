"""What the trials of a plan are made of: their data sets and task sequences, all built before the first trial starts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from study import experiment
from study.config import StudyError, TrialConfig
from study.contracts import Dataset
from study.plan import Plan
from study.planning import ends


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


def load(plan: Plan, data_dir: Path) -> Material:
    """Loads what the trials need and builds every different task sequence.

    Raises:
        StudyError: a data set is not to be had, or has fewer tasks or images than asked for, or trials of one scenario
            have different numbers of tasks.
    """
    material = Material({}, {})
    seen: dict[str, int] = {}
    for group in plan.groups:
        for point in [*group.points, *(ends(group) if group.distributions else [])]:
            config = plan.trial_config(group, point)
            dataset = experiment.load_dataset(config, data_dir)
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
