"""One trial's run in MLflow, as a row and as a table of its lanes, checked against `study.schema`.

Whatever is missing or odd is told by a sentence in `notes`. A row says how the trial ended:

    finished      with all its numbers there
    incomplete    called finished, but MLflow lacks some of its numbers
    stopped       early, by the scheduler
    failed        with a reason
    interrupted   its sweep ended before it did
    running       now, or it was cut off without a word
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run

from study import schema

LANE_COLUMNS: Final = ("run_id", "trial", "scenario", "method", "lane", "seed", "task")
"""First columns of a table of lanes; then come the quantities, by slash name."""

SAME: Final = 1e-6
"""Two means of accuracies, shares k / n, that are nearer to each other than this differ by rounding alone."""

_LANE = re.compile(r"/lane_\d+$")
_LAYER = re.compile(r"/layer_\w+$")


def trials_of(runs: Sequence[Run], plan: Mapping[str, Any], notes: list[str]) -> list[tuple[Run, dict[str, Any]]]:
    """The runs that are trials of a plan, in its order, each with its name, scenario, method and number."""
    labels = [f"{group['scenario']}-{group['method']}" for group in plan["groups"]]
    found: dict[tuple[int, int], tuple[Run, dict[str, Any]]] = {}
    for run in runs:
        name = run.data.tags.get("trial", "")
        label, _, number = name.rpartition("-")
        if label not in labels or not number.isdecimal():
            notes.append(f"The run {run.info.run_id} is no trial of this sweep's plan; it is passed over.")
            continue
        place = labels.index(label), int(number)
        if place in found:
            notes.append(f"{name} has a second run, {run.info.run_id}; it is passed over.")
            continue
        group = plan["groups"][place[0]]
        key = {"trial": name, "scenario": group["scenario"], "method": group["method"], "number": int(number)}
        found[place] = run, key
    return [found[place] for place in sorted(found)]


def lane_table(
    client: MlflowClient, run: Run, key: Mapping[str, Any], quantities: Sequence[str], notes: list[str]
) -> pd.DataFrame:
    """One row for each lane and task of which every quantity that the run logs is there; the others are NaN."""
    by_lane = {quantity.name: quantity.by_lane for quantity in schema.PER_TASK}
    logged = {_LANE.sub("", name) for name in run.data.metrics} | {schema.TEST_ACCURACY}
    there = [name for name in quantities if name in logged]
    shared = {name: _history(client, run, name, notes) for name in there if not by_lane[name]}
    tables = [pd.DataFrame(columns=[*LANE_COLUMNS, *quantities])]
    for lane, seed in enumerate(seeds_of(run)):
        own = {name: _history(client, run, schema.lane_name(name, lane), notes) for name in there if by_lane[name]}
        table = pd.DataFrame({**shared, **own}).sort_index().dropna()
        table = table.reindex(columns=list(quantities)).rename_axis("task").reset_index()
        place = {name: key[name] for name in ("trial", "scenario", "method")}
        tables.append(table.assign(run_id=run.info.run_id, **place, lane=lane, seed=seed))
    return joined(tables)


def joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all tables; the first one has the columns."""
    whole = [table for table in tables if len(table)]
    return pd.concat(whole, ignore_index=True)[list(tables[0].columns)] if whole else tables[0]


def _history(client: MlflowClient, run: Run, name: str, notes: list[str]) -> pd.Series[float]:
    """The values of a metric by task; empty when it was not logged."""
    history = client.get_metric_history(run.info.run_id, name) if name in run.data.metrics else []
    values = {metric.step: metric.value for metric in sorted(history, key=lambda metric: metric.timestamp)}
    if len({(metric.step, metric.value) for metric in history}) > len(values):
        notes.append(f"{run.data.tags['trial']}: {name} has two values for one task; the later one is taken.")
    return pd.Series(values, dtype="float64", index=pd.Index(list(values), dtype="int64"))


