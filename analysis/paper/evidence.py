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
from search_spaces.paper_grid import OPEN, POINTS, SPACE, is_of_the_paper
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


@dataclass(frozen=True)
class Assumption:
    """The paper's settings under another assumption.

    Attributes:
        label: what differs from the sweep's main experiment, in words.
        settings: the settings that differ, with their values here, by slash name.
        evidence: the results.
    """

    label: str
    settings: Mapping[str, Any]
    evidence: Evidence


def gather(sweep: Sweep) -> Evidence:
    """Collects the paper's settings among a sweep's finished trials.

    Settings of one task sequence are compared with each other, so all come from trials that share every setting but the
    optimizer's. If a sweep has several such experiments, the one with the fewest departures from what the paper states is used,
    then the one with the most settings, then the one with the fewest departures from the assumptions, then the first.
    """
    sorted_runs = _sorted(sweep)
    return _evidence(sweep, sorted_runs.main, sorted_runs.passed_over)


def under_assumptions(sweep: Sweep) -> tuple[Assumption, ...]:
    """The paper's settings under other assumptions than those of `gather`.

    An experiment that departs from that of `gather` in nothing that the paper states is the same under another assumption. No
    trial is in both but those of methods without the setting in question, such as SGD where SAM's rho differs.
    """
    sorted_runs = _sorted(sweep)
    return tuple(
        Assumption(label, settings, _evidence(sweep, runs, ()))
        for label, (settings, runs) in sorted_runs.others.items()
    )


@dataclass(frozen=True)
class _Sorted:
    """The runs of a sweep that have the paper's settings.

    Attributes:
        main: those of the main experiment.
        others: what differs under another assumption, and the runs there, by what it is in words.
        passed_over: see `Evidence`.
    """

    main: Runs
    others: dict[str, tuple[dict[str, Any], Runs]]
    passed_over: tuple[str, ...]


def _sorted(sweep: Sweep) -> _Sorted:
    found: dict[str, list[_Experiment]] = {}
    passed_over: list[str] = []
    for run in load.rows(sweep.finished):
        setting = paper_setting(run)
        if setting is None:
            continue
        conditions = _conditions(run)
        experiments = found.setdefault(setting.tasks, [])
        if all(experiment.conditions != conditions for experiment in experiments):
            experiments.append(_Experiment(conditions))
        experiment = next(one for one in experiments if one.conditions == conditions)
        own = experiment.runs.setdefault((setting.method, _open_value(run)), {})
        if setting in own:
            passed_over.append(f"{run['trial']}: {own[setting]['trial']} has the same settings")
        else:
            own[setting] = run
    main: Runs = {}
    others: dict[str, tuple[dict[str, Any], Runs]] = {}
    for experiments in found.values():
        first, *rest = sorted(experiments, key=lambda experiment: _distance(experiment.main))
        main |= first.main
        for differences, runs in [*first.varied(), *_compared(first, rest)]:
            others.setdefault(_label(differences), (differences, {}))[1].update(runs)
        name = next(iter(first.main.values()))["trial"]
        passed_over += [
            f"{run['trial']}: an experiment that cannot be compared with {name}"
            for experiment in rest
            if not _is_comparable(first, experiment)
            for run in experiment.all_runs
        ]
    return _Sorted(main, others, tuple(passed_over))


Conditions = dict[str, Any]
"""Settings that compared runs share, by slash name."""


@dataclass
class _Experiment:
    """The runs of one task sequence under the same conditions.

    Attributes:
        conditions: what they share.
        runs: by method and value of the setting that the paper leaves open for it.
    """

    conditions: Conditions
    runs: dict[tuple[str, Any], Runs] = field(default_factory=dict)

    @property
    def main(self) -> Runs:
        """For each method, the runs with the study's value.

        Without any, those with the value that has the most settings, then the first.
        """
        return {setting: run for method in self._methods for setting, run in self.runs[self._usual(method)].items()}

    @property
    def all_runs(self) -> list[Mapping[str, Any]]:
        """Every run."""
        return [run for runs in self.runs.values() for run in runs.values()]

    def varied(self) -> Iterator[tuple[dict[str, Any], Runs]]:
        """Other values of the settings that the paper leaves open.

        Yields the setting and the runs: those of one method with that value, and the main ones of the other methods.
        """
        for method, value in self.runs:
            if (method, value) != self._usual(method):
                others = {setting: run for setting, run in self.main.items() if setting.method != method}
                yield {OPEN[method]: value}, others | self.runs[method, value]

    @property
    def _methods(self) -> list[str]:
        return list(dict.fromkeys(method for method, _ in self.runs))

    def _usual(self, method: str) -> tuple[str, Any]:
        values = [key for key in self.runs if key[0] == method]
        assumed = (method, POINTS[method][0].get(OPEN.get(method, "")))
        return assumed if assumed in values else max(values, key=lambda key: len(self.runs[key]))


def _is_comparable(first: _Experiment, other: _Experiment) -> bool:
    """Whether two experiments are the same in all that the paper states."""
    stated = [_departures(next(iter(experiment.main.values())))[0] for experiment in (first, other)]
    return stated[0] == stated[1]


def _compared(first: _Experiment, others: Sequence[_Experiment]) -> Iterator[tuple[dict[str, Any], Runs]]:
    """What comparable experiments differ in from the first, and their runs."""
    for other in others:
        if not _is_comparable(first, other):
            continue
        names = sorted({*first.conditions, *other.conditions})
        differences = {
            name: other.conditions.get(name)
            for name in names
            if first.conditions.get(name) != other.conditions.get(name)
        }
        usual = {key: value for key, value in first.main.items() if key in other.main}
        for setting, run in other.main.items():
            own = OPEN.get(setting.method)
            if own and setting in usual and run[own] != usual[setting][own]:
                differences[own] = run[own]
        yield differences, other.main
        for further, runs in other.varied():
            yield differences | further, runs


