"""The tables of a report: sweeps in, data frames out, each row with the MLflow runs that its numbers come from.

Accuracies, declines and differences are shares. A mean over lanes comes with the bounds of its 95 % t interval, `_low` and
`_high`, NaN where one lane leaves them unknown. What MLflow has as a number of its own is taken from there, digit by digit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis import load, selection, statistics
from analysis.claims import Finding
from analysis.evidence import Evidence
from analysis.load import Sweep
from study import schema

QUANTITIES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "mean accuracy": statistics.mean_accuracy,
    "decline": statistics.decline,
}
"""What settings are compared by, one number a lane."""


def shown(sweep: Sweep) -> pd.DataFrame:
    """The finished runs that a report compares: all of a grid or a confirmation; of a tuning the best of each method."""
    if sweep.phase != "tune":
        return sweep.finished
    return best(sweep)


def best(sweep: Sweep, count: int = 1) -> pd.DataFrame:
    """The finished runs with the highest objective of each scenario and method; none without an objective."""
    if "summary/objective" not in sweep.runs or sweep.phase == "confirm":
        return sweep.runs.iloc[:0]
    return selection.best(sweep.runs.assign(objective=sweep.runs["summary/objective"]), count)


def trials(sweeps: Iterable[Sweep]) -> pd.DataFrame:
    """Every trial of every sweep: how it ended, its settings, its summary."""
    tables = [sweep.runs.assign(sweep=sweep.name) for sweep in sweeps if len(sweep.runs)]
    if not tables:
        return pd.DataFrame(columns=["sweep", "trial", "run_id"])
    together = pd.concat(tables, ignore_index=True)
    first = ["sweep", "trial", "scenario", "method", "name", "outcome", "reason"]
    return together[[*first, *(column for column in together.columns if column not in first)]]


def settings(sweep: Sweep, runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run: test accuracy over its lanes with intervals, decline, slope, interquartile mean."""
    rows = []
    for run in load.rows(runs):
        accuracy = sweep.accuracy(run["run_id"]).to_numpy(dtype=float)
        slope = statistics.slope(accuracy)
        rows.append(
            {
                "sweep": sweep.name,
                "scenario": run["scenario"],
                "method": run["method"],
                "trial": run["trial"],
                "name": run["name"],
                "selected_rank": run["selected_rank"],
                "lanes": accuracy.shape[1],
                "tasks": accuracy.shape[0],
                **_with_bounds("accuracy", statistics.mean_accuracy(accuracy), run["summary/accuracy_test"]),
                "accuracy_iqm": statistics.iqm(statistics.mean_accuracy(accuracy)),
                "first_tenth": run["summary/accuracy_test_first_tenth"],
                "last_tenth": run["summary/accuracy_test_last_tenth"],
                **_with_bounds("decline", statistics.decline(accuracy), run["summary/decline_test"]),
                **(_with_bounds("slope", slope) if np.isfinite(slope).all() else {}),
                "lanes_diverged": run["summary/lanes_diverged"],
                "gradient_evaluations": run["summary/gradient_evaluations"],
                "run_id": run["run_id"],
            }
        )
    return pd.DataFrame(rows)


def per_task(sweep: Sweep, run_id: str) -> pd.DataFrame:
    """Test accuracy of each task of one run over its lanes: columns task, accuracy, accuracy_low, accuracy_high."""
    accuracy = sweep.accuracy(run_id)
    rows = [_with_bounds("accuracy", row) for row in accuracy.to_numpy(dtype=float)]
    return pd.DataFrame(rows).assign(task=list(accuracy.index))