def seeds_of(run: Run) -> tuple[int, ...]:
    """The seed of each lane; none before the trial's settings are there."""
    return tuple(_value(run.data.params.get("seeds", "[]")))


def task_count(run: Run, table: pd.DataFrame) -> int:
    """Tasks that a trial has at least, as planned or as seen."""
    planned = _value(run.data.params.get("tasks/count", "None")) or 0
    return max(planned, int(table["task"].max()) + 1 if len(table) else 0)


def row(
    run: Run, key: Mapping[str, Any], table: pd.DataFrame, longest: int, phase: str, notes: list[str]
) -> dict[str, Any]:
    """What is known of a trial whose sequence has `longest` tasks: columns of `load.RUN_COLUMNS`, settings and metrics."""
    tags = run.data.tags
    settings = {name: _value(text) for name, text in run.data.params.items() if name != "seeds"}
    tasks = _tasks_of_all_lanes(table, len(seeds_of(run)))
    outcome = tags.get("outcome", "running")
    if outcome == "finished":
        missing = _missing(run, tasks, longest)
        if missing:
            outcome = "incomplete"
            notes.append(
                f"{key['trial']} has finished, but MLflow lacks {', '.join(missing)}; bring it up to date with `study sync`."
            )
        else:
            _compare(run, table, notes)
    for name in run.data.metrics:
        if not _is_declared(name):
            notes.append(f"{key['trial']}: the metric {name!r} is not one of the study's; it is passed over.")
    return {
        **key,
        "run_id": run.info.run_id,
        "phase": phase,
        "name": run.info.run_name,
        "outcome": outcome,
        "reason": tags.get("reason", "") if outcome == "failed" else "",
        "seeds": seeds_of(run),
        "tasks": tasks,
        "confirms_trial": tags.get("confirms_trial"),
        "confirms_run_id": tags.get("confirms_run_id"),
        "selected_rank": int(tags["selected_rank"]) if "selected_rank" in tags else None,
        "device": tags.get("device_name", tags.get("device", "")),
        "started": run.info.start_time,
        "ended": run.info.end_time,
        **settings,
        **{name: value for name, value in run.data.metrics.items() if name in schema.QUANTITIES},
    }


def _tasks_of_all_lanes(table: pd.DataFrame, lanes: int) -> int:
    """How many tasks from the first on have every lane's values."""
    counts = table["task"].value_counts()
    whole = set(counts.index[counts == lanes])
    return next(task for task in range(len(whole) + 1) if task not in whole)


def _missing(run: Run, tasks: int, longest: int) -> list[str]:
    """What a finished trial should have in MLflow and has not."""
    has = {name for name, value in run.data.metrics.items() if math.isfinite(value)}
    validated = any(quantity.needs_validation and quantity.name in has for quantity in schema.PER_TASK)
    due = [quantity for quantity in schema.SUMMARY if validated or not quantity.needs_validation]
    missing = [quantity.name for quantity in due if quantity.name not in has]
    return [f"{longest - tasks} of {longest} tasks", *missing] if tasks < longest or not tasks else missing


def _compare(run: Run, table: pd.DataFrame, notes: list[str]) -> None:
    """Notes a summary that its own lanes belie: a value was changed or logged twice."""
    told, found = run.data.metrics["summary/accuracy_test"], table[schema.TEST_ACCURACY].mean()
    if abs(told - found) > SAME:
        notes.append(
            f"{run.data.tags['trial']}: summary/accuracy_test is {told:.6g}, but its lanes have {found:.6g} on average; "
            f"its numbers have been changed."
        )


def _is_declared(name: str) -> bool:
    """Whether the schema has the quantity: as it is or, where it says so, of one lane or one layer."""
    whole = _LANE.sub("", name)
    if (quantity := schema.QUANTITIES.get(whole)) is not None:
        return quantity.by_lane or whole == name
    layered = schema.QUANTITIES.get(_LAYER.sub("", name))
    return layered is not None and layered.by_layer


def _value(text: str) -> Any:
    """A parameter as it was before MLflow made a text of it."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
