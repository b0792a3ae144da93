"""Which trials of several sweeps stand for the same method.

Where every sweep has selected trials, the winner of each method stands for it: the confirmed one, or the best by the objective.
Where one has selected nothing, as a grid without held-out images, trials with the same settings are compared instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pandas as pd

from analysis import batches, load, sample, tables
from analysis.batches import configurations
from analysis.load import Sweep
from study.config import TrialConfig, short_value
from study.errors import StudyError, nearest

NAMED: Final = 3
"""How many of a kind a sentence names."""

NOT_SETTINGS: Final = ("training/device",)
"""Settings that change results by rounding only."""

Run = Mapping[str, Any]
"""A row of `Sweep.runs`."""


@dataclass(frozen=True)
class Place:
    """A method in a scenario of at least two sweeps.

    Attributes:
        scenario: of the first sweep, if the sweeps have one each and name it differently.
        method: its name.
        title: the method, or its settings where nothing was selected.
        runs: the trial that stands for it, by sweep.
        baselines: the trial that it is compared with, by sweep; empty for the baseline itself.
    """

    scenario: str
    method: str
    title: str
    runs: Mapping[str, Run]
    baselines: Mapping[str, Run]


@dataclass(frozen=True)
class Matching:
    """Sweeps and what is comparable in them.

    Attributes:
        sweeps: by the names that they have in the comparison, the reference first.
        baseline: the method that others are compared with.
        is_selected: whether winners stand for the methods, and not each setting for itself.
        places: what at least two sweeps have.
        notes: sentences on what is left out, incomplete or biased.
    """

    sweeps: Mapping[str, Sweep]
    baseline: str
    is_selected: bool
    places: tuple[Place, ...]
    notes: tuple[str, ...]

    @property
    def reference(self) -> str:
        """The first sweep, which the others are compared with."""
        return next(iter(self.sweeps))


def match(sweeps: Mapping[str, Sweep], baseline: str) -> Matching:
    """Finds what is comparable in sweeps.

    Scenarios are matched by name; if each sweep has one only, these are matched whatever their names.

    Args:
        sweeps: at least two, by name, the reference first.
        baseline: the method that the others are compared with.

    Raises:
        StudyError: they have no method in common, or not the baseline; or one ended when it was decided.
    """
    if decided := [name for name, sweep in sweeps.items() if sweep.rule]:
        raise StudyError(
            f"{decided[0]!r} ended each method as soon as it was decided, and intervals of a comparison of sweeps do not allow "
            f"for that; name a confirmation with the same seeds for all methods."
        )
    sweeps = {name: configurations(sweep) for name, sweep in sweeps.items()}
    chosen = {name: _selected(sweep) for name, sweep in sweeps.items()}
    is_selected = all(map(len, chosen.values()))
    if not is_selected:
        chosen = {name: sweep.finished for name, sweep in sweeps.items()}
    if empty := [name for name, runs in chosen.items() if not len(runs)]:
        raise StudyError(f"Nothing to compare: {empty[0]!r} has no finished trial; resume it, or name another sweep.")
    tried = {} if is_selected else _tried(sweeps)
    found = _found(chosen, tried)
    shared = {key: runs for key, runs in found.items() if len(runs) > 1}
    if not shared:
        what = "method" if is_selected else "setting of a method"
        has = _words(chosen, "method" if is_selected else "name")
        raise StudyError(f"Nothing to compare: no {what} has finished in the same scenario of two sweeps; {has}.")
    methods = dict.fromkeys(method for _, method, *_ in shared)
    if baseline not in methods:
        raise StudyError(
            f"The sweeps do not share the baseline {baseline!r} that methods are compared with; name one of their methods with "
            f"--baseline; {nearest(baseline, methods)}."
        )
    places = []
    for (_, method, *_), own in shared.items():
        first = next(iter(own.values()))
        against = {
            name: other
            for name, run in own.items()
            if method != baseline and (other := _baseline_of(run, chosen[name], baseline, tried.get(baseline, ())))
        }
        title = method if is_selected else str(first["name"])
        places.append(Place(str(first["scenario"]), method, title, own, against))
    matching = Matching(sweeps, baseline, is_selected, tuple(places), ())
    alone: dict[str, list[str]] = {}
    for name, run in (item for own in found.values() if len(own) == 1 for item in own.items()):
        alone.setdefault(name, []).append(f"{run['method' if is_selected else 'name']} of {run['scenario']}")
    return replace(matching, notes=tuple(_notes(matching, alone)))


def _found(
    chosen: Mapping[str, pd.DataFrame], tried: Mapping[str, Sequence[str]]
) -> dict[tuple[str, ...], dict[str, Run]]:
    """The trials of each sweep, by scenario, method and the values of settings.

    Args:
        chosen: the trials, by sweep.
        tried: the settings that tell trials of a method apart, by method.
    """
    is_single = all(runs["scenario"].nunique() == 1 for runs in chosen.values())
    found: dict[tuple[str, ...], dict[str, Run]] = {}
    for name, runs in chosen.items():
        for run in load.rows(runs):
            scenario = "" if is_single else run["scenario"]
            values = (_comparable(run.get(setting)) for setting in tried.get(run["method"], ()))
            found.setdefault((scenario, run["method"], *values), {}).setdefault(name, run)
    return found


def _selected(sweep: Sweep) -> pd.DataFrame:
    """The winner of each method: confirmed, or the best by the objective."""
    if sweep.phase == "confirm":
        return sweep.finished[sweep.finished["selected_rank"] == 1]
    return tables.best(sweep)


def _tried(sweeps: Mapping[str, Sweep]) -> dict[str, list[str]]:
    """The settings that any of the sweeps varies, by method."""
    names: dict[str, dict[str, None]] = {}
    for group in (group for sweep in sweeps.values() for group in sweep.plan["groups"]):
        own = names.setdefault(group["method"], {})
        own.update(dict.fromkeys(name for point in group["points"] for name in point))
        own.update(dict.fromkeys(group.get("distributions", {})))
    return {method: list(own) for method, own in names.items()}


def _comparable(value: Any) -> str:
    """A setting's value as text, the same for 1 and 1.0."""
    if _is_missing(value):
        return ""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return repr(float(value)) if is_number else str(value)


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _baseline_of(run: Run, runs: pd.DataFrame, baseline: str, names: Sequence[str]) -> Run | None:
    """The trial of the baseline with the same scenario and settings."""
    others = [
        other
        for other in load.rows(runs[(runs["scenario"] == run["scenario"]) & (runs["method"] == baseline)])
        if all(_comparable(other.get(name)) == _comparable(run.get(name)) for name in names)
    ]
    return others[0] if others else None


