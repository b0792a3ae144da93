"""Runs of the same settings put together; what they decided.

The batches of a confirmation and the rungs of a race are runs of their own in MLflow. Here the runs of the same settings become
one, whose id names them all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Any

import pandas as pd

from analysis import load
from analysis.load import Sweep
from study import schema
from study.decision import halving
from study.decision.halving import Entrant, Result
from study.decision.rule import Course, decide, mean_accuracy


def joined(sweep: Sweep) -> Sweep:
    """The sweep with the batches of a setting as one.

    Of finished ones; its id is that of all of them, separated by spaces, and its lanes are numbered through. So are the rungs of
    a configuration in a race, which has been stopped if it has not all seeds. Other sweeps are returned as they are, and so is
    one whose runs have been put together.
    """
    if (sweep.rule is None and not sweep.rungs) or sweep.separate is not None:
        return sweep
    finished = sweep.finished
    points = points_of(sweep)
    places = [
        (scenario, method, number // len(sweep.rungs) if sweep.rungs else number % points[scenario, method])
        for scenario, method, number in zip(finished["scenario"], finished["method"], finished["number"], strict=True)
    ]
    batches: dict[tuple[str, str, int], list[int]] = {}
    for row, place in enumerate(places):
        batches.setdefault(place, []).append(row)
    names: dict[str, str] = {}
    before: dict[str, int] = {}  # lanes of earlier batches, by run
    trials: dict[str, str] = {}
    rows = []
    for own in batches.values():
        runs = finished.iloc[own]
        name, seeds = " ".join(runs["run_id"]), tuple(seed for each in runs["seeds"] for seed in each)
        for run_id, of_run in zip(runs["run_id"], runs["seeds"], strict=True):
            before[run_id] = seeds.index(of_run[0])
        names |= dict.fromkeys(runs["run_id"], name)
        trials |= dict.fromkeys(runs["run_id"], runs["trial"].iloc[0])
        metrics = {column: _over_seeds(runs, column) for column in map(str, runs) if column in schema.QUANTITIES}
        whole = {"run_id": name, "seeds": seeds, "started": runs["started"].min(), "ended": runs["ended"].max()}
        if len(seeds) < sum(sweep.rungs[-1:]):
            whole["outcome"] = "stopped"
        rows.append({**load.rows(runs.iloc[:1])[0], **metrics, **whole})

    def renamed(table: pd.DataFrame) -> pd.DataFrame:
        if not len(table):
            return table
        of_runs = table["run_id"].tolist()
        return table.assign(
            run_id=[names.get(run_id, run_id) for run_id in of_runs],
            trial=[trials.get(run_id, trial) for run_id, trial in zip(of_runs, table["trial"], strict=True)],
            lane=[before.get(run_id, 0) + lane for run_id, lane in zip(of_runs, table["lane"], strict=True)],
        )

    others = sweep.runs[sweep.runs["outcome"] != "finished"]
    whole_runs = pd.DataFrame(rows, columns=sweep.runs.columns).astype(sweep.runs.dtypes.to_dict())
    return replace(
        sweep,
        runs=pd.concat([whole_runs, others], ignore_index=True) if len(others) else whole_runs,
        lanes=renamed(sweep.lanes),
        diagnostics=renamed(sweep.diagnostics),
        probes=renamed(sweep.probes),
        separate=sweep.runs,
    )


def configurations(sweep: Sweep) -> Sweep:
    """The sweep with one run for each configuration.

    That is `joined` of a race; other sweeps are returned as they are.
    """
    return joined(sweep) if sweep.rungs else sweep


def _over_seeds(runs: pd.DataFrame, column: str) -> float:
    """A number of several runs of the same settings as one.

    What adds up over seeds is added, of all others the mean is taken, weighted by the runs' seeds.
    """
    if column in schema.SUMMED:
        return float(runs[column].sum())
    lanes = runs["seeds"].map(len)
    if lanes.nunique() == 1:
        return float(runs[column].mean())
    return float((runs[column] * lanes).sum(skipna=False) / lanes.sum())


def points_of(sweep: Sweep) -> dict[tuple[str, str], int]:
    """Trials of each scenario and method on the same seeds."""
    times = len(sweep.rule.batches) if sweep.rule else 1
    return {(group["scenario"], group["method"]): group["trials"] // times for group in sweep.plan["groups"]}


def course(whole: Sweep) -> Course | None:
    """What a confirmation decided, with its batches joined.

    The same as the driver decided from its records. None if all of its trials are to run.
    """
    if whole.rule is None:
        return None
    winners = whole.finished[whole.finished["selected_rank"] == 1]
    run_of = {(run["scenario"], run["method"]): run["run_id"] for run in load.rows(winners)}
    found: dict[str, dict[str, list[float]]] = {}
    for group in filter(_has_winner, whole.plan["groups"]):
        numbers = found.setdefault(group["scenario"], {}).setdefault(group["method"], [])
        run_id = run_of.get((group["scenario"], group["method"]))
        table = whole.accuracy(run_id) if run_id else pd.DataFrame()
        known = list(takewhile(table.columns.__contains__, whole.plan["seeds"]))
        numbers += mean_accuracy(table[known].to_numpy(dtype=float)) if known else []
    return decide(whole.rule, found)


def _has_winner(group: Mapping[str, Any]) -> bool:
    return any(origin.get("rank") == 1 for origin in group.get("origins", ()))


def due_trials(sweep: Sweep) -> dict[tuple[str, str], int]:
    """Number of trials due, by scenario and method.

    All that were planned, unless the sweep is a confirmation that ends when it is decided. In a race, what has failed or has no
    objective has no successors.
    """
    if sweep.rungs:
        return {place: sum(sizes) for place, sizes in due_on_rungs(sweep).items()}
    decided, points = course(joined(sweep)), points_of(sweep)
    if decided is None or sweep.rule is None:
        return points
    return {place: decided.due_of(*place) // sweep.rule.batch * count for place, count in points.items()}


def due_on_rungs(sweep: Sweep) -> dict[tuple[str, str], tuple[int, ...]]:
    """Configurations of a race due on each rung.

    By scenario and method.
    """
    return {
        (group["scenario"], group["method"]): halving.due(
            entrants(sweep, group["scenario"], group["method"]), group["trials"], len(sweep.rungs)
        )
        for group in sweep.plan["groups"]
    }


def entrants(sweep: Sweep, scenario: str, method: str) -> list[Entrant]:
    """A method's configurations, as its race judged them."""
    runs, goal = sweep.recorded, sweep.objectives[0]
    own = runs[(runs["scenario"] == scenario) & (runs["method"] == method)].sort_values("number")
    found = []
    for number, trials in own.groupby(own["number"] // len(sweep.rungs)):
        finished = trials[trials["outcome"] == "finished"]
        results = []
        for count in range(1, len(finished) + 1):
            value = _over_seeds(finished.iloc[:count], goal.column) if goal.column in finished else math.nan
            diverged = float(finished["summary/lanes_diverged"].iloc[:count].sum())
            results.append(Result(None if math.isnan(value) else goal.score(value), diverged))
        failed = bool(trials["outcome"].iloc[-1] == "failed")
        found.append(Entrant(int(str(number)), tuple(results), len(trials), failed))
    return found


def lanes_of(sweep: Sweep) -> int | None:
    """Number of seeds of a trial; None in a race."""
    if sweep.rungs:
        return None
    return sweep.rule.batch if sweep.rule else len(sweep.plan["seeds"])
