"""What a sweep has to say about the paper's own settings, and how far its experiment is the paper's.

The paper states its data set, the number of tasks, three fully connected layers, the methods, two learning rates and lambda. What
it leaves open is filled in by assumptions, which `search_spaces.paper_grid` and the README hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from analysis import load
from analysis.load import Sweep
from search_spaces.paper_grid import POINTS, SPACE

PIXELS: Final = "permuted_pixels"
PAIRS: Final = "class_pairs"


@dataclass(frozen=True, order=True)
class Setting:
    """One of the paper's settings: a task sequence, a method and a learning rate."""

    tasks: str
    method: str
    lr: float

    def __str__(self) -> str:
        return f"{self.method} lr={self.lr:g} on {self.tasks}"


@dataclass(frozen=True)
class Evidence:
    """What a sweep has to say about the paper's settings.

    Attributes:
        sweep: its name.
        accuracy: test accuracy of each setting, a share, [task, seed]: index task, columns seed.
        run_ids: MLflow's run of each setting.
        stated: departures from what the paper states; with one of them no verdict is given.
        assumed: departures from what the study assumes where the paper says nothing.
    """

    sweep: str
    accuracy: Mapping[Setting, pd.DataFrame]
    run_ids: Mapping[Setting, str]
    stated: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()


def gather(sweep: Sweep) -> Evidence:
    """The paper's settings among the finished trials of a sweep; of several scenarios of one kind the first is taken."""
    accuracy: dict[Setting, pd.DataFrame] = {}
    run_ids: dict[Setting, str] = {}
    stated: dict[str, None] = {}
    assumed: dict[str, None] = {}
    for run in load.rows(sweep.finished):
        setting = paper_setting(run)
        if setting is None or setting in accuracy:
            continue
        accuracy[setting] = sweep.accuracy(run["run_id"])
        run_ids[setting] = run["run_id"]
        for departures, found in zip((stated, assumed), _departures(run), strict=True):
            departures.update(dict.fromkeys(found))
    return Evidence(sweep.name, accuracy, run_ids, tuple(stated), tuple(assumed))


def paper_setting(run: Mapping[str, Any]) -> Setting | None:
    """Which of the paper's settings a run of `Sweep.runs` is; None when it is none of them."""
    method, tasks = run["optimizer/name"], run["tasks/name"]
    acts = [name for name in run if name.startswith("interventions/") and not _is_nan(run[name])]
    if acts or tasks not in SPACE.scenarios or run["optimizer/momentum"] or run["optimizer/weight_decay"]:
        return None
    for point in POINTS.get(method, ()):
        if all(run.get(name) == value for name, value in point.items()):
            return Setting(tasks, method, point["optimizer/lr"])
    return None


def _departures(run: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Where a run differs from what the paper states, and from what is assumed where it says nothing."""
    settings = SPACE.settings
    count = SPACE.scenarios[run["tasks/name"]]["tasks/count"]
    stated = []
    if run["data/name"] != settings["data/name"]:
        stated.append(f"{run['data/name']} instead of {settings['data/name']}")
    if run["tasks"] != count:
        stated.append(f"{run['tasks']} tasks of {run['tasks/name']} instead of {count}")
    if len(run["model/widths"]) != len(settings["model/widths"]):
        stated.append(f"{len(run['model/widths']) + 1} fully connected layers instead of three")
    assumed = [
        f"`{name}` is {_short(run[name])} instead of {_short(value)}"
        for name, value in {**settings, "tasks/images_per_task": None}.items()
        if name != "data/name" and run[name] != value and not (value is None and _is_nan(run[name]))
    ]
    return stated, assumed


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_nan(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
