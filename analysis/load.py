"""MLflow's runs of a sweep as tidy data frames, from a local store or a server; for reports and for notebooks.

    from analysis import load
    sweep = load.sweep("quickstart", "sqlite:///study-results/mlflow.db")
    sweep.runs     one row a trial: what was tried, how it ended, every logged number
    sweep.lanes    one row for each task of each lane (a lane is one seed of one trial)

Columns bear the slash names of `study.schema` and of the settings. What was logged is checked against the schema: a trial that
lacks some of its numbers does not count as finished, and whatever is odd stands in `sweep.notes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from analysis import diagnostics, trial
from analysis.trial import LANE_COLUMNS
from study import schema
from study.errors import StudyError, first_line, nearest
from study.tracking.client import CONFIRMS_TAG, SWEEP_TAG, check_reachable, connect, find_runs, is_missing

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

`outcome` is one of the words of `analysis.trial`. `tasks` counts those from the first on of which every lane's values are there.
"""

DEFAULT_QUANTITIES: Final = (schema.TEST_ACCURACY, schema.GRADIENT_EVALUATIONS)


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
        lanes: one row for each lane and task: `LANE_COLUMNS` of `analysis.trial`, then the quantities by slash name.
        notes: sentences about what is missing or odd.
        diagnostics: one row for each look into a lane, see `analysis.diagnostics`; without a row unless they were asked for.
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

    @property
    def phase(self) -> str:
        """grid, tune or confirm."""
        return str(self.plan["phase"])

    @property
    def finished(self) -> pd.DataFrame:
        """The runs that finished, with all their numbers there."""
        return self.runs[self.runs["outcome"] == "finished"]

    def accuracy(self, run_id: str, quantity: str = schema.TEST_ACCURACY) -> pd.DataFrame:
        """A quantity of one run, [task, seed]: index task, columns seed. Raises StudyError for one that was not loaded."""
        if quantity not in self.lanes:
            raise StudyError(f"{quantity!r} was not loaded; name it in `quantities`.")
        rows = self.lanes[self.lanes["run_id"] == run_id]
        return rows.pivot(index="task", columns="seed", values=quantity)


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame, each by the names of its columns."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def sweep(name: str, uri: str, quantities: Sequence[str] = DEFAULT_QUANTITIES, *, diagnosed: bool = False) -> Sweep:
    """Loads a sweep.

    Args:
        name: of the sweep.
        uri: of MLflow's store, "sqlite:///FILE" or "http://HOST:PORT".
        quantities: what `lanes` holds beside test accuracy, by schema name; those without values of each lane are the same
            in all lanes of a task, and those that a trial does not log are NaN.
        diagnosed: whether to load the diagnostics of finished trials too, a file each.

    Raises:
        StudyError: there is no such store, or no such sweep in it; or a quantity is not logged for each task.
    """
    check_quantities(quantities)
    check_reachable(uri)
    if is_missing(uri):
        raise StudyError(f"There is no MLflow store {uri}; begin with `study run quickstart`.")
    with _refusals(uri):
        client = connect(uri)
        experiment = client.get_experiment_by_name(name)
        if experiment is None or SWEEP_TAG not in experiment.tags:
            raise StudyError(f"MLflow at {uri} has no sweep {name!r}; {nearest(name, _sweep_names(client))}.")
        if experiment.lifecycle_stage != "active":
            raise StudyError(
                f"The sweep {name!r} has been deleted in MLflow at {uri}; restore its experiment there first."
            )
        return _load(client, experiment, uri, quantities, diagnosed)


def confirmations(
    tuned: Sweep, quantities: Sequence[str] = DEFAULT_QUANTITIES, *, diagnosed: bool = False
) -> list[Sweep]:
    """The sweeps in the same store that confirm this one, oldest first. Raises StudyError as `sweep` does."""
    check_quantities(quantities)
    check_reachable(tuned.uri)
    with _refusals(tuned.uri):
        client = connect(tuned.uri)
        found = client.search_experiments(
            filter_string=f"tags.{CONFIRMS_TAG} = '{tuned.identity}'", order_by=["creation_time ASC"]
        )
        return [_load(client, experiment, tuned.uri, quantities, diagnosed) for experiment in found]


def check_quantities(quantities: Sequence[str]) -> None:
    """Raises StudyError for a quantity that is not one of each task."""
    known = {quantity.name for quantity in schema.PER_TASK}
    for quantity in quantities:
        if quantity not in known:
            raise StudyError(f"{quantity!r} is not a quantity of each task; {nearest(quantity, known)}.")


