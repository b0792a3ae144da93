"""MLflow's runs of a sweep as tidy data frames, from a local store or a server; for reports and for notebooks.

    from analysis import load
    sweep = load.sweep("quickstart", "sqlite:///study-results/mlflow.db")
    sweep.runs     one row a trial: what was tried, how it ended, every logged number
    sweep.lanes    one row for each task of each lane (a lane is one seed of one trial)

Columns bear the slash names of `study.schema` and of the settings. What was logged is checked against the schema: a trial that
lacks some of its numbers does not count as finished, and whatever is odd stands in `sweep.notes`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from analysis.store import CONFIRMS_TAG, SWEEP_TAG, connect, find_runs, first_line, is_missing
from study import schema
from study.config import StudyError, nearest

RUN_COLUMNS: Final = (
    "run_id",
    "trial",
    "number",
    "scenario",
    "method",
    "phase",
    "name",
    "outcome",
    "reason",
    "seeds",
    "tasks",
    "confirms_trial",
    "confirms_run_id",
    "selected_rank",
    "device",
    "started",
    "ended",
)
"""First columns of `Sweep.runs`; then come the settings and the metrics after the last task and of the summary, by slash name.

`outcome` is finished, stopped (early, by the scheduler), failed, interrupted, running (or cut off without a word), or
incomplete: called finished, but MLflow lacks some of its numbers. `tasks` counts those of which every lane's accuracy is there.
"""

RUN_TYPES: Final = {
    "number": "int64",
    "tasks": "int64",
    "selected_rank": "Int64",
    "started": "datetime64[ms, UTC]",
    "ended": "datetime64[ms, UTC]",
}
"""What the columns hold, in a frame without rows too."""

LANE_COLUMNS: Final = ("run_id", "trial", "scenario", "method", "lane", "seed", "task")
"""First columns of `Sweep.lanes`; then come the quantities asked for, by slash name."""

DEFAULT_QUANTITIES: Final = (schema.TEST_ACCURACY, schema.GRADIENT_EVALUATIONS)

_LANE = re.compile(r"/lane_\d+$")


@dataclass(frozen=True)
class Sweep:
    """One sweep as MLflow knows it.

    Attributes:
        name: of the sweep and its experiment.
        identity: what tells it from any other sweep of that name.
        uri: of the store.
        experiment_id, run_id: of its experiment and of its own run.
        status: MLflow's status of its own run: FINISHED when all planned trials are done.
        plan: what was to be tried, as plain data.
        tags: of its own run: versions, commit, phase, what it confirms.
        runs: one row a trial, see `RUN_COLUMNS`.
        lanes: one row for each lane and task, see `LANE_COLUMNS`.
        notes: sentences about what is missing or odd.
    """

    name: str
    identity: str
    uri: str
    experiment_id: str
    run_id: str
    status: str
    plan: Mapping[str, Any]
    tags: Mapping[str, str]
    runs: pd.DataFrame
    lanes: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def phase(self) -> str:
        """grid, tune or confirm."""
        return str(self.plan["phase"])

    @property
    def finished(self) -> pd.DataFrame:
        """The runs that finished, with all their numbers there."""
        return self.runs[self.runs["outcome"] == "finished"]

    def accuracy(self, run_id: str, quantity: str = schema.TEST_ACCURACY) -> pd.DataFrame:
        """A quantity of one run, [task, seed]: index task, columns seed."""
        rows = self.lanes[self.lanes["run_id"] == run_id]
        return rows.pivot(index="task", columns="seed", values=quantity)


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame, each by the names of its columns."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def sweep(name: str, uri: str, quantities: Sequence[str] = DEFAULT_QUANTITIES) -> Sweep:
    """Loads a sweep.

    Args:
        name: of the sweep.
        uri: of MLflow's store, "sqlite:///FILE" or "http://HOST:PORT".
        quantities: what `lanes` holds, by schema name; those without values of each lane are the same in all lanes of a task.

    Raises:
        StudyError: there is no such store, or no such sweep in it; or a quantity is not logged for each task.
    """
    known = {quantity.name: quantity for quantity in schema.PER_TASK}
    for quantity in quantities:
        if quantity not in known:
            raise StudyError(f"{quantity!r} is not a quantity of each task; {nearest(quantity, known)}.")
    if is_missing(uri):
        raise StudyError(f"There is no MLflow store {uri}; begin with `study run quickstart`.")
    client = connect(uri)
    try:
        experiment = client.get_experiment_by_name(name)
        if experiment is None or SWEEP_TAG not in experiment.tags or experiment.lifecycle_stage != "active":
            raise StudyError(f"MLflow at {uri} has no sweep {name!r}; {nearest(name, _sweep_names(client))}.")
        return _load(client, experiment, uri, quantities)
    except (MlflowException, OSError) as error:
        raise StudyError(f"MLflow at {uri} refuses: {first_line(error)}.") from None


def confirmations(tuned: Sweep, quantities: Sequence[str] = DEFAULT_QUANTITIES) -> list[Sweep]:
    """The sweeps in the same store that confirm this one, oldest first. Raises StudyError as `sweep` does."""
    client = connect(tuned.uri)
    found = client.search_experiments(
        filter_string=f"tags.{CONFIRMS_TAG} = '{tuned.identity}'", order_by=["creation_time ASC"]
    )
    return [_load(client, experiment, tuned.uri, quantities) for experiment in found]


def _sweep_names(client: MlflowClient) -> list[str]:
    return [experiment.name for experiment in client.search_experiments() if SWEEP_TAG in experiment.tags]


def _load(client: MlflowClient, experiment: Experiment, uri: str, quantities: Sequence[str]) -> Sweep:
    own = find_runs(client, experiment.experiment_id, "tags.role = 'sweep'")
    if not own:
        raise StudyError(f"MLflow at {uri} has no run of the sweep {experiment.name!r} itself; try: study sync.")
    plan = _plan(client, own[0].info.run_id)
    notes: list[str] = []
    trials = find_runs(client, experiment.experiment_id, "tags.role = 'trial'")
    tables = {run.info.run_id: _lanes(client, run, quantities, notes) for run in trials}
    longest = _longest(trials, tables)
    found = [_row(run, tables[run.info.run_id], longest[run.data.tags["scenario"]], notes) for run in trials]
    places = {f"{group['scenario']}-{group['method']}": place for place, group in enumerate(plan["groups"])}
    found.sort(key=lambda row: (places.get(row["trial"].rpartition("-")[0], len(places)), row["number"]))
    runs = pd.DataFrame(found, columns=_columns(found)).astype(RUN_TYPES)
    return Sweep(
        name=experiment.name,
        identity=experiment.tags[SWEEP_TAG],
        uri=uri,
        experiment_id=str(experiment.experiment_id),
        run_id=own[0].info.run_id,
        status=own[0].info.status,
        plan=plan,
        tags=dict(own[0].data.tags),
        runs=runs,
        lanes=_joined([pd.DataFrame(columns=[*LANE_COLUMNS, *quantities]), *tables.values()]),
        notes=tuple(dict.fromkeys(notes)),
    )


def _plan(client: MlflowClient, run_id: str) -> Mapping[str, Any]:
    try:
        text = Path(client.download_artifacts(run_id, "plan.yaml")).read_text(encoding="utf-8")
        plan = YAML(typ="safe", pure=True).load(text)
    except (MlflowException, OSError, YAMLError) as error:
        reason = first_line(error)
        raise StudyError(f"The plan of the sweep (plan.yaml of run {run_id}) cannot be read: {reason}.") from None
    if not isinstance(plan, Mapping):
        raise StudyError(f"plan.yaml of run {run_id} is not the plan of a sweep.")
    return plan


def _lanes(client: MlflowClient, run: Run, quantities: Sequence[str], notes: list[str]) -> pd.DataFrame:
    """One row for each lane and task of a run of which every quantity that it logs is there."""
    tags = run.data.tags
    by_lane = {quantity.name: quantity.by_lane for quantity in schema.PER_TASK}
    shared = {name: _history(client, run, name, notes) for name in quantities if not by_lane[name]}
    tables = [pd.DataFrame(columns=[*LANE_COLUMNS, *quantities])]
    for lane, seed in enumerate(_value(run.data.params.get("seeds", "[]"))):
        own = {name: _history(client, run, schema.lane_name(name, lane), notes) for name in quantities if by_lane[name]}
        table = (
            pd.DataFrame({name: values for name, values in {**shared, **own}.items() if values}).sort_index().dropna()
        )
        table = table.reindex(columns=list(quantities)).rename_axis("task").reset_index()
        place = {"run_id": run.info.run_id, **{tag: tags[tag] for tag in ("trial", "scenario", "method")}}
        tables.append(table.assign(**place, lane=lane, seed=seed))
    return _joined(tables)


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all tables; the first one has the columns."""
    whole = [table for table in tables if len(table)]
    return pd.concat(whole, ignore_index=True)[list(tables[0].columns)] if whole else tables[0]


