"""What a sweep has to say about the paper's own settings, and how far its experiment is the paper's.

The paper states its data set, the number of tasks, three fully connected layers, the methods, two learning rates and lambda. What
it leaves open is filled in by assumptions, which `search_spaces.paper_grid` and `study/docs/faq.md` hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


Runs = dict[Setting, Mapping[str, Any]]
"""A row of `Sweep.runs` for each setting."""


@dataclass(frozen=True)
class Evidence:
    """What a sweep has to say about the paper's settings.

    Attributes:
        sweep: its name.
        accuracy: test accuracy of each setting, a share, [task, seed]: index task, columns seed.
        run_ids: MLflow's run of each setting.
        stated: departures from what the paper states; with one of them no verdict is given.
        assumed: departures from what the study assumes where the paper says nothing.
        diverged: how many lanes of a setting diverged, where any did; they count at chance accuracy.
        passed_over: finished trials of the paper's settings that are not among these, and why.
    """

    sweep: str
    accuracy: Mapping[Setting, pd.DataFrame]
    run_ids: Mapping[Setting, str]
    stated: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    diverged: Mapping[Setting, int] = field(default_factory=dict)
    passed_over: tuple[str, ...] = ()


def gather(sweep: Sweep) -> Evidence:
    """The paper's settings among the finished trials of a sweep.

    Settings of one task sequence are compared with each other, so all are taken from trials that share every setting but the
    optimizer's. Where a sweep has several such experiments it is the one with the fewest departures from what the paper states,
    then the one with the most settings, then the one with the fewest departures from the assumptions, then the first.
    """
    experiments: dict[str, dict[tuple[str, ...], Runs]] = {}
    passed_over = []
    for run in load.rows(sweep.finished):
        setting = paper_setting(run)
        if setting is None:
            continue
        found = experiments.setdefault(setting.tasks, {}).setdefault(_conditions(run), {})
        if setting in found:
            passed_over.append(f"{run['trial']}: {found[setting]['trial']} has the same settings")
        else:
            found[setting] = run
    chosen: Runs = {}
    for candidates in experiments.values():
        first, *others = sorted(candidates.values(), key=_distance)
        chosen |= first
        name = next(iter(first.values()))["trial"]
        passed_over += [
            f"{other['trial']}: an experiment that cannot be compared with {name}"
            for found in others
            for other in found.values()
        ]
    departures = [_departures(run) for run in chosen.values()]
    return Evidence(
        sweep=sweep.name,
        accuracy={setting: sweep.accuracy(run["run_id"]) for setting, run in chosen.items()},
        run_ids={setting: run["run_id"] for setting, run in chosen.items()},
        stated=tuple(dict.fromkeys(sentence for stated, _ in departures for sentence in stated)),
        assumed=tuple(dict.fromkeys(sentence for _, assumed in departures for sentence in assumed)),
        diverged={
            setting: int(run["summary/lanes_diverged"])
            for setting, run in chosen.items()
            if run["summary/lanes_diverged"]
        },
        passed_over=tuple(passed_over),
    )


def _conditions(run: Mapping[str, Any]) -> tuple[str, ...]:
    """Everything that a run shares with those that it is compared with: all settings but the optimizer's and the device."""
    groups = ("data/", "tasks/", "model/", "training/")
    return tuple(f"{name}={run[name]}" for name in sorted(run) if name.startswith(groups) and name != "training/device")


def _distance(runs: Runs) -> tuple[int, int, int]:
    """Departures from the paper, settings that are there (counted down), departures from the assumptions: less is nearer."""
    departures = [_departures(run) for run in runs.values()]
    return max(len(stated) for stated, _ in departures), -len(runs), max(len(assumed) for _, assumed in departures)


def paper_setting(run: Mapping[str, Any]) -> Setting | None:
    """Which of the paper's settings a run of `Sweep.runs` is; None when it is none of them."""
    method, tasks = run.get("optimizer/name"), run.get("tasks/name")
    acts = [name for name in run if name.startswith("interventions/") and not _is_nan(run[name])]
    if acts or tasks not in SPACE.scenarios or run.get("optimizer/momentum") or run.get("optimizer/weight_decay"):
        return None
    for point in POINTS.get(str(method), ()):
        if all(run.get(name) == value for name, value in point.items()):
            return Setting(str(tasks), str(method), point["optimizer/lr"])
    return None


def _departures(run: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Where a run differs from what the paper states, and from what is assumed where it says nothing."""
    settings = {**SPACE.settings, "tasks/images_per_task": None}
    count = SPACE.scenarios[run["tasks/name"]]["tasks/count"]
    stated = []
    if run["data/name"] != settings["data/name"]:
        stated.append(f"{run['data/name']} instead of {settings['data/name']}")
    if run["tasks"] != count:
        stated.append(f"{run['tasks']} tasks of {run['tasks/name']} instead of {count}")
    widths, known = run.get("model/widths"), {"data/name", "model/name"}
    if run["model/name"] != settings["model/name"] or not isinstance(widths, Sequence):
        stated.append(f"the model {run['model/name']} instead of three fully connected layers")
        known.add("model/widths")
    elif len(widths) != len(settings["model/widths"]):
        stated.append(f"fully connected layers: {len(widths) + 1} instead of three")
        known.add("model/widths")
    assumed = [
        f"`{name}` is {_short(run.get(name))} instead of {_short(value)}"
        for name, value in settings.items()
        if name not in known and run.get(name) != value and not (value is None and _is_nan(run.get(name)))
    ]
    return stated, assumed


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_nan(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