def tuned_and_confirmed(tuned: Sweep, confirmation: Sweep) -> pd.DataFrame:
    """One row a confirmed run that the tuning has too: objective and test accuracy there and on fresh seeds."""
    before = {run["trial"]: run for run in load.rows(tuned.finished)}
    rows = []
    for run in load.rows(confirmation.finished):
        old = before.get(run["confirms_trial"])
        if old is None:
            continue
        lanes = statistics.mean_accuracy(confirmation.accuracy(run["run_id"]).to_numpy(dtype=float))
        objectives = old.get("summary/objective", np.nan), run.get("summary/objective", np.nan)
        tests = old["summary/accuracy_test"], run["summary/accuracy_test"]
        rows.append(
            {
                "confirmation": confirmation.name,
                "scenario": run["scenario"],
                "method": run["method"],
                "name": run["name"],
                "selected_rank": run["selected_rank"],
                "objective_tuned": objectives[0],
                "objective_confirmed": objectives[1],
                "objective_tuned_minus_confirmed": objectives[0] - objectives[1],
                "accuracy_tuned": tests[0],
                **_with_bounds("accuracy_confirmed", lanes, tests[1]),
                "accuracy_tuned_minus_confirmed": tests[0] - tests[1],
                "lanes_tuned": len(old["seeds"]),
                "lanes_confirmed": len(run["seeds"]),
                "run_id_tuned": old["run_id"],
                "run_id_confirmed": run["run_id"],
            }
        )
    return pd.DataFrame(rows)


def winners_differences(confirmation: Sweep) -> pd.DataFrame:
    """Paired differences between the confirmed winners of the methods, in each scenario; one family."""
    winners = confirmation.finished[confirmation.finished["selected_rank"] == 1]
    pairs = [
        pair
        for scenario in dict.fromkeys(winners["scenario"])
        for pair in combinations(load.rows(winners[winners["scenario"] == scenario]), 2)
    ]
    return _differences(f"winners, {confirmation.name}", confirmation, pairs)


def paper_differences(sweep: Sweep, evidence: Evidence) -> pd.DataFrame:
    """Paired differences between the methods at the paper's settings and equal learning rate; one family."""
    by_id = {run["run_id"]: run for run in load.rows(sweep.finished)}
    pairs = [
        (by_id[evidence.run_ids[first]], by_id[evidence.run_ids[second]])
        for first, second in combinations(evidence.run_ids, 2)
        if (first.tasks, first.lr) == (second.tasks, second.lr)
    ]
    return _differences(f"the paper's settings, {sweep.name}", sweep, pairs)


