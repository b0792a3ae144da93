"""MLflow's runs of a sweep as tidy data frames.

For reports and notebooks, from a local store or a server:

    from analysis import load
    sweep = load.sweep("quickstart", "sqlite:///study-results/mlflow.db")
    sweep.runs     one row per trial: its settings, how it ended, every logged number
    sweep.lanes    one row per task of each lane (a lane is one seed of one trial)

Columns have the slash names of `study.schema` and of the settings. Logged values are checked against the schema: a trial that
lacks some of its numbers does not count as finished, and anything odd is reported in `sweep.notes`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from analysis import diagnostics, probes, statistics
from analysis.runs import LANE_COLUMNS, joined, lane_table, row, task_count, trials_of
from study import objective, redaction, schema
from study.config import later_settings
from study.decision.halving import rungs_of_plan
from study.decision.rule import Rule, rule_of_plan
from study.errors import StudyError, first_line, nearest
from study.objective import Objective
from study.tracking.client import (
    CONFIRMS_TAG,
    SOFTWARE_CHANGES_TAG,
    SWEEP_TAG,
    Artifacts,
    check_reachable,
    find_runs,
    is_missing,
    reader,
    refusals,
)

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
"""First columns of `Sweep.runs`; the settings and the metrics (latest values, summary) follow, by slash name.

`outcome` is one of the words of `analysis.runs`. `tasks` counts the tasks, from the first on, with values for every lane.
"""

DEFAULT_QUANTITIES: Final = (schema.TEST_ACCURACY, schema.GRADIENT_EVALUATIONS)


@dataclass(frozen=True)
class Sweep:
    """One sweep as MLflow has it.

    Attributes:
        name: of the sweep and its experiment.
        identity: tells it from any other sweep of that name.
        uri: of the store.
        experiment_id, run_id: of its experiment and of its own run.
        status: MLflow's status of its own run; FINISHED when all planned trials are done.
        plan: what was to be tried, as plain data.
        tags: of its own run: versions, commit, phase, what it confirms.
        runs: one row per trial, see `RUN_COLUMNS`.
        lanes: one row per lane and task: `LANE_COLUMNS` of `analysis.runs`, then the quantities by slash name.
        notes: sentences about what is missing or odd.
        diagnostics: one row per measurement of a lane, see `analysis.diagnostics`; empty unless asked for.
        probes: one row per trained copy of a network, see `analysis.probes`; of finished runs.
        separate: the runs as MLflow has them, where `analysis.batches` has put some of them together; else None.
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
    diagnostics: pd.DataFrame = field(default_factory=diagnostics.empty)
    probes: pd.DataFrame = field(default_factory=probes.empty)
    separate: pd.DataFrame | None = None

    @property
    def phase(self) -> str:
        """grid, tune or confirm."""
        return str(self.plan["phase"])

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What the search optimised, the first for selections."""
        return objective.of_plan(self.plan)

    @property
    def rule(self) -> Rule | None:
        """The rule that ended a confirmation; None without one."""
        return rule_of_plan(self.plan)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Seeds after each rung of a race; else none."""
        return rungs_of_plan(self.plan)

    @property
    def recorded(self) -> pd.DataFrame:
        """The runs as MLflow has them, one row per trial."""
        return self.runs if self.separate is None else self.separate

    @property
    def looks(self) -> int:
        """How often the numbers decided whether to go on."""
        return self.rule.looks if self.rule else 1

    @property
    def level(self) -> float:
        """Level of an interval that then holds at 95 %.

        Whatever the looks decided: each of them has its part of the rest (Bonferroni).
        """
        return self.rule.level_of() if self.rule else 0.95

    @property
    def finished(self) -> pd.DataFrame:
        """The finished runs, which have all their numbers."""
        return self.runs[self.runs["outcome"] == "finished"]

    def accuracy(self, run_id: str, quantity: str = schema.TEST_ACCURACY) -> pd.DataFrame:
        """One quantity of one run, [task, seed].

        The index is the task, the columns are the seeds. Raises StudyError if the quantity was not loaded.
        """
        if quantity not in self.lanes:
            raise StudyError(f"{quantity!r} was not loaded; name it in `quantities`.")
        lanes = self.lanes[self.lanes["run_id"] == run_id]
        return lanes.pivot(index="task", columns="seed", values=quantity)


