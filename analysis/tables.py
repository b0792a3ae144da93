"""Settings beside each other: their accuracy, tuned and confirmed, paired differences, equal compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis import load, selection, statistics
from analysis.evidence import Evidence
from analysis.load import Sweep
from analysis.tables.frames import frame
from study import schema

QUANTITIES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "mean accuracy": statistics.mean_accuracy,
    "decline": statistics.decline,
}
"""What settings are compared by, one number a lane."""


def best(sweep: Sweep, count: int = 1) -> pd.DataFrame:
    """The finished runs with the highest objective of each scenario and method; none without an objective."""
    if "summary/objective" not in sweep.runs or sweep.phase == "confirm":
        return sweep.runs.iloc[:0]
    return selection.best(sweep.runs.assign(objective=sweep.runs["summary/objective"]), count)


def settings(sweep: Sweep, runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run: test accuracy over its lanes with intervals, decline, slope, interquartile mean."""
    rows = []
    for run in load.rows(runs):
        accuracy = sweep.accuracy(run["run_id"]).to_numpy(dtype=float)
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
                **(_with_bounds("slope", statistics.slope(accuracy)) if len(accuracy) > 1 else {}),
                "lanes_diverged": run["summary/lanes_diverged"],
                "gradient_evaluations": run["summary/gradient_evaluations"],
                "run_id": run["run_id"],
            }
        )
    return frame(
        rows,
        "sweep scenario method trial name selected_rank lanes tasks accuracy accuracy_low accuracy_high accuracy_iqm "
        "first_tenth last_tenth decline decline_low decline_high slope slope_low slope_high lanes_diverged "
        "gradient_evaluations run_id",
    )


def per_task(sweep: Sweep, run_id: str) -> pd.DataFrame:
    """Test accuracy of each task of one run over its lanes: columns task, accuracy, accuracy_low, accuracy_high."""
    accuracy = sweep.accuracy(run_id)
    rows = [
        {"task": task, **_with_bounds("accuracy", row)}
        for task, row in zip(accuracy.index, accuracy.to_numpy(dtype=float), strict=True)
    ]
    return frame(rows, "task accuracy accuracy_low accuracy_high")


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
    return frame(
        rows,
        "confirmation scenario method name selected_rank objective_tuned objective_confirmed "
        "objective_tuned_minus_confirmed accuracy_tuned accuracy_confirmed accuracy_confirmed_low accuracy_confirmed_high "
        "accuracy_tuned_minus_confirmed lanes_tuned lanes_confirmed run_id_tuned run_id_confirmed",
    )


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
    """First minus second of each pair in each of `QUANTITIES`, over the seeds that both have; p-values with Holm's correction.

    There is no p-value with more seeds than the exact test takes, `statistics.MOST_FLIPPED`; NaN, and not in the family.
    """
    rows = []
    for first, second in pairs:
        tables = sweep.accuracy(first["run_id"]), sweep.accuracy(second["run_id"])
        seeds = [seed for seed in tables[0].columns if seed in tables[1].columns]
        if not seeds:
            continue
        for quantity, reduce in QUANTITIES.items():
            values = [reduce(table[seeds].to_numpy(dtype=float)) for table in tables]
            found = _compared(*values)
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
    table = frame(
        rows,
        "family scenario quantity first second difference difference_low difference_high p p_holm effect_size superiority "
        "lanes run_id_first run_id_second",
    )
    known = table["p"].notna()
    table.loc[known, "p_holm"] = statistics.holm(table.loc[known, "p"].to_numpy(dtype=float))
    return table


def _compared(first: Any, second: Any) -> statistics.Comparison:
    if len(first) <= statistics.MOST_FLIPPED:
        return statistics.compare(first, second)
    d = np.where(np.isclose(first, second, rtol=statistics.TIE, atol=0), 0.0, first - second)
    return statistics.Comparison(statistics.t_interval(d), np.nan, statistics.effect_size(d), statistics.superiority(d))


def compute(sweep: Sweep, runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run: what it cost in gradient evaluations, and its accuracy within the budget of the cheapest of its scenario.

    That is the mean over the tasks that it ended within this budget, `tasks_within_budget` of them from the first on: at two
    gradients a step they are half of the tasks of the cheapest run, and not its later ones.
    """
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
    return frame(
        rows,
        "sweep scenario method name gradient_evaluations times_the_cheapest accuracy tasks_within_budget "
        "accuracy_within_budget accuracy_within_budget_low accuracy_within_budget_high run_id",
    )


def _with_bounds(name: str, lanes: Any, mean: float | None = None) -> dict[str, float]:
    """The mean over lanes, or the one that MLflow has, with the bounds of its interval."""
    interval = statistics.t_interval(lanes)
    return {name: interval.mean if mean is None else mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
