"""A sweep's results at the paper's settings, and its departures.

The paper states its data set, the number of tasks, three fully connected layers, the methods, two learning rates and lambda.
Assumptions fill in what it leaves open; they are in `search_spaces.paper_grid` and `study/docs/faq.md`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

import pandas as pd

from analysis import load
from analysis.load import Sweep
from search_spaces.paper_grid import POINTS, SPACE, is_of_the_paper
from study.config import DEFAULT_PARTS, later_settings

PIXELS: Final = "permuted_pixels"
PAIRS: Final = "class_pairs"


@dataclass(frozen=True, order=True)
class Setting:
    """One of the paper's settings: tasks, method, learning rate."""

    tasks: str
    method: str
    lr: float

    def __str__(self) -> str:
        return f"{self.method} lr={self.lr:g} on {self.tasks}"


Runs = dict[Setting, Mapping[str, Any]]
"""A row of `Sweep.runs` per setting."""


@dataclass(frozen=True)
class Evidence:
    """A sweep's results at the paper's settings.

    Attributes:
        sweep: its name.
        accuracy: test accuracy of each setting, a share, [task, seed]: index task, columns seed.
        run_ids: MLflow's run of each setting.
        stated: departures from what the paper states; with any of them, no verdict is given.
        assumed: departures from the study's assumptions where the paper says nothing.
        diverged: diverged lanes of each setting that has any; they count at chance accuracy.
        passed_over: finished trials of the paper's settings that are not used, and why.
    """

    sweep: str
    accuracy: Mapping[Setting, pd.DataFrame]
    run_ids: Mapping[Setting, str]
    stated: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    diverged: Mapping[Setting, int] = field(default_factory=dict)
    passed_over: tuple[str, ...] = ()


PARTS: Final = ("data", "model", "tasks")
"""The parts that decide whether a sweep is about the paper."""


def is_about_the_paper(sweep: Sweep) -> bool:
    """Whether any trial has the paper's data, network and tasks.

    How many tasks, layers or images they are is left to `gather`.
    """
    return any(is_of_the_paper(dict(zip(names, values, strict=True))) for names, values in _parts(sweep))


def _parts(sweep: Sweep) -> Iterator[tuple[list[str], tuple[str, ...]]]:
    """The parts that a sweep's trials may combine."""
    names = [f"{part}/name" for part in PARTS]
    for group in sweep.plan["groups"]:
        yield from ((names, values) for values in product(*(parts_of(group, part) for part in PARTS)))


def parts_of(group: Mapping[str, Any], part: str) -> list[str]:
    """The names of a section's part in a group's trials.

    Args:
        group: of a plan, as plain data.
        part: the section, such as "data".
    """
    name = f"{part}/name"
    drawn = json.loads(group["distributions"][name])["attributes"]["choices"] if name in group["distributions"] else []
    tried = [point[name] for point in group["points"] if name in point]
    return list(dict.fromkeys([*drawn, *tried])) or [str(group["settings"].get(name, DEFAULT_PARTS[part]))]


def gather(sweep: Sweep) -> Evidence:
    """Collects the paper's settings among a sweep's finished trials.

    Settings of one task sequence are compared with each other, so all come from trials that share every setting but the
    optimizer's. If a sweep has several such experiments, the one with the fewest departures from what the paper states is used,
    then the one with the most settings, then the one with the fewest departures from the assumptions, then the first.
    """
    experiments: dict[str, dict[tuple[str, ...], Runs]] = {}
    passed_over = []
    for run in load.rows(sweep.finished):
        setting = paper_setting(run)
        if setting is None:
            continue
        experiment = experiments.setdefault(setting.tasks, {}).setdefault(_conditions(run), {})
        if setting in experiment:
            passed_over.append(f"{run['trial']}: {experiment[setting]['trial']} has the same settings")
        else:
            experiment[setting] = run
    chosen: Runs = {}
    for candidates in experiments.values():
        first, *others = sorted(candidates.values(), key=_distance)
        chosen |= first
        name = next(iter(first.values()))["trial"]
        passed_over += [
            f"{other['trial']}: an experiment that cannot be compared with {name}"
            for experiment in others
            for other in experiment.values()
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
    """What compared runs must share.

    All settings but the optimizer's and the device. A setting that is off counts as one that an older run does not have.
    """
    groups = ("data/", "tasks/", "model/", "training/")
    return tuple(
        f"{name}={run[name]}"
        for name in sorted(run)
        if name.startswith(groups) and name != "training/device" and run[name] is not None and run[name] is not False
    )


def _distance(runs: Runs) -> tuple[int, int, int]:
    """Distance of an experiment from the paper's; smaller is closer.

    Departures from the paper, minus the number of settings, departures from the assumptions.
    """
    departures = [_departures(run) for run in runs.values()]
    return max(len(stated) for stated, _ in departures), -len(runs), max(len(assumed) for _, assumed in departures)


def paper_setting(run: Mapping[str, Any]) -> Setting | None:
    """The paper's setting that a run has; None if none."""
    method, tasks = run.get("optimizer/name"), run.get("tasks/name")
    acts = [name for name in run if name.startswith("interventions/") and not _is_nan(run[name])]
    if acts or tasks not in SPACE.scenarios or run.get("optimizer/momentum") or run.get("optimizer/weight_decay"):
        return None
    later = {name: value for name, value in later_settings(run).items() if name.startswith("optimizer/")}
    if any(not _is_nan(run.get(name)) and run[name] != value for name, value in later.items()):
        return None
    for point in POINTS.get(str(method), ()):
        if all(run.get(name) == value for name, value in point.items()):
            return Setting(str(tasks), str(method), point["optimizer/lr"])
    return None


def _departures(run: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """A run's departures from the paper and from the assumptions."""
    settings = {**SPACE.settings, "tasks/images_per_task": None}
    count = SPACE.scenarios[run["tasks/name"]]["tasks/count"]
    stated = []
    if run["data/name"] != settings["data/name"]:
        stated.append(f"{run['data/name']} instead of {settings['data/name']}")
    if run["tasks"] != count:
        stated.append(f"{run['tasks']} tasks of {run['tasks/name']} instead of {count}")
    if not _is_nan(run.get("tasks/change")):
        stated.append(
            f"permutations that change at a share of {run['tasks/change']:g} of the pixels instead of new ones"
        )
    widths, covered = run.get("model/widths"), {"data/name", "model/name"}
    if run["model/name"] != settings["model/name"] or not isinstance(widths, Sequence):
        stated.append(f"the model {run['model/name']} instead of three fully connected layers")
        covered.add("model/widths")
    elif len(widths) != len(settings["model/widths"]):
        stated.append(f"fully connected layers: {len(widths) + 1} instead of three")
        covered.add("model/widths")
    activation, norm = run.get("model/activation"), run.get("model/layer_norm")
    if not _is_nan(activation) and activation != "relu":
        stated.append(f"units that are {activation} instead of ReLU")
    if not _is_nan(norm) and norm != "none":
        stated.append(f"layer norm ({norm}), of which the paper has no word")
    if not _is_nan(run.get("model/initialisation")):
        settings["model/initialisation"] = "torch"
    assumed = [
        f"`{name}` is {_short(run.get(name))} instead of {_short(value)}"
        for name, value in settings.items()
        if name not in covered and run.get(name) != value and not (value is None and _is_nan(run.get(name)))
    ]
    return stated, assumed


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_nan(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