Diagnosed = bool | Callable[[Sweep], Collection[str]]
"""Whether to load diagnostics, or the ids of the finished runs whose diagnostics are loaded, given the rest of the sweep."""


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as dictionaries by column name."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def sweep(
    name: str,
    uri: str,
    quantities: Sequence[str] = DEFAULT_QUANTITIES,
    *,
    diagnosed: Diagnosed = False,
    directory: Path | None = None,
) -> Sweep:
    """Loads a sweep.

    Args:
        name: of the sweep.
        uri: of MLflow's store, "sqlite:///FILE" or "http://HOST:PORT".
        quantities: what `lanes` holds beside test accuracy, by schema name. A quantity without values per lane is the same in
            all lanes of a task; one that a trial does not log is NaN.
        diagnosed: whether to load the diagnostics of finished trials too, one file each, or of which ones.
        directory: folder of all sweeps, if it is not that of the store's file and has moved.

    Raises:
        StudyError: the store or the sweep does not exist, or a quantity is not logged per task.
    """
    check_quantities(quantities)
    uri = redaction.kept(uri)
    check_reachable(uri)
    if is_missing(uri):
        raise StudyError(f"There is no MLflow store {uri}; begin with `study run quickstart`.")
    with refusals(uri):
        client = reader(uri)
        experiment = client.get_experiment_by_name(name)
        if experiment is None or SWEEP_TAG not in experiment.tags:
            raise StudyError(f"MLflow at {uri} has no sweep {name!r}; {nearest(name, _sweep_names(client))}.")
        if experiment.lifecycle_stage != "active":
            raise StudyError(
                f"The sweep {name!r} has been deleted in MLflow at {uri}; restore its experiment there first."
            )
        return _load(client, experiment, uri, quantities, diagnosed, directory)


def confirmations(
    tuned: Sweep,
    quantities: Sequence[str] = DEFAULT_QUANTITIES,
    *,
    diagnosed: Diagnosed = False,
    directory: Path | None = None,
) -> list[Sweep]:
    """The sweeps in this store confirming this one, oldest first.

    Raises StudyError as `sweep` does.
    """
    check_quantities(quantities)
    check_reachable(tuned.uri)
    with refusals(tuned.uri):
        client = reader(tuned.uri)
        experiments = client.search_experiments(
            filter_string=f"tags.{CONFIRMS_TAG} = '{tuned.identity}'", order_by=["creation_time ASC"]
        )
        return [_load(client, experiment, tuned.uri, quantities, diagnosed, directory) for experiment in experiments]


def check_quantities(quantities: Sequence[str]) -> None:
    """Raises StudyError if a quantity is not logged per task."""
    per_task = {quantity.name for quantity in schema.PER_TASK}
    for quantity in quantities:
        if quantity not in per_task:
            raise StudyError(f"{quantity!r} is not logged per task; {nearest(quantity, per_task)}.")


def _sweep_names(client: MlflowClient) -> list[str]:
    return [experiment.name for experiment in client.search_experiments() if SWEEP_TAG in experiment.tags]


def _load(
    client: MlflowClient,
    experiment: Experiment,
    uri: str,
    quantities: Sequence[str],
    diagnosed: Diagnosed,
    directory: Path | None,
) -> Sweep:
    artifacts = Artifacts(client, uri, experiment, directory)
    own = find_runs(client, experiment.experiment_id, "tags.role = 'sweep'")
    if not own:
        raise StudyError(f"MLflow at {uri} has no run of the sweep {experiment.name!r} itself; try: study sync.")
    plan = _plan(artifacts, own[0])
    changes = own[0].data.tags.get(SOFTWARE_CHANGES_TAG)
    notes = [f"its software changed while it ran, so numbers may differ: {changes}."] if changes else []
    names = tuple(dict.fromkeys((schema.TEST_ACCURACY, *quantities)))
    trials = trials_of(find_runs(client, experiment.experiment_id, "tags.role = 'trial'"), plan, notes)
    tables = [lane_table(client, artifacts, run, key, names, notes) for run, key in trials]
    longest: dict[str, int] = {}  # by scenario, for a plan need not say how many tasks there are
    for (run, key), table in zip(trials, tables, strict=True):
        longest[key["scenario"]] = max(task_count(run, table), longest.get(key["scenario"], 0))
    trial_rows = [
        row(run, key, table, longest[key["scenario"]], plan["phase"], notes)
        for (run, key), table in zip(trials, tables, strict=True)
    ]
    lanes = joined([pd.DataFrame(columns=[*LANE_COLUMNS, *names]), *tables])
    runs = with_later_summary(frame(trial_rows), lanes)
    loaded = Sweep(
        name=experiment.name,
        identity=experiment.tags[SWEEP_TAG],
        uri=uri,
        experiment_id=str(experiment.experiment_id),
        run_id=own[0].info.run_id,
        status=own[0].info.status,
        plan=plan,
        tags=dict(own[0].data.tags),
        runs=runs,
        lanes=lanes,
        notes=(),
    )
    finished = set(loaded.finished["run_id"])
    wanted = diagnosed(loaded) if callable(diagnosed) else finished if diagnosed else set()
    measured = [
        _own_table(artifacts, run, key, diagnostics, notes)
        for run, key in trials
        if run.info.run_id in wanted and diagnostics.has_any(run.data.metrics)
    ]
    probed = [
        _own_table(artifacts, run, key, probes, notes)
        for run, key in trials
        if run.info.run_id in finished and probes.has_any(run.data.metrics)
    ]
    return replace(
        loaded,
        notes=tuple(dict.fromkeys(notes)),
        diagnostics=diagnostics.in_order(measured),
        probes=probes.in_order(probed),
    )


