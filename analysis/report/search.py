"""What was searched: trials over settings, heat maps, importance."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis import importance, load, sample, settings
from analysis.figures import charts, heat_maps, parallel, search
from analysis.load import Sweep
from analysis.report import race
from analysis.report.page import Column, Draw, Picture, Section, Table, count
from study import schema
from study.objective import Objective


def section_search(sweep: Sweep) -> Section:
    """What the sweep tried, and the results."""
    goal = sweep.objectives[0]
    measure = sample.measure_of(sweep.runs, goal)
    scored = measure != "summary/accuracy_test"
    own = "validation accuracy (share)" if goal.is_default else f"{goal.axis}, {_direction(goal)}"
    label = f"objective: {own}" if scored else "mean test accuracy (share)"
    words: list[str | tuple[str, ...]] = [
        f"All trials of `{sweep.name}` that have "
        + (
            f"an objective ({'accuracy on held-out training images' if goal.is_default else f'the {goal.words}'})."
            if scored
            else "finished, by test accuracy because no images were held out."
        )
        + " Trials stopped early are shown with the value they had reached."
    ]
    if earlier := sweep.plan.get("after"):
        known = count(sum(map(len, earlier["trials"].values())), "trial")
        words.append(
            f"The search began with what {known} of `{earlier['sweep']}` had found; they are no trials of this sweep."
        )
    if spent := race.sentence(sweep):
        words.append(spent)
    blocks: list[Table | Picture] = [*race.blocks(sweep)]
    runs = sweep.runs[sweep.runs["outcome"].isin(["finished", "stopped"])]
    runs = runs[runs[measure].notna()] if measure in runs else runs.iloc[:0]
    for scenario in dict.fromkeys(runs["scenario"]):
        whole = runs[runs["scenario"] == scenario]
        chosen = sample.best_and_sample(whole, goal)
        shown = sample.words(len(chosen), len(whole))
        falling = scored and not goal.is_maximised
        tried, searched = _tried(sweep, chosen, measure, falling), _searched(sweep, scenario)
        if any(trial.settings for trial in tried):
            ids = tuple(chosen["run_id"])
            blocks += [
                Picture(
                    f"settings-{scenario}",
                    f"{scenario}: {label} of every trial against each setting; the best of each method is ringed. "
                    f"The axes span what was searched.{shown}",
                    _scatter(f"{scenario}: every trial over its settings", tried, label, searched),
                    ids,
                    charts.settings_scatter(tried, label, searched),
                ),
                Picture(
                    f"parallel-{scenario}",
                    f"{scenario}: every trial as one line across its settings; the stronger the line, the better the trial."
                    + shown,
                    _parallel(f"{scenario}: parallel coordinates", tried, label, searched),
                    ids,
                    charts.parallel_coordinates(tried, label, searched),
                ),
            ]
        blocks += _heat_maps(sweep, scenario, _is_validated(sweep))
    blocks += _importance(sweep, words)
    return Section("search", "Search results", tuple(words), tuple(blocks))


def _direction(goal: Objective) -> str:
    return "maximised" if goal.is_maximised else "minimised"


def _is_validated(sweep: Sweep) -> bool:
    """Whether images were held out."""
    return "summary/objective" in sweep.runs and bool(sweep.runs["summary/objective"].notna().any())


def _tried(sweep: Sweep, runs: pd.DataFrame, measure: str, falling: bool) -> list[search.Tried]:
    """The trials with the numeric settings their method varies."""
    labels = _labels(sweep)
    trials = []
    for run in load.rows(runs):
        group = next(
            g for g in sweep.plan["groups"] if (g["scenario"], g["method"]) == (run["scenario"], run["method"])
        )
        values = {labels[name]: float(run[name]) for name in _names(group) if isinstance(run[name], int | float)}
        name = f"{run['trial']} {run['name']}"
        trials.append(
            search.Tried(run["method"], values, float(run[measure]), run["outcome"] == "finished", falling, name)
        )
    return trials


def _searched(sweep: Sweep, scenario: str) -> search.Searched:
    """The ends of all ranges and the values of all points, by label."""
    values: dict[str, set[float]] = {}
    for group in sweep.plan["groups"]:
        if group["scenario"] != scenario:
            continue
        tried = [item for point in group["points"][: group["trials"]] for item in point.items()]
        if group["trials"] > len(group["points"]):  # else nothing is drawn
            for name, text in group["distributions"].items():
                drawn = json.loads(text)["attributes"]
                tried += [(name, value) for value in drawn.get("choices") or (drawn["low"], drawn["high"])]
        for name, value in tried:
            if isinstance(value, int | float):
                values.setdefault(name, set()).add(float(value))
    labels = _labels(sweep)
    return {labels[name]: sorted(numbers) for name, numbers in values.items()}


def _labels(sweep: Sweep) -> dict[str, str]:
    """Axis labels of all settings that any method varies."""
    return settings.labels(dict.fromkeys(name for group in sweep.plan["groups"] for name in _names(group)), sweep.plan)


def _names(group: Mapping[str, Any]) -> list[str]:
    """The settings that a group of a plan varies."""
    return list(dict.fromkeys([*group["distributions"], *(name for point in group["points"] for name in point)]))


def _scatter(title: str, tried: Sequence[search.Tried], label: str, searched: search.Searched) -> Draw:
    return lambda path, size: search.settings_scatter(path, title, tried, label, size, searched)


def _parallel(title: str, tried: Sequence[search.Tried], label: str, searched: search.Searched) -> Draw:
    return lambda path, size: parallel.parallel_coordinates(path, title, tried, label, size, searched)


def _heat_maps(sweep: Sweep, scenario: str, scored: bool) -> list[Picture]:
    """Heat maps over learning rate and sharpness, by method.

    They show accuracy and decline, where explicit points form a grid. The baseline is the row of sharpness 0, and any other
    setting of the method has maps of its own for each of its values.
    """
    accuracy = "summary/objective" if scored else "summary/accuracy_test"
    on = "validation" if scored else "test"
    pictures = []
    for group in sweep.plan["groups"]:
        if group["scenario"] != scenario or group["distributions"]:
            continue
        roles: dict[str, list[str]] = {"learning rate": [], "sharpness": [], "other": []}
        for name in _names(group):
            roles[settings.describe(name, sweep.plan).role].append(name)
        if not roles["learning rate"] or not roles["sharpness"]:
            continue
        rate, sharpness = roles["learning rate"][0], roles["sharpness"][0]
        facets = [name for name in _names(group) if name not in (rate, sharpness)]
        runs = sweep.finished[(sweep.finished["scenario"] == scenario) & (sweep.finished["method"] == group["method"])]
        if min(runs[rate].nunique(), runs[sharpness].nunique()) < 2:
            continue
        plain = sweep.finished[
            (sweep.finished["scenario"] == scenario) & (sweep.finished["optimizer/name"] == settings.BASELINE)
        ]
        axes = sharpness, rate
        points = group["points"][: group["trials"]]
        grid = {name: {point[name] for point in points if name in point} for name in axes}
        maps = []
        is_whole = all(name in point for point in points for name in facets)  # not one setting after the other
        for values in _combinations(runs, facets):
            cells = _having(runs, facets, values)
            if not is_whole and min(cells[rate].nunique(), cells[sharpness].nunique()) < 2:
                continue
            shared = [
                name
                for name in facets
                if settings.describe(name, sweep.plan).role != "sharpness"
                and name in plain
                and plain[name].notna().any()
            ]
            same = _having(plain, shared, [values[facets.index(name)] for name in shared])
            at = "".join(f", {_value(name, value, sweep.plan)}" for name, value in zip(facets, values, strict=True))
            maps += [
                _map(f"mean {on} accuracy{at}", cells, same, grid, accuracy, False, sweep.plan),
                _map(f"decline of {on} accuracy{at}", cells, same, grid, _decline(scored), True, sweep.plan),
            ]
        if not maps:
            continue
        short, rate_short = (settings.describe(name, sweep.plan).short for name in axes)
        pictures.append(
            Picture(
                f"heat_maps-{group['label'] if 'label' in group else group['scenario'] + '-' + group['method']}",
                f"{scenario}, {group['method']}: mean accuracy over the tasks and decline (first tenth of the tasks "
                f"minus last), on {on} images, over learning rate and {short}; {short} = 0 is "
                f"{settings.BASELINE.upper()}.",
                _drawn_maps(f"{scenario}: {group['method']} over {rate_short} and {short}", maps),
                tuple(runs["run_id"]) + tuple(plain["run_id"]),
            )
        )
    return pictures


def _combinations(runs: pd.DataFrame, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """The combinations of settings that runs have, each once.

    Their values may be lists.
    """
    rows = runs[list(names)].itertuples(index=False, name=None) if names else [()]
    return list({json.dumps(row): row for row in rows}.values())


def _having(runs: pd.DataFrame, names: Sequence[str], values: Sequence[Any]) -> pd.DataFrame:
    """The runs with these settings."""
    for name, value in zip(names, values, strict=True):
        runs = runs[[found == value for found in runs[name]]]
    return runs


def _value(name: str, value: Any, plan: Mapping[str, Any]) -> str:
    """`r = 0.05`, `r = 0 (exact)`, `name = text`."""
    setting = settings.describe(name, plan)
    if not isinstance(value, int | float):
        return f"{setting.short} = {value}"
    return f"{setting.short} = {value:g}" + (f" ({setting.zero})" if value == 0 and setting.zero else "")


def _decline(scored: bool) -> str:
    return schema.DECLINE if scored else "summary/decline_test"


def _map(
    title: str,
    cells: pd.DataFrame,
    plain: pd.DataFrame,
    grid: Mapping[str, set[float]],
    measure: str,
    diverging: bool,
    plan: Mapping[str, Any],
) -> heat_maps.HeatMap:
    """One map over sharpness (rows) and learning rate (columns).

    `grid` has the values of both, in this order; those that no trial has finished with have cells too.
    """
    sharpness, rate = grid
    columns = sorted({*grid[rate], *cells[rate]})
    rows = sorted({*grid[sharpness], *cells[sharpness]})
    measured: dict[tuple[float, float], float] = {(run[sharpness], run[rate]): run[measure] for run in load.rows(cells)}
    baseline = {(0.0, run[rate]): run[measure] for run in load.rows(plain)}
    if any((0.0, lr) in baseline for lr in columns):
        rows = [0.0, *rows]
        measured |= baseline
    values = [[float(measured.get((row, column), math.nan)) for column in columns] for row in rows]
    labels = settings.labels(grid, plan)
    return heat_maps.HeatMap(title, rows, columns, labels[sharpness], labels[rate], values, "share", diverging)


def _drawn_maps(title: str, maps: Sequence[heat_maps.HeatMap]) -> Draw:
    return lambda path, size: heat_maps.heat_maps(path, title, maps, size)


def _importance(sweep: Sweep, words: list[str | tuple[str, ...]]) -> list[Table | Picture]:
    shares = importance.importance(sweep)
    if not len(shares):
        words.append(
            f"The importance of each setting is not computed: it takes at least {importance.LEAST_TRIALS} finished "
            "trials of a method in a scenario, with an objective and at least two settings that vary."
        )
        return []
    blocks: list[Table | Picture] = []
    for scenario in dict.fromkeys(shares["scenario"]):
        chosen = shares[shares["scenario"] == scenario]
        names = settings.short_names(dict.fromkeys(chosen["setting"]), sweep.plan)
        by_method = {
            str(method): {names[name]: float(share) for name, share in zip(rows["setting"], rows["share"], strict=True)}
            for method, rows in chosen.groupby("method", sort=False)
        }
        blocks.append(
            Picture(
                f"importance-{scenario}",
                f"{scenario}: share of the objective's variance that each setting explains (Optuna's fANOVA), by method.",
                _bars(f"{scenario}: importance of each setting", by_method),
                tuple(sweep.finished[sweep.finished["scenario"] == scenario]["run_id"]),
                charts.importance(by_method),
            )
        )
    columns = (
        Column("scenario", "scenario"),
        Column("method", "method"),
        Column("setting", "setting"),
        Column("share", "share", "number"),
        Column("trials", "trials", "count"),
    )
    return [*blocks, Table("importance", "Importance of each setting for the objective.", shares, columns)]


def _bars(title: str, shares: dict[str, dict[str, float]]) -> Draw:
    return lambda path, size: search.importance(path, title, shares, size)