def _words(chosen: Mapping[str, pd.DataFrame], column: str) -> str:
    """What each sweep has, shortly."""
    texts = []
    for name, runs in list(chosen.items())[:2]:
        each = list(dict.fromkeys(f"{run[column]} of {run['scenario']}" for run in load.rows(runs)))
        more = f" and {len(each) - 1} more" if len(each) > 1 else ""
        texts.append(f"{name} has {each[0]}{more}")
    return "; ".join(texts)


def _notes(matching: Matching, alone: Mapping[str, Sequence[str]]) -> list[str]:
    """What a reader must know of the sweeps.

    `alone` names what only one of them has, by sweep.
    """
    notes, without = [], []
    for name, sweep in matching.sweeps.items():
        if sweep.phase != "confirm" and matching.is_selected:
            notes.append(
                f"`{name}` chose its best trials by these seeds and images, so their numbers are too good; compare a "
                "confirmation of it instead."
            )
        planned = sum(batches.due_trials(sweep).values())
        done = int(sweep.recorded["outcome"].isin(["finished", "stopped"]).sum())
        if done < planned:
            notes.append(f"`{name}` is not complete: {done} of {planned} planned trials are done.")
        notes += sample.few([f"`{name}`: {note}" for note in sweep.notes], "notes of this kind")
    for place in matching.places:
        lacking = [f"`{name}`" for name in place.runs if name not in place.baselines]
        if place.method != matching.baseline and lacking:
            without.append(f"{place.title} of {place.scenario} ({', '.join(lacking)})")
    if without:
        notes.append(f"There is no {matching.baseline} to compare these with: {_some(without)}.")
    notes += [f"Left out, because only `{name}` has it: {_some(what)}." for name, what in alone.items()]
    return notes


