"""What a sweep saw: the objective against every setting, parallel coordinates, heat maps of grids, importance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import pandas as pd

from analysis import importance, load
from analysis.figures import heat, parallel, search, trials
from analysis.figures.scales import setting_label
from analysis.load import Sweep
from analysis.report.page import Column, Draw, Picture, Section, Table
from study import schema

SHARPNESS: Final = ("optimizer/rho", "optimizer/lambda")
"""The settings that a heat map sets against the learning rate."""


def section_search(sweep: Sweep) -> Section:
    """What the sweep tried and what came of it."""
    scored = schema.OBJECTIVE in sweep.runs and bool(sweep.runs[schema.OBJECTIVE].notna().any())
    measure = schema.OBJECTIVE if scored else "summary/accuracy_test"
    label = "objective: validation accuracy (share)" if scored else "mean test accuracy (share)"
    words: list[str | tuple[str, ...]] = [
        f"All trials of `{sweep.name}` that have "
        + (
            "an objective (accuracy on held-out training images)."
            if scored
            else "finished, by test accuracy: no images were held out."
        )
        + " Trials that were stopped early stand where they stopped."
    ]
    blocks: list[Table | Picture] = []
    runs = sweep.runs[sweep.runs["outcome"].isin(["finished", "stopped"])]
    runs = runs[runs[measure].notna()] if measure in runs else runs.iloc[:0]
    for scenario in dict.fromkeys(runs["scenario"]):
        chosen = runs[runs["scenario"] == scenario]
        tried = _tried(sweep, chosen, measure)
        if any(trial.settings for trial in tried):
            ids = tuple(chosen["run_id"])
            blocks += [
                Picture(
                    f"settings-{scenario}",
                    f"{scenario}: {label} of every trial against what was tried; the best of each method is ringed.",
                    _scatter(f"{scenario}: what the sweep saw", tried, label),
                    ids,
                ),
                Picture(
                    f"parallel-{scenario}",
                    f"{scenario}: every trial as one line across its settings; the stronger the line, the better the trial.",
                    _parallel(f"{scenario}: parallel coordinates", tried, label),
                    ids,
                ),
            ]
        blocks += _heat_maps(sweep, scenario, scored)
    blocks += _importance(sweep, words)
    return Section("search", "What the sweep saw", tuple(words), tuple(blocks))


def _tried(sweep: Sweep, runs: pd.DataFrame, measure: str) -> list[trials.Tried]:
    """The trials with the numeric settings that set them apart from the others of their method."""
    found = []
    for run in load.rows(runs):
        group = next(
            g for g in sweep.plan["groups"] if (g["scenario"], g["method"]) == (run["scenario"], run["method"])
        )
        names = dict.fromkeys([*group["distributions"], *(name for point in group["points"] for name in point)])
        settings = {name.rpartition("/")[2]: float(run[name]) for name in names if isinstance(run[name], int | float)}
        found.append(trials.Tried(run["method"], settings, float(run[measure]), run["outcome"] == "finished"))
    return found


def _scatter(title: str, tried: Sequence[trials.Tried], label: str) -> Draw:
    return lambda path, size: search.settings_scatter(path, title, tried, label, size)


def _parallel(title: str, tried: Sequence[trials.Tried], label: str) -> Draw:
    return lambda path, size: parallel.parallel_coordinates(path, title, tried, label, size)


def _heat_maps(sweep: Sweep, scenario: str, scored: bool) -> list[Picture]:
    """Accuracy and decline over (lr, rho) and (lr, lambda), where explicit points make a grid; SGD is the row of sharpness 0."""
    accuracy = "summary/objective" if scored else "summary/accuracy_test"
    on = "validation" if scored else "test"
    pictures = []
    for group in sweep.plan["groups"]:
        sharpness = next((name for name in SHARPNESS if any(name in point for point in group["points"])), None)
        if group["scenario"] != scenario or group["distributions"] or sharpness is None:
            continue
        runs = sweep.finished[(sweep.finished["scenario"] == scenario) & (sweep.finished["method"] == group["method"])]
        if min(runs["optimizer/lr"].nunique(), runs[sharpness].nunique()) < 2:
            continue
        plain = sweep.finished[(sweep.finished["scenario"] == scenario) & (sweep.finished["optimizer/name"] == "sgd")]
        radii = list(dict.fromkeys(runs["optimizer/r"])) if sharpness == "optimizer/lambda" else [None]
        maps = []
        for radius in radii:
            cells = runs if radius is None else runs[runs["optimizer/r"] == radius]
            at = "" if radius is None else f", r = {radius:g}" + (" (exact)" if radius == 0 else "")
            maps += [
                _map(f"mean {on} accuracy{at}", cells, plain, sharpness, accuracy, False),
                _map(f"decline of {on} accuracy{at}", cells, plain, sharpness, _decline(scored), True),
            ]
        short = sharpness.rpartition("/")[2]
        pictures.append(
            Picture(
                f"heat_maps-{group['label'] if 'label' in group else group['scenario'] + '-' + group['method']}",
                f"{scenario}, {group['method']}: mean accuracy over the tasks and decline (first tenth of the tasks "
                f"minus last), on {on} images, over learning rate and {short}; {short} = 0 is SGD.",
                _drawn_maps(f"{scenario}: {group['method']} over lr and {short}", maps),
                tuple(runs["run_id"]) + tuple(plain["run_id"]),
            )
        )
    return pictures


def _decline(scored: bool) -> str:
    return schema.DECLINE if scored else "summary/decline_test"


def _map(
    title: str, cells: pd.DataFrame, plain: pd.DataFrame, sharpness: str, measure: str, diverging: bool
) -> heat.HeatMap:
    columns = sorted(set(cells["optimizer/lr"]))
    rows = sorted(set(cells[sharpness]))
    known: dict[tuple[float, float], float] = {
        (run[sharpness], run["optimizer/lr"]): run[measure] for run in load.rows(cells)
    }
    sgd = {(0.0, run["optimizer/lr"]): run[measure] for run in load.rows(plain)}
    if any((0.0, lr) in sgd for lr in columns):
        rows = [0.0, *rows]
        known |= sgd
    values = [[float(known.get((row, column), math.nan)) for column in columns] for row in rows]
    labels = setting_label(sharpness), setting_label("optimizer/lr")
    return heat.HeatMap(title, rows, columns, *labels, values, "share", diverging)


def _drawn_maps(title: str, maps: Sequence[heat.HeatMap]) -> Draw:
    return lambda path, size: heat.heat_maps(path, title, maps, size)


def _importance(sweep: Sweep, words: list[str | tuple[str, ...]]) -> list[Table | Picture]:
    shares = importance.importance(sweep)
    if not len(shares):
        words.append(
            f"The importance of each setting is not computed: it needs at least {importance.LEAST_TRIALS} finished "
            "trials of a method in a scenario, with an objective and at least two settings that vary."
        )
        return []
    blocks: list[Table | Picture] = []
    for scenario in dict.fromkeys(shares["scenario"]):
        chosen = shares[shares["scenario"] == scenario]
        by_method = {
            str(method): {
                str(name).rpartition("/")[2]: float(share)
                for name, share in zip(rows["setting"], rows["share"], strict=True)
            }
            for method, rows in chosen.groupby("method", sort=False)
        }
        blocks.append(
            Picture(
                f"importance-{scenario}",
                f"{scenario}: share of the objective's variance that each setting explains (Optuna's fANOVA), method by method.",
                _bars(f"{scenario}: importance of each setting", by_method),
                tuple(sweep.finished[sweep.finished["scenario"] == scenario]["run_id"]),
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