def _evidence(sweep: Sweep, runs: Runs, passed_over: Sequence[str]) -> Evidence:
    departures = [_departures(run) for run in runs.values()]
    return Evidence(
        sweep=sweep.name,
        accuracy={setting: sweep.accuracy(run["run_id"]) for setting, run in runs.items()},
        run_ids={setting: run["run_id"] for setting, run in runs.items()},
        stated=tuple(dict.fromkeys(sentence for stated, _ in departures for sentence in stated)),
        assumed=tuple(dict.fromkeys(sentence for _, assumed in departures for sentence in assumed)),
        diverged={
            setting: int(run["summary/lanes_diverged"])
            for setting, run in runs.items()
            if run["summary/lanes_diverged"]
        },
        passed_over=tuple(passed_over),
    )


WORDS: Final = {
    "training/pixels": "{} pixels",
    "training/batch_size": "batch size {}",
    "training/passes": "{} passes",
    "tasks/images_per_task": "{} images a task",
    "optimizer/rho": "SAM with rho {}",
    "optimizer/r": "GNP with r {}",
}
"""Settings that differ, for people; others are shown as `name = value`."""


def _label(differences: Mapping[str, Any]) -> str:
    """What differs, in words."""
    return " and ".join(_worded(name, value) for name, value in differences.items())


def _worded(name: str, value: Any) -> str:
    if name == "model/widths" and isinstance(value, Sequence):
        return f"hidden layers of {'-'.join(map(str, value))}"
    if (name, value) == ("model/initialisation", "kaiming"):
        return "Kaiming's initialisation"
    if name == "optimizer/r" and value:
        lam = float(POINTS["gnp"][0]["optimizer/lambda"])
        return f"GNP with r {value:g}, a blend of {lam / value:g}"
    shown = f"{value:g}" if isinstance(value, float) else "all" if value is None else str(value)
    return WORDS[name].format(shown) if name in WORDS else f"{name} = {shown}"


def _conditions(run: Mapping[str, Any]) -> Conditions:
    """What compared runs must share.

    All settings but the optimizer's and the device. A setting that is off counts as one that an older run does not have.
    """
    groups = ("data/", "tasks/", "model/", "training/")
    return {
        name: run[name]
        for name in sorted(run)
        if name.startswith(groups) and name != "training/device" and not _is_off(run[name])
    }


def _is_off(value: object) -> bool:
    return value is False or _is_nan(value)


def _open_value(run: Mapping[str, Any]) -> Any:
    """The value of the method's setting that the paper leaves open."""
    name = OPEN.get(run["optimizer/name"])
    return run[name] if name else None


def _distance(runs: Runs) -> tuple[int, int, int]:
    """Distance of an experiment from the paper's; smaller is closer.

    Departures from the paper, minus the number of settings, departures from the assumptions.
    """
    departures = [_departures(run) for run in runs.values()]
    return max(len(stated) for stated, _ in departures), -len(runs), max(len(assumed) for _, assumed in departures)


def paper_setting(run: Mapping[str, Any]) -> Setting | None:
    """The paper's setting that a run has; None if none.

    What the paper leaves open, SAM's rho and GNP's r, may have any value that is not negative.
    """
    method, tasks = str(run.get("optimizer/name")), run.get("tasks/name")
    acts = [name for name in run if name.startswith("interventions/") and not _is_nan(run[name])]
    if acts or tasks not in SPACE.scenarios or run.get("optimizer/momentum") or run.get("optimizer/weight_decay"):
        return None
    later = {name: value for name, value in later_settings(run).items() if name.startswith("optimizer/")}
    if any(not _is_nan(run.get(name)) and run[name] != value for name, value in later.items()):
        return None
    own = OPEN.get(method)
    if own and not (isinstance(run.get(own), int | float) and run[own] >= 0):
        return None
    for point in POINTS.get(method, ()):
        if all(run.get(name) == value for name, value in point.items() if name != own):
            return Setting(str(tasks), method, point["optimizer/lr"])
    return None


READINGS: Final = (2, 3)
"""Numbers of hidden layers that "three fully connected layers" may mean, the study's first."""


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
    elif len(widths) not in READINGS:
        stated.append(f"fully connected layers: {len(widths) + 1} instead of three")
        covered.add("model/widths")
    activation, norm = run.get("model/activation"), run.get("model/layer_norm")
    if not _is_nan(activation) and activation != "relu":
        stated.append(f"units that are {activation} instead of ReLU")
    if not _is_nan(norm) and norm != "none":
        stated.append(f"layer norm ({norm}), of which the paper has no word")
    method = run["optimizer/name"]
    if method in OPEN:
        settings[OPEN[method]] = POINTS[method][0][OPEN[method]]
    if not _is_nan(run.get("model/initialisation")):
        settings["model/initialisation"] = "torch"
    assumed = [
        f"`{name}` is {_short(run.get(name))} instead of {_short(value)}"
        for name, value in settings.items()
        if name not in covered and run.get(name) != value and not (value is None and _is_nan(run.get(name)))
    ]
    return stated, assumed


def _short(value: object) -> str:
    if _is_nan(value):
        return "not set"
    if isinstance(value, float):  # a column in which a whole number is missing has floats
        return f"{value:.0f}" if value.is_integer() else f"{value:.4g}"
    return str(value)


def _is_nan(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