def _differences(
    family: str, sweep: Sweep, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> pd.DataFrame:
    """First minus second of each pair in each of `QUANTITIES`, over the seeds that both have; p-values with Holm's correction."""
    rows = []
    for first, second in pairs:
        tables = sweep.accuracy(first["run_id"]), sweep.accuracy(second["run_id"])
        seeds = [seed for seed in tables[0].columns if seed in tables[1].columns]
        if not seeds:
            continue
        for quantity, reduce in QUANTITIES.items():
            values = [reduce(table[seeds].to_numpy(dtype=float)) for table in tables]
            found = statistics.compare(*values)
            rows.append(
                {
                    "family": family,
                    "scenario": first["scenario"],
                    "quantity": quantity,
                    "first": first["name"],
                    "second": second["name"],
                    "difference": found.interval.mean,
                    "difference_low": found.interval.low,
                    "difference_high": found.interval.high,
                    "p": found.p,
                    "effect_size": found.effect_size,
                    "superiority": found.superiority,
                    "lanes": len(seeds),
                    "run_id_first": first["run_id"],
                    "run_id_second": second["run_id"],
                }
            )
    table = pd.DataFrame(rows)
    if rows:
        table.insert(list(table.columns).index("p") + 1, "p_holm", statistics.holm(table["p"].to_numpy()))
    return table


def compute(sweep: Sweep, runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run: what it cost in gradient evaluations, and its accuracy within the budget of the cheapest of its scenario."""
    rows = []
    for run in load.rows(runs):
        peers = runs[runs["scenario"] == run["scenario"]]
        budget = float(peers["summary/gradient_evaluations"].min())
        lanes = sweep.lanes[sweep.lanes["run_id"] == run["run_id"]]
        spent = lanes.groupby("task")[schema.GRADIENT_EVALUATIONS].first()
        within = spent.index[spent <= budget]
        row = {
            "sweep": sweep.name,
            "scenario": run["scenario"],
            "method": run["method"],
            "name": run["name"],
            "gradient_evaluations": run["summary/gradient_evaluations"],
            "times_the_cheapest": run["summary/gradient_evaluations"] / budget,
            "accuracy": run["summary/accuracy_test"],
            "tasks_within_budget": len(within),
            "run_id": run["run_id"],
        }
        if len(within):
            accuracy = sweep.accuracy(run["run_id"]).loc[within].to_numpy(dtype=float)
            row |= _with_bounds("accuracy_within_budget", statistics.mean_accuracy(accuracy))
        rows.append(row)
    return pd.DataFrame(rows)


def budget(sweeps: Iterable[Sweep]) -> pd.DataFrame:
    """What each method of each scenario of each sweep was given and spent."""
    rows = []
    for sweep in sweeps:
        for group in sweep.plan["groups"]:
            runs = sweep.runs[(sweep.runs["scenario"] == group["scenario"]) & (sweep.runs["method"] == group["method"])]
            last = runs.get(schema.GRADIENT_EVALUATIONS, pd.Series(dtype=float)).fillna(0)
            seconds = (runs["ended"] - runs["started"]).dt.total_seconds()
            rows.append(
                {
                    "sweep": sweep.name,
                    "scenario": group["scenario"],
                    "method": group["method"],
                    "planned": group["trials"],
                    **{word: int((runs["outcome"] == word).sum()) for word in ("finished", "stopped", "failed")},
                    "other": int((~runs["outcome"].isin(["finished", "stopped", "failed"])).sum()),
                    "lanes": len(sweep.plan["seeds"]),
                    "tasks_trained": int(runs["tasks"].sum()),
                    "gradient_evaluations": float(last.sum() * len(sweep.plan["seeds"])),
                    "trial_hours": float(seconds.sum() / 3600),
                    "trials_with_diverged_lanes": int(
                        (runs.get(schema.DIVERGED_LANES, pd.Series(dtype=float)) > 0).sum()
                    ),
                    "run_id": sweep.run_id,
                }
            )
    return pd.DataFrame(rows)


def diverged(sweeps: Iterable[Sweep]) -> pd.DataFrame:
    """The trials with diverged lanes."""
    rows = [
        {
            "sweep": sweep.name,
            "scenario": run["scenario"],
            "method": run["method"],
            "name": run["name"],
            "outcome": run["outcome"],
            "lanes_diverged": run[schema.DIVERGED_LANES],
            "lanes": len(run["seeds"]),
            "run_id": run["run_id"],
        }
        for sweep in sweeps
        for run in load.rows(sweep.runs)
        if run.get(schema.DIVERGED_LANES, 0) > 0
    ]
    return pd.DataFrame(rows)


def versions(sweeps: Iterable[Sweep]) -> pd.DataFrame:
    """Versions, commit and device of each sweep."""
    rows = []
    for sweep in sweeps:
        found = {
            name.removeprefix("version/"): text for name, text in sweep.tags.items() if name.startswith("version/")
        }
        devices = ", ".join(sorted(set(sweep.runs["device"]) - {""}))
        facts = {**found, "git commit": sweep.tags.get("git_commit", "unknown"), "devices": devices or "unknown"}
        rows += [
            {"sweep": sweep.name, "what": name, "version": text, "run_id": sweep.run_id} for name, text in facts.items()
        ]
    return pd.DataFrame(rows)


def claims(findings: Sequence[Finding]) -> pd.DataFrame:
    """One row a claim."""
    return pd.DataFrame(
        [
            {
                "claim": finding.claim,
                "statement": finding.statement,
                "criterion": finding.criterion,
                "verdict": finding.verdict,
                "here": finding.here,
                "reason": finding.reason,
            }
            for finding in findings
        ]
    )


def effects(findings: Sequence[Finding]) -> pd.DataFrame:
    """One row an effect that a claim is judged by."""
    return pd.DataFrame(
        [
            {
                "claim": finding.claim,
                "effect": effect.label,
                "mean": effect.interval.mean,
                "low": effect.interval.low,
                "high": effect.interval.high,
                "level": effect.interval.level,
                "lanes": effect.interval.lanes,
                "claimed_above": effect.low,
                "claimed_below": effect.high,
                "outcome": effect.outcome,
                "lanes_needed": effect.lanes_needed,
                "run_ids": " ".join(effect.run_ids),
            }
            for finding in findings
            for effect in finding.effects
        ]
    )


def _with_bounds(name: str, lanes: Any, mean: float | None = None) -> dict[str, float]:
    """The mean over lanes, or the one that MLflow has, with the bounds of its interval."""
    interval = statistics.t_interval(lanes)
    return {name: interval.mean if mean is None else mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