def _some(items: Sequence[str]) -> str:
    """The first items, and how many more there are."""
    more = len(items) - NAMED
    return ", ".join(items[:NAMED]) + (f" and {more} more" if more > 0 else "")


def differing(matching: Matching) -> pd.DataFrame:
    """What the compared sweeps differ in, a row each.

    Settings by slash name, then seeds, scenarios and what the numbers were made with. The column `what` says which; the others
    are the sweeps. What every sweep varies is no difference between them.
    """
    sweeps = matching.sweeps
    varied = {name: _varied(sweep) for name, sweep in sweeps.items()}
    rows = {}
    for setting in _setting_names(sweeps.values()):
        if all(setting in own for own in varied.values()):
            continue
        values = {
            name: "varied" if setting in varied[name] else _value_words(matching.places, name, setting)
            for name in sweeps
        }
        if len(set(values.values())) > 1:
            rows[f"`{setting}`"] = values
    for what, words in _CIRCUMSTANCES.items():
        values = {name: words(sweep) for name, sweep in sweeps.items()}
        if len(set(values.values())) > 1:
            rows[what] = values
    return pd.DataFrame([{"what": what, **values} for what, values in rows.items()], columns=["what", *sweeps])


def _varied(sweep: Sweep) -> set[str]:
    return {name for own in _tried({"": sweep}).values() for name in own}


def _setting_names(sweeps: Iterable[Sweep]) -> list[str]:
    """The settings of all runs, by slash name, in order."""
    names = dict.fromkeys(str(name) for sweep in sweeps for name in sweep.runs)
    return [
        name
        for name in names
        if "/" in name and name.split("/")[0] in TrialConfig.model_fields and name not in NOT_SETTINGS
    ]


def _value_words(places: Sequence[Place], sweep: str, setting: str) -> str:
    """The values of a setting in the compared trials of a sweep."""
    values = [place.runs[sweep].get(setting) for place in places if sweep in place.runs]
    return ", ".join(dict.fromkeys("none" if _is_missing(value) else short_value(value) for value in values))


def _seeds(sweep: Sweep) -> str:
    seeds = [int(seed) for seed in sweep.plan["seeds"]]
    is_range = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]} to {seeds[-1]}" if is_range else ", ".join(map(str, seeds))


def _budget(sweep: Sweep) -> str:
    trials = dict.fromkeys(str(group["trials"]) for group in sweep.plan["groups"])
    return ", ".join(trials) if sweep.phase == "tune" else "no search"


def _of_search(sweep: Sweep, name: str) -> str:
    """What the plan says of the search, if one drew anything."""
    searched = sweep.phase == "tune" and any(group["distributions"] for group in sweep.plan["groups"])
    return str(sweep.plan[name]) if searched else "no search"


_CIRCUMSTANCES: Final[Mapping[str, Callable[[Sweep], str]]] = {
    "scenarios": lambda sweep: ", ".join(dict.fromkeys(group["scenario"] for group in sweep.plan["groups"])),
    "seeds": _seeds,
    "phase": lambda sweep: sweep.phase,
    "confirms": lambda sweep: str((sweep.plan.get("confirms") or {}).get("sweep", "nothing")),
    "trials of a method": _budget,
    "sampler": lambda sweep: _of_search(sweep, "sampler"),
    "scheduler": lambda sweep: _of_search(sweep, "scheduler"),
    "seed of the search": lambda sweep: _of_search(sweep, "search_seed"),
    "objective": lambda sweep: "; ".join(goal.words for goal in sweep.objectives),
    "commit": lambda sweep: sweep.tags.get("git_commit", "unknown")[:12],
    "version of the study": lambda sweep: sweep.tags.get("version/plasticity-study", "unknown"),
    "version of torch": lambda sweep: sweep.tags.get("version/torch", "unknown"),
    "device": lambda sweep: ", ".join(dict.fromkeys(str(name) for name in sweep.finished["device"])),
}
"""What else may differ, by its heading: from a sweep to words."""
