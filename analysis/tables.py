"""The tables of a report: sweeps in, data frames out.

Every row names the MLflow runs its numbers come from. Accuracies, declines and differences are shares. A mean over lanes comes
with the bounds of its 95 % t interval, `_low` and `_high`, NaN if unknown because there is one lane. A number that MLflow has is
taken from there to the last digit. A table without rows still has all its columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis import batches, diagnostics, load, sample, statistics
from analysis.correlation import Correlation
from analysis.load import RUN_COLUMNS, Sweep
from analysis.paper.evidence import Evidence
from analysis.paper.verdicts import Effect, Finding
from study import schema, selection
from study.decision import halving
from study.selection import Candidate

QUANTITIES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "mean accuracy": statistics.mean_accuracy,
    "decline": statistics.decline,
}
"""What settings are compared by: accuracies [task, lane] to [lane]."""

KINDS: Final = ("alone", "given", "in_time")
"""The correlations of `diagnostics.associations`."""


# --- Settings compared --------------------------------------------------------------------------------------------------


def best(sweep: Sweep, count: int = 1) -> pd.DataFrame:
    """The best finished runs of each scenario and method.

    Those with the best objective; none without an objective, nor in a confirmation, nor with fewer than all seeds.
    """
    chosen = selection.best(candidates(sweep), count, is_maximised=sweep.objectives[0].is_maximised)
    found = [winner.trial for winner in chosen]
    return sweep.runs.set_index("run_id", drop=False).loc[found].reset_index(drop=True)


def candidates(sweep: Sweep) -> list[Candidate]:
    """What a selection reads of a sweep's runs.

    Trials are named by their run ids. Empty without an objective, and of a confirmation.
    """
    goal = sweep.objectives[0]
    if goal.column not in sweep.runs or sweep.phase == "confirm":
        return []
    return [
        Candidate(
            trial=run["run_id"],
            number=int(run["number"]),
            scenario=run["scenario"],
            method=run["method"],
            outcome=run["outcome"] if len(run["seeds"]) == len(sweep.plan["seeds"]) else "stopped",
            objective=None if math.isnan(run[goal.column]) else float(run[goal.column]),
        )
        for run in load.rows(sweep.runs)
    ]


def shown(sweep: Sweep) -> pd.DataFrame:
    """The runs that stand for a sweep before its confirmation.

    The best of each scenario and method; where no images were held out and nothing was selected, all that have finished, or a
    sample of many.
    """
    chosen, column = best(sweep), sweep.objectives[0].column
    scored = column in sweep.runs and bool(sweep.runs[column].notna().any())
    return chosen if scored else sample.best_and_sample(sweep.finished, sweep.objectives[0])


def settings(sweep: Sweep, runs: pd.DataFrame) -> pd.DataFrame:
    """One row per run: accuracy, decline and slope with intervals."""
    rows, bounds = [], partial(_with_bounds, level=sweep.level)
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
                **bounds("accuracy", statistics.mean_accuracy(accuracy), run["summary/accuracy_test"]),
                "accuracy_iqm": statistics.iqm(statistics.mean_accuracy(accuracy)),
                "first_tenth": run["summary/accuracy_test_first_tenth"],
                "last_tenth": run["summary/accuracy_test_last_tenth"],
                **bounds("decline", statistics.decline(accuracy), run["summary/decline_test"]),
                **bounds(
                    "decline_after_warmup",
                    statistics.decline_after_warmup(accuracy),
                    run.get(schema.DECLINE_AFTER_WARMUP_TEST),
                ),
                **(bounds("slope", statistics.slope(accuracy)) if len(accuracy) > 1 else {}),
                "lanes_diverged": run["summary/lanes_diverged"],
                "gradient_evaluations": run["summary/gradient_evaluations"],
                "run_id": run["run_id"],
            }
        )
    return frame(
        rows,
        "sweep scenario method trial name selected_rank lanes tasks accuracy accuracy_low accuracy_high accuracy_iqm "
        "first_tenth last_tenth decline decline_low decline_high decline_after_warmup decline_after_warmup_low "
        "decline_after_warmup_high slope slope_low slope_high lanes_diverged "
        "gradient_evaluations run_id",
    )


def per_task(sweep: Sweep, run_id: str) -> pd.DataFrame:
    """Test accuracy of one run per task.

    Columns task, accuracy, accuracy_low, accuracy_high.
    """
    accuracy = sweep.accuracy(run_id)
    rows = [
        {"task": task, **_with_bounds("accuracy", row, level=sweep.level)}
        for task, row in zip(accuracy.index, accuracy.to_numpy(dtype=float), strict=True)
    ]
    return frame(rows, "task accuracy accuracy_low accuracy_high")


def difference_per_task(sweep: Sweep, run_id: str, baseline_id: str) -> pd.DataFrame:
    """Test accuracy of a run minus a baseline's per task.

    Paired over the seeds and tasks that both have. Columns task, difference, difference_low, difference_high.
    """
    differences = (sweep.accuracy(run_id) - sweep.accuracy(baseline_id)).dropna(axis="columns", how="all").dropna()
    rows = [
        {"task": task, **_with_bounds("difference", row, level=sweep.level)}
        for task, row in zip(differences.index, differences.to_numpy(dtype=float), strict=True)
    ]
    return frame(rows, "task difference difference_low difference_high")


def tuned_and_confirmed(tuned: Sweep, confirmation: Sweep) -> pd.DataFrame:
    """One row per confirmed run: tuned and confirmed scores.

    Runs that the tuning does not have are left out.
    """
    before = {run["trial"]: run for run in load.rows(tuned.finished)}
    column = tuned.objectives[0].column
    rows = []
    for run in load.rows(confirmation.finished):
        old = before.get(run["confirms_trial"])
        if old is None:
            continue
        lanes = statistics.mean_accuracy(confirmation.accuracy(run["run_id"]).to_numpy(dtype=float))
        objectives = old.get(column, np.nan), run.get(column, np.nan)
        tests = old["summary/accuracy_test"], run["summary/accuracy_test"]
        rows.append(
            {
                "confirmation": confirmation.name,
                "scenario": run["scenario"],
                "method": run["method"],
                "name": run["name"],
                "trial_tuned": old["trial"],
                "trial_confirmed": run["trial"],
                "selected_rank": run["selected_rank"],
                "objective_tuned": objectives[0],
                "objective_confirmed": objectives[1],
                "objective_tuned_minus_confirmed": objectives[0] - objectives[1],
                "accuracy_tuned": tests[0],
                **_with_bounds("accuracy_confirmed", lanes, tests[1], level=confirmation.level),
                "accuracy_tuned_minus_confirmed": tests[0] - tests[1],
                "lanes_tuned": len(old["seeds"]),
                "lanes_confirmed": len(run["seeds"]),
                "run_id_tuned": old["run_id"],
                "run_id_confirmed": run["run_id"],
            }
        )
    return frame(
        rows,
        "confirmation scenario method name trial_tuned trial_confirmed selected_rank objective_tuned objective_confirmed "
        "objective_tuned_minus_confirmed accuracy_tuned accuracy_confirmed accuracy_confirmed_low accuracy_confirmed_high "
        "accuracy_tuned_minus_confirmed lanes_tuned lanes_confirmed run_id_tuned run_id_confirmed",
    )


def winners_differences(confirmation: Sweep) -> pd.DataFrame:
    """Paired differences between the confirmed winners, per scenario; one family."""
    winners = confirmation.finished[confirmation.finished["selected_rank"] == 1]
    return _differences(f"winners, {confirmation.name}", confirmation, _pairs(winners))


def best_differences(tuned: Sweep) -> pd.DataFrame:
    """Paired differences between the best of each method.

    On the seeds that they were chosen by, per scenario; one family.
    """
    return _differences(f"the best of each method, {tuned.name}", tuned, _pairs(best(tuned)))


def _pairs(runs: pd.DataFrame) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """All pairs of runs of the same scenario."""
    return [
        pair
        for scenario in dict.fromkeys(runs["scenario"])
        for pair in combinations(load.rows(runs[runs["scenario"] == scenario]), 2)
    ]


def paper_differences(sweep: Sweep, evidence: Evidence) -> pd.DataFrame:
    """Paired differences between methods at the paper's settings; one family.

    Methods are compared at equal learning rate.
    """
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
    """First minus second of each pair, over their common seeds.

    One row per pair and quantity of `QUANTITIES`, with Holm's correction over all of them. With more seeds than the exact test
    takes, `statistics.MOST_FLIPPED`, the p-value is NaN and not part of the family. A p-value that several looks could have
    stopped at is multiplied by their number (Bonferroni).
    """
    rows = []
    for first, second in pairs:
        tables = sweep.accuracy(first["run_id"]), sweep.accuracy(second["run_id"])
        seeds = [seed for seed in tables[0].columns if seed in tables[1].columns]
        if not seeds:
            continue
        for quantity, reduce in QUANTITIES.items():
            one, other = (reduce(table[seeds].to_numpy(dtype=float)) for table in tables)
            result = compared(one, other, sweep.level)
            rows.append(
                {
                    "family": family,
                    "scenario": first["scenario"],
                    "quantity": quantity,
                    "first": first["name"],
                    "second": second["name"],
                    "difference": result.interval.mean,
                    "difference_low": result.interval.low,
                    "difference_high": result.interval.high,
                    "p": min(1.0, sweep.looks * result.p) if result.p == result.p else result.p,
                    "effect_size": result.effect_size,
                    "superiority": result.superiority,
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
    if sweep.looks > 1:
        table["looks"] = sweep.looks
    tested = table["p"].notna()
    table.loc[tested, "p_holm"] = statistics.holm(table.loc[tested, "p"].to_numpy(dtype=float))
    return table


def compared(first: Any, second: Any, level: float = 0.95) -> statistics.Comparison:
    """`statistics.compare` of any number of seeds, values [lane].

    With more than the exact test takes, p is NaN.
    """
    if len(first) <= statistics.MOST_FLIPPED:
        return statistics.compare(first, second, level)
    d = np.where(np.isclose(first, second, rtol=statistics.TIE, atol=0), 0.0, first - second)
    interval = statistics.t_interval(d, level)
    return statistics.Comparison(interval, np.nan, statistics.effect_size(d), statistics.superiority(d))


def compute(sweep: Sweep, runs: pd.DataFrame) -> pd.DataFrame:
    """One row per run: accuracy within the cheapest run's budget.

    The budget is what the cheapest run of the scenario spends, in gradient evaluations. The accuracy is the mean over the tasks
    that a run completes within it, `tasks_within_budget` of them from the first on: at two gradients per step, the first half
    of the cheapest run's tasks.
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
            row |= _with_bounds("accuracy_within_budget", statistics.mean_accuracy(accuracy), level=sweep.level)
        rows.append(row)
    return frame(
        rows,
        "sweep scenario method name gradient_evaluations times_the_cheapest accuracy tasks_within_budget "
        "accuracy_within_budget accuracy_within_budget_low accuracy_within_budget_high run_id",
    )


