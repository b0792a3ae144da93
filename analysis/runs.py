"""One trial's run in MLflow: its row and lanes.

Both are checked against `study.schema`; anything missing or odd is reported as a sentence in `notes`. A row says how the trial
ended:

    finished      all its numbers are there
    incomplete    marked finished, but MLflow lacks some of its numbers
    stopped       early, by the scheduler
    failed        with a reason
    interrupted   its sweep ended before it did
    running       still running, or cut off without a trace

The lanes' values come from the run's table of lanes, one file. Runs that lack it, or whose table does not fit their metrics, have
theirs read from the metrics' histories, one call each. Both hold the same numbers to the last digit.
"""

from __future__ import annotations

import ast
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from study import schema
from study.tracking.client import Artifacts

LANE_COLUMNS: Final = ("run_id", "trial", "scenario", "method", "lane", "seed", "task")
"""First columns of a table of lanes; the quantities follow, by slash name."""

LANES_FILE: Final = "tables/lanes.csv"
"""A run's artifact with its lanes' values, written when the trial ends."""

SAME: Final = 1e-6
"""Two mean accuracies closer than this differ by rounding alone, since accuracies are shares k / n."""

_LANE = re.compile(r"/lane_\d+$")
_LAYER = re.compile(r"/layer_\w+$")


def trials_of(runs: Sequence[Run], plan: Mapping[str, Any], notes: list[str]) -> list[tuple[Run, dict[str, Any]]]:
    """The runs that are the plan's trials, in its order.

    Each comes with its key: trial, scenario, method and number.
    """
    labels = [f"{group['scenario']}-{group['method']}" for group in plan["groups"]]
    trials: dict[tuple[int, int], tuple[Run, dict[str, Any]]] = {}
    for run in runs:
        name = run.data.tags.get("trial", "")
        label, _, number = name.rpartition("-")
        if label not in labels or not number.isdecimal():
            notes.append(f"The run {run.info.run_id} is not a trial of this sweep's plan; it is ignored.")
            continue
        position = labels.index(label), int(number)
        if position in trials:
            notes.append(f"{name} has a second run, {run.info.run_id}; it is ignored.")
            continue
        group = plan["groups"][position[0]]
        key = {"trial": name, "scenario": group["scenario"], "method": group["method"], "number": int(number)}
        trials[position] = run, key
    return [trials[position] for position in sorted(trials)]


def lane_table(
    client: MlflowClient,
    artifacts: Artifacts,
    run: Run,
    key: Mapping[str, Any],
    quantities: Sequence[str],
    notes: list[str],
) -> pd.DataFrame:
    """One row per lane and task with all logged quantities.

    Quantities that the run does not log are NaN.
    """
    by_lane = {quantity.name: quantity.by_lane for quantity in schema.PER_TASK}
    logged = {_LANE.sub("", name) for name in run.data.metrics} | {schema.TEST_ACCURACY}
    names = [name for name in quantities if name in logged]
    own_names = [name for name in names if by_lane[name]]
    shared = {name: _history(client, run, name, notes) for name in names if not by_lane[name]}
    lanes = _lanes_from_table(artifacts, run, own_names)
    if lanes is None:
        lanes = _lanes_from_histories(client, run, own_names, notes)
    tables = [pd.DataFrame(columns=[*LANE_COLUMNS, *quantities])]
    place = {name: key[name] for name in ("trial", "scenario", "method")}
    for lane, (seed, own) in enumerate(zip(seeds_of(run), lanes, strict=True)):
        # shared and own values are series by task; a task counts only where all of them have a value
        table = pd.DataFrame({**shared, **own}).sort_index().dropna()
        table = table.reindex(columns=list(quantities)).rename_axis("task").reset_index()
        tables.append(table.assign(run_id=run.info.run_id, **place, lane=lane, seed=seed))
    return joined(tables)


Lanes = list[dict[str, "pd.Series[float]"]]
"""For each lane, its quantities by name: values by task."""


def _lanes_from_table(artifacts: Artifacts, run: Run, names: Sequence[str]) -> Lanes | None:
    """The lanes' values from the run's table, if it fits.

    None if there is no table, if it is not one row per lane and task from the first task on, or if its last task does not
    have the values that MLflow shows as each metric's latest: a table from before an interruption, or changed metrics.
    """
    if run.data.tags.get("outcome", "running") == "running":
        return None
    try:
        # as text first: Python parses a float to the last digit, in every pandas
        table = pd.read_csv(io.StringIO(artifacts.text(run, LANES_FILE)), dtype=str)
        whole = dict.fromkeys(("task", "lane", "seed"), "int64")
        table = table.astype({**whole, **dict.fromkeys(names, "float64")}).sort_values(["lane", "task"])
    except (MlflowException, OSError, ValueError, KeyError):
        return None
    seeds = seeds_of(run)
    tasks = table["task"].nunique()
    rows = [(lane, seed, task) for lane, seed in enumerate(seeds) for task in range(tasks)]
    if not rows or list(zip(table["lane"], table["seed"], table["task"], strict=True)) != rows:
        return None
    lanes: Lanes = []
    for lane in range(len(seeds)):
        own = table[table["lane"] == lane].set_index("task")
        if any(own[name].iloc[-1] != run.data.metrics.get(schema.lane_name(name, lane)) for name in names):
            return None
        lanes.append({name: own[name] for name in names})
    return lanes