def _history(client: MlflowClient, run: Run, name: str, notes: list[str]) -> dict[int, float]:
    """The values of a metric by task; empty when it was not logged."""
    history = client.get_metric_history(run.info.run_id, name) if name in run.data.metrics else []
    values = {metric.step: metric.value for metric in history}
    if len({(metric.step, metric.value) for metric in history}) > len(values):
        notes.append(f"{run.data.tags['trial']}: {name} has two values for one task; the later one is taken.")
    return values


def _tasks_of_all_lanes(table: pd.DataFrame, lanes: int) -> int:
    """How many tasks from the first on have every lane's values."""
    counts = table["task"].value_counts()
    whole = set(counts.index[counts == lanes])
    return next(task for task in range(len(whole) + 1) if task not in whole)


def _longest(trials: Sequence[Run], tables: Mapping[str, pd.DataFrame]) -> dict[str, int]:
    """Tasks of the longest trial of each scenario, planned or seen: what a finished one must have."""
    longest: dict[str, int] = {}
    for run in trials:
        table, scenario = tables[run.info.run_id], run.data.tags["scenario"]
        planned = _value(run.data.params.get("tasks/count", "None")) or 0
        seen = int(table["task"].max()) + 1 if len(table) else 0
        longest[scenario] = max(longest.get(scenario, 0), planned, seen)
    return longest


