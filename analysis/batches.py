"""Batches of a confirmation put together; what they decided.

Each batch is a run of its own in MLflow. Here the runs of the same settings become one, whose id names them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Any, Final

import pandas as pd

from analysis import load
from analysis.load import Sweep
from study import schema
from study.decision.rule import Course, decide, mean_accuracy

SUMMED: Final = (schema.DIVERGED_LANES, "summary/lanes_diverged", "summary/seconds")
"""Numbers of a run that add up over batches; of all others the mean is taken, since batches have equally many seeds."""


def joined(sweep: Sweep) -> Sweep:
    """The sweep with the batches of a setting as one.

    Of finished ones; its id is that of all of them, separated by spaces, and its lanes are numbered through. Other sweeps are
    returned as they are.
    """
    if sweep.rule is None:
        return sweep
    finished = sweep.finished
    points = points_of(sweep)
    places = [
        (scenario, method, number % points[scenario, method])
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
        metrics = {
            column: runs[column].sum() if column in SUMMED else runs[column].mean()
            for column in runs
            if column in schema.QUANTITIES
        }
        whole = {"run_id": name, "seeds": seeds, "started": runs["started"].min(), "ended": runs["ended"].max()}
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
    )


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

    All that were planned, unless the sweep is a confirmation that ends when it is decided.
    """
    decided, points = course(joined(sweep)), points_of(sweep)
    if decided is None or sweep.rule is None:
        return points
    return {place: decided.due_of(*place) // sweep.rule.batch * count for place, count in points.items()}


def lanes_of(sweep: Sweep) -> int:
    """Number of seeds of a trial."""
    return sweep.rule.batch if sweep.rule else len(sweep.plan["seeds"])