def _with_bounds(name: str, lanes: Any, mean: float | None = None, *, level: float) -> dict[str, float]:
    """The mean over lanes, or MLflow's, with its bounds."""
    interval = statistics.t_interval(lanes, level)
    return {name: interval.mean if mean is None else mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


# --- What was tried, what it cost, what became of the claims -------------------------------------------------------------


def trials(sweeps: Iterable[Sweep]) -> pd.DataFrame:
    """Every trial of every sweep: outcome, settings, summary."""
    first = ["sweep", "trial", "scenario", "method", "name", "outcome", "reason"]
    tables = [sweep.runs.assign(sweep=sweep.name) for sweep in sweeps if len(sweep.runs)]
    if not tables:
        return pd.DataFrame(columns=[*first, *(name for name in RUN_COLUMNS if name not in first)])
    together = pd.concat(tables, ignore_index=True)
    return together[[*first, *(column for column in together.columns if column not in first)]]


def budget(sweeps: Sequence[Sweep]) -> pd.DataFrame:
    """What each method of each scenario was given and spent."""
    rows = []
    for sweep in sweeps:
        due, lanes = batches.due_trials(sweep), batches.lanes_of(sweep)
        for group in sweep.plan["groups"]:
            known = sweep.recorded
            runs = known[(known["scenario"] == group["scenario"]) & (known["method"] == group["method"])]
            planned = sum(halving.sizes(group["trials"], max(1, len(sweep.rungs))))
            last = runs.get(schema.GRADIENT_EVALUATIONS, pd.Series(dtype=float)).fillna(0)
            seconds = (runs["ended"] - runs["started"]).dt.total_seconds()
            rows.append(
                {
                    "sweep": sweep.name,
                    "scenario": group["scenario"],
                    "method": group["method"],
                    "planned": planned,
                    "not_needed": planned - due[group["scenario"], group["method"]] if sweep.rule else 0,
                    **{word: int((runs["outcome"] == word).sum()) for word in ("finished", "stopped", "failed")},
                    "other": int((~runs["outcome"].isin(["finished", "stopped", "failed"])).sum()),
                    "lanes": lanes,
                    "tasks_trained": int(runs["tasks"].sum()),
                    "gradient_evaluations": float(
                        (last * runs["seeds"].map(len)).sum() if lanes is None else last.sum() * lanes
                    ),
                    "trial_hours": float(seconds.sum() / 3600),
                    "trials_with_diverged_lanes": int(
                        (runs.get(schema.DIVERGED_LANES, pd.Series(dtype=float)) > 0).sum()
                    ),
                    "run_id": sweep.run_id,
                }
            )
    not_needed = " not_needed" if any(sweep.rule for sweep in sweeps) else ""
    return frame(
        rows,
        f"sweep scenario method planned{not_needed} finished stopped failed other lanes tasks_trained gradient_evaluations "
        "trial_hours trials_with_diverged_lanes run_id",
    )


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
    return frame(rows, "sweep scenario method name outcome lanes_diverged lanes run_id")


def versions(sweeps: Iterable[Sweep]) -> pd.DataFrame:
    """Versions, commit, source and device of each sweep."""
    rows = []
    for sweep in sweeps:
        packages = {
            name.removeprefix("version/"): text for name, text in sweep.tags.items() if name.startswith("version/")
        }
        devices = ", ".join(sorted(set(sweep.runs["device"]) - {""}))
        facts = {
            **packages,
            "git commit": sweep.tags.get("git_commit", "unknown"),
            "source": sweep.tags.get("source_fingerprint", "unknown"),
            "devices": devices or "unknown",
        }
        rows += [
            {"sweep": sweep.name, "what": name, "version": text, "run_id": sweep.run_id} for name, text in facts.items()
        ]
    return frame(rows, "sweep what version run_id")


def claims(findings: Sequence[Finding]) -> pd.DataFrame:
    """One row per claim."""
    columns = "claim statement criterion verdict here reason"
    return frame([{name: getattr(finding, name) for name in columns.split()} for finding in findings], columns)


def effects(findings: Sequence[Finding]) -> pd.DataFrame:
    """One row per effect that a claim is judged by."""
    rows = [
        {
            "claim": finding.claim,
            "effect": effect.label,
            "mean": effect.interval.mean,
            "mean_low": effect.interval.low,
            "mean_high": effect.interval.high,
            "level": effect.interval.level,
            "lanes": effect.interval.lanes,
            "claimed_above": effect.low,
            "claimed_below": effect.high,
            **_proviso(effect),
            "outcome": effect.outcome,
            "lanes_needed": effect.lanes_needed,
            "run_ids": " ".join(effect.run_ids),
        }
        for finding in findings
        for effect in finding.effects
    ]
    return frame(
        rows,
        "claim effect mean mean_low mean_high level lanes claimed_above claimed_below proviso proviso_low proviso_high outcome "
        "lanes_needed run_ids",
    )


def _proviso(effect: Effect) -> dict[str, float]:
    """The effect's proviso, where it has one.

    How much better the second setting learns the last tenth of the tasks.
    """
    if effect.proviso is None:
        return {}
    return {"proviso": effect.proviso.mean, "proviso_low": effect.proviso.low, "proviso_high": effect.proviso.high}


# --- Inside the networks -------------------------------------------------------------------------------------------------


def associations(sweep: Sweep, runs: pd.DataFrame, moment: diagnostics.Moment) -> pd.DataFrame:
    """One row per run and diagnostic: correlation with accuracy.

    Within lanes, with test accuracy on the task that follows the measurement.
    """
    looked_into, lanes = (table[table["run_id"].isin(runs["run_id"])] for table in (sweep.diagnostics, sweep.lanes))
    networks = diagnostics.with_accuracy(looked_into, lanes, moment)
    rows = []
    for run in load.rows(runs):
        own = networks[networks["run_id"] == run["run_id"]]
        for name, correlations in diagnostics.associations(own, moment).items():
            rows.append(
                {
                    **{key: run[key] for key in ("scenario", "method", "name", "trial")},
                    "sweep": sweep.name,
                    "diagnostic": name,
                    "lanes": correlations["alone"].lanes,
                    "pairs": correlations["alone"].pairs,
                    **{key: value for kind in KINDS for key, value in _bounded(kind, correlations).items()},
                    "run_id": run["run_id"],
                }
            )
    bounded = " ".join(f"{kind} {kind}_low {kind}_high" for kind in KINDS)
    return frame(rows, f"sweep scenario method name trial diagnostic lanes pairs {bounded} run_id")


def _bounded(kind: str, correlations: Mapping[str, Correlation]) -> dict[str, float]:
    result = correlations.get(kind)
    values = (result.value, result.low, result.high) if result else (np.nan, np.nan, np.nan)
    return dict(zip((kind, f"{kind}_low", f"{kind}_high"), values, strict=True))


def networks(sweep: Sweep, run_id: str, moment: diagnostics.Moment) -> pd.DataFrame:
    """Diagnostics of one run per task, means over lanes.

    Columns task, then the diagnostics.
    """
    table = diagnostics.of_networks(sweep.diagnostics[sweep.diagnostics["run_id"] == run_id])
    names = [name for name in moment.properties if name in table]
    return table.groupby("task", as_index=False)[names].mean()


def frame(rows: Sequence[Mapping[str, Any]], columns: str) -> pd.DataFrame:
    """Rows as a frame with these columns, separated by spaces."""
    return pd.DataFrame(rows, columns=columns.split())