def _row(run: Run, table: pd.DataFrame, longest: int, notes: list[str]) -> dict[str, Any]:
    tags, trial = run.data.tags, run.data.tags["trial"]
    settings = {name: _value(text) for name, text in run.data.params.items()}
    seeds = tuple(settings.pop("seeds", ()))
    tasks = _tasks_of_all_lanes(table, len(seeds))
    outcome = tags.get("outcome", "running")
    summary = {quantity.name for quantity in schema.SUMMARY if not quantity.needs_validation}
    if outcome == "finished" and (tasks < longest or not summary <= run.data.metrics.keys()):
        outcome = "incomplete"
        notes.append(
            f"{trial} has finished, but MLflow lacks some of its numbers; bring it up to date with `study sync`."
        )
    for name in run.data.metrics:
        if _LANE.sub("", name) not in schema.QUANTITIES:
            notes.append(f"{trial}: the metric {name!r} is not one of the study's; it is passed over.")
    metrics = {name: value for name, value in run.data.metrics.items() if name in schema.QUANTITIES}
    return {
        "run_id": run.info.run_id,
        "trial": trial,
        "number": int(trial.rpartition("-")[2]),
        "scenario": tags["scenario"],
        "method": tags["method"],
        "phase": tags["phase"],
        "name": run.info.run_name,
        "outcome": outcome,
        "reason": tags.get("reason", ""),
        "seeds": seeds,
        "tasks": tasks,
        "confirms_trial": tags.get("confirms_trial"),
        "confirms_run_id": tags.get("confirms_run_id"),
        "selected_rank": int(tags["selected_rank"]) if "selected_rank" in tags else None,
        "device": tags.get("device_name", tags.get("device", "")),
        "started": pd.to_datetime(run.info.start_time, unit="ms", utc=True),
        "ended": pd.to_datetime(run.info.end_time, unit="ms", utc=True),
        **settings,
        **metrics,
    }


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """`RUN_COLUMNS`, then the settings, then the metrics in the schema's order."""
    found = dict.fromkeys(name for row in rows for name in row)
    metrics = [name for name in schema.QUANTITIES if name in found]
    settings = [name for name in found if name not in RUN_COLUMNS and name not in metrics]
    return [*RUN_COLUMNS, *settings, *metrics]


def _value(text: str) -> Any:
    """A parameter as it was before MLflow made a text of it."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