def _lanes_from_histories(client: MlflowClient, run: Run, names: Sequence[str], notes: list[str]) -> Lanes:
    """The lanes' values from the metrics' histories."""
    return [
        {name: _history(client, run, schema.lane_name(name, lane), notes) for name in names}
        for lane in range(len(seeds_of(run)))
    ]


def joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all tables under the first one's columns."""
    nonempty = [table for table in tables if len(table)]
    return pd.concat(nonempty, ignore_index=True)[list(tables[0].columns)] if nonempty else tables[0]


def _history(client: MlflowClient, run: Run, name: str, notes: list[str]) -> pd.Series[float]:
    """A metric's values by task; empty if never logged."""
    history = client.get_metric_history(run.info.run_id, name) if name in run.data.metrics else []
    values = {metric.step: metric.value for metric in sorted(history, key=lambda metric: metric.timestamp)}
    if len({(metric.step, metric.value) for metric in history}) > len(values):
        notes.append(f"{run.data.tags['trial']}: {name} has two values for one task; the later one is used.")
    return pd.Series(values, dtype="float64", index=pd.Index(list(values), dtype="int64"))


def seeds_of(run: Run) -> tuple[int, ...]:
    """The seed of each lane; none before settings are logged."""
    return tuple(_value(run.data.params.get("seeds", "[]")))


def task_count(run: Run, table: pd.DataFrame) -> int:
    """Tasks the trial has at least, as planned or logged."""
    planned = _value(run.data.params.get("tasks/count", "None")) or 0
    return max(planned, int(table["task"].max()) + 1 if len(table) else 0)


def row(
    run: Run, key: Mapping[str, Any], table: pd.DataFrame, longest: int, phase: str, notes: list[str]
) -> dict[str, Any]:
    """One trial as a row of `Sweep.runs`.

    Args:
        run: the trial's run.
        key: its trial, scenario, method and number.
        table: its lanes, see `lane_table`.
        longest: tasks of the longest trial of its scenario, which a finished trial must have too.
        phase: of the sweep.
        notes: receives a sentence about whatever is missing or odd.

    Returns:
        The columns of `load.RUN_COLUMNS`, then settings and metrics by slash name.
    """
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
            notes.append(f"{key['trial']}: the metric {name!r} is not one of the study's; it is ignored.")
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
    """Tasks, from the first on, with every lane's values."""
    counts = table["task"].value_counts()
    complete = set(counts.index[counts == lanes])
    return next(task for task in range(len(complete) + 1) if task not in complete)


def _missing(run: Run, tasks: int, longest: int) -> list[str]:
    """What MLflow lacks of a finished trial."""
    logged = {name for name, value in run.data.metrics.items() if math.isfinite(value)}
    validated = any(quantity.needs_validation and quantity.name in logged for quantity in schema.PER_TASK)
    due = [
        quantity
        for quantity in schema.SUMMARY
        if (validated or not quantity.needs_validation) and not quantity.may_lack
    ]
    missing = [quantity.name for quantity in due if quantity.name not in logged]
    return [f"{longest - tasks} of {longest} tasks", *missing] if tasks < longest or not tasks else missing


def _compare(run: Run, table: pd.DataFrame, notes: list[str]) -> None:
    """Notes a summary that its lanes contradict."""
    logged, mean = run.data.metrics["summary/accuracy_test"], table[schema.TEST_ACCURACY].mean()
    if abs(logged - mean) > SAME:
        notes.append(
            f"{run.data.tags['trial']}: summary/accuracy_test is {logged:.6g}, but the mean over its lanes is {mean:.6g}; "
            f"its numbers have been changed."
        )


def _is_declared(name: str) -> bool:
    """Whether the schema declares a metric, lanes and layers included."""
    if name.startswith(f"{schema.PROBE_ONLINE_ACCURACY}/"):
        return True
    base = _LANE.sub("", name)
    if (quantity := schema.QUANTITIES.get(base)) is not None:
        return quantity.by_lane or base == name
    layered = schema.QUANTITIES.get(_LAYER.sub("", name))
    return layered is not None and layered.by_layer


def _value(text: str) -> Any:
    """A parameter's value before MLflow turned it into text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