@contextmanager
def _refusals(uri: str) -> Iterator[None]:
    """Turns what MLflow raises into one sentence."""
    try:
        yield
    except (MlflowException, OSError) as error:
        raise StudyError(f"MLflow at {uri} refuses: {first_line(error)}.") from None


def _sweep_names(client: MlflowClient) -> list[str]:
    return [experiment.name for experiment in client.search_experiments() if SWEEP_TAG in experiment.tags]


def _load(client: MlflowClient, experiment: Experiment, uri: str, quantities: Sequence[str], diagnosed: bool) -> Sweep:
    own = find_runs(client, experiment.experiment_id, "tags.role = 'sweep'")
    if not own:
        raise StudyError(f"MLflow at {uri} has no run of the sweep {experiment.name!r} itself; try: study sync.")
    plan = _plan(client, own[0].info.run_id)
    notes: list[str] = []
    names = tuple(dict.fromkeys((schema.TEST_ACCURACY, *quantities)))
    trials = trial.trials_of(find_runs(client, experiment.experiment_id, "tags.role = 'trial'"), plan, notes)
    tables = [trial.lane_table(client, run, key, names, notes) for run, key in trials]
    longest: dict[str, int] = {}
    for (run, key), table in zip(trials, tables, strict=True):
        longest[key["scenario"]] = max(trial.task_count(run, table), longest.get(key["scenario"], 0))
    found = [
        trial.row(run, key, table, longest[key["scenario"]], plan["phase"], notes)
        for (run, key), table in zip(trials, tables, strict=True)
    ]
    looks = [
        _diagnostics(client, run, key, notes)
        for (run, key), row in zip(trials, found, strict=True)
        if diagnosed and row["outcome"] == "finished" and diagnostics.has_any(run.data.metrics)
    ]
    return Sweep(
        name=experiment.name,
        identity=experiment.tags[SWEEP_TAG],
        uri=uri,
        experiment_id=str(experiment.experiment_id),
        run_id=own[0].info.run_id,
        status=own[0].info.status,
        plan=plan,
        tags=dict(own[0].data.tags),
        runs=frame(found),
        lanes=trial.joined([pd.DataFrame(columns=[*LANE_COLUMNS, *names]), *tables]),
        notes=tuple(dict.fromkeys(notes)),
        diagnostics=diagnostics.in_order(looks),
    )


def _diagnostics(client: MlflowClient, run: Run, key: Mapping[str, Any], notes: list[str]) -> pd.DataFrame:
    try:
        return diagnostics.read(_text(client, run.info.run_id, diagnostics.FILE), key, run.info.run_id)
    except (MlflowException, OSError, ValueError, KeyError) as error:
        notes.append(f"{key['trial']}: its diagnostics ({diagnostics.FILE}) cannot be read: {first_line(error)}.")
        return diagnostics.empty()


def _text(client: MlflowClient, run_id: str, artifact: str) -> str:
    with TemporaryDirectory() as place:
        return Path(client.download_artifacts(run_id, artifact, place)).read_text(encoding="utf-8")


def _plan(client: MlflowClient, run_id: str) -> Mapping[str, Any]:
    try:
        plan = YAML(typ="safe", pure=True).load(_text(client, run_id, "plan.yaml"))
    except (MlflowException, OSError, ValueError, YAMLError) as error:
        reason = first_line(error)
        raise StudyError(f"The plan of the sweep (plan.yaml of run {run_id}) cannot be read: {reason}.") from None
    if not isinstance(plan, Mapping) or not {"phase", "seeds", "groups"} <= plan.keys():
        raise StudyError(f"plan.yaml of run {run_id} is not the plan of a sweep.")
    return plan


def frame(found: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """`Sweep.runs` of rows as `analysis.trial.row` makes them, with columns of the same types however many there are."""
    made = pd.DataFrame(found, columns=_columns(found))
    times = {name: pd.to_datetime(made[name], unit="ms", utc=True) for name in ("started", "ended")}
    return made.assign(**times).astype({"selected_rank": "Int64", "number": "int64", "tasks": "int64"})


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """`RUN_COLUMNS`, then the settings, then the metrics in the schema's order."""
    found = dict.fromkeys(name for row in rows for name in row)
    metrics = [name for name in schema.QUANTITIES if name in found]
    settings = [name for name in found if name not in RUN_COLUMNS and name not in metrics]
    return [*RUN_COLUMNS, *settings, *metrics]