def _own_table(
    artifacts: Artifacts, run: Run, key: Mapping[str, Any], kind: ModuleType, notes: list[str]
) -> pd.DataFrame:
    """The diagnostics or the probes of one run, by their module."""
    try:
        table: pd.DataFrame = kind.read(artifacts.text(run, kind.FILE), key, run.info.run_id)
    except (MlflowException, OSError, ValueError, KeyError) as error:
        what = kind.FILE.removeprefix("tables/").removesuffix(".csv")
        notes.append(f"{key['trial']}: its {what} ({kind.FILE}) cannot be read: {first_line(error)}.")
        return pd.DataFrame()
    return table


def _plan(artifacts: Artifacts, run: Run) -> Mapping[str, Any]:
    run_id = run.info.run_id
    try:
        plan = YAML(typ="safe", pure=True).load(artifacts.text(run, "plan.yaml"))
    except (MlflowException, OSError, ValueError, YAMLError) as error:
        reason = first_line(error)
        raise StudyError(f"The plan of the sweep (plan.yaml of run {run_id}) cannot be read: {reason}.") from None
    if (
        not isinstance(plan, Mapping)
        or not {"phase", "seeds", "groups"} <= plan.keys()
        or not _are_groups(plan["groups"])
    ):
        raise StudyError(f"plan.yaml of run {run_id} is not the plan of a sweep.")
    objective.of_plan(plan)  # refuses what a search cannot optimise
    try:
        rule_of_plan(plan)
        rungs_of_plan(plan)
    except ValueError as error:
        raise StudyError(f"plan.yaml of run {run_id} is not the plan of a sweep: {error}.") from None
    return plan


def _are_groups(groups: object) -> bool:
    """Whether these are the methods of a plan."""
    keys = {"scenario", "method", "points", "distributions", "trials"}
    return isinstance(groups, list) and all(isinstance(group, Mapping) and keys <= group.keys() for group in groups)


def frame(trial_rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """`Sweep.runs` from the rows of `analysis.runs.row`.

    Column types do not depend on the rows, so that no rows give the same types. What runs of an earlier version of the study lack
    has the value that it had then.
    """
    trial_rows = [{**later_settings(trial_row), **trial_row} for trial_row in trial_rows]
    table = pd.DataFrame(trial_rows, columns=_columns(trial_rows))
    times = {name: pd.to_datetime(table[name], unit="ms", utc=True) for name in ("started", "ended")}
    # a setting that some trials lack and that is null in the others: NaN would say that all of them lack it
    known = {*RUN_COLUMNS, *schema.QUANTITIES}
    for name in [str(name) for name in table if name not in known and table[name].isna().all()]:
        table[name] = pd.Series([None] * len(table), dtype=object)
    return table.assign(**times).astype({"selected_rank": "Int64", "number": "int64", "tasks": "int64"})


def with_later_summary(runs: pd.DataFrame, lanes: pd.DataFrame) -> pd.DataFrame:
    """`Sweep.runs` with the numbers that earlier versions did not log.

    They are computed from the lanes of finished runs.
    """
    name = schema.DECLINE_AFTER_WARMUP_TEST
    finished = runs[runs["outcome"] == "finished"]
    lacking = finished["run_id"] if name not in runs else finished[finished[name].isna()]["run_id"]
    if not len(lacking):
        return runs
    runs = runs if name in runs else runs.assign(**{name: float("nan")})
    computed = {
        run_id: float(statistics.decline_after_warmup(table.to_numpy(dtype=float)).mean())
        for run_id, rows in lanes[lanes["run_id"].isin(lacking)].groupby("run_id")
        for table in (rows.pivot(index="task", columns="seed", values=schema.TEST_ACCURACY),)
    }
    return runs.assign(**{name: runs[name].fillna(runs["run_id"].map(computed))})[_ordered(runs)]


def _ordered(runs: pd.DataFrame) -> list[str]:
    """The columns of `Sweep.runs` in their order."""
    return _columns([dict.fromkeys(map(str, runs))])


def _columns(trial_rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """`RUN_COLUMNS`, settings by name, metrics in schema order."""
    names = dict.fromkeys(name for trial_row in trial_rows for name in trial_row)
    metrics = [name for name in schema.QUANTITIES if name in names]
    settings = sorted(name for name in names if name not in RUN_COLUMNS and name not in metrics)
    return [*RUN_COLUMNS, *settings, *metrics]
