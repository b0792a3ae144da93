"""MLflow's store: where it is, whether it answers, which runs it holds."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient

from study.errors import StudyError
from study.sweep.execution import Execution
from study.sweep.folder import SweepFolder
from study.tracking import views
from study.tracking.client import (
    CONFIRMS_TAG,
    SWEEP_TAG,
    check_reachable,
    connect,
    find_runs,
    is_missing,
    refusals,
    served,
    sqlite_file,
)


def default_uri(directory: Path) -> str:
    """MLflow's SQLite store beside the sweeps."""
    return f"sqlite:///{(directory / 'mlflow.db').resolve()}"


def tracking_uri(directory: Path, execution: Execution) -> str:
    """The store of a sweep: the one asked for, MLFLOW_TRACKING_URI, or the default."""
    return execution.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(directory)


def check_new_experiment(uri: str, name: str) -> None:
    """Refuses a store that cannot be used, or that holds the runs of another sweep of this name. Raises StudyError."""
    check_reachable(uri)
    if is_missing(uri):
        return
    with refusals(uri):
        taken = Store(uri).experiment_id(name)
    if taken is not None:
        raise StudyError(
            f"MLflow at {uri} has an experiment {name!r} already (perhaps a deleted one); choose another name with --name."
        )


class Store:
    """An MLflow store, made if it is a database that does not exist yet."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        with _alone(file.parent) if (file := sqlite_file(uri)) else nullcontext():
            self.client = connect(uri)
            self.client.search_experiments(max_results=1)

    def experiment(self, folder: SweepFolder) -> str:
        """Identifier of the sweep's experiment, made if there is none. Raises StudyError when it is another sweep's."""
        found = self.client.get_experiment_by_name(folder.plan.name)
        if found is not None:
            if found.tags.get(SWEEP_TAG) != folder.identity:
                raise StudyError(
                    f"MLflow at {self.uri} has an experiment {folder.plan.name!r} of another sweep; send this one elsewhere."
                )
            return str(found.experiment_id)
        location = None if served(self.uri) else (folder.root.resolve() / "mlflow-artifacts").as_uri()
        tags = {"mlflow.note.content": folder.plan.description, SWEEP_TAG: folder.identity, **views.views(folder.plan)}
        if folder.plan.confirms:
            tags[CONFIRMS_TAG] = folder.plan.confirms.identity
        return str(self.client.create_experiment(folder.plan.name, artifact_location=location, tags=tags))

    def experiment_id(self, name: str) -> str | None:
        """Identifier of the experiment of that name, deleted ones included; None when there is none."""
        found = self.client.get_experiment_by_name(name)
        return None if found is None else str(found.experiment_id)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keeps other processes out of a database's folder: two that make the same database break it."""
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / ".mlflow.lock"):
        yield


def run_ids(uri: str, folder: SweepFolder) -> dict[str, str]:
    """MLflow's run of each trial that has one, by the trial's key."""
    if is_missing(uri):
        return {}
    runs = runs_of(Store(uri).client, folder.plan.name, folder.identity)
    return {trial: run for trial, run in runs.items() if trial}


def runs_of(client: MlflowClient, name: str, identity: str) -> dict[str, str]:
    """The runs of the sweep of that name and identity: its trials' by their keys, its own under ""; empty without any."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.tags.get(SWEEP_TAG) != identity:
        return {}
    roles = ("tags.role = 'trial'", "tags.role = 'sweep'")
    runs = [run for query in roles for run in find_runs(client, str(experiment.experiment_id), query)]
    return {run.data.tags.get("trial", ""): str(run.info.run_id) for run in runs}


def attach(uri: str, run_id: str, folder: Path, page: str) -> str:
    """Keeps a report with a run, beside the reports that it has already.

    Args:
        uri: of the store.
        run_id: of the run.
        folder: of the report.
        page: its file that tells it from other reports; a report with the very same one is not sent again.

    Returns:
        The path of its artifacts in the run: "report", "report-2" and so on.
    """
    client = connect(uri)
    taken = {file.path for file in client.list_artifacts(run_id)}
    place, number = "report", 1
    while place in taken:
        with tempfile.TemporaryDirectory() as draft:
            there = Path(client.download_artifacts(run_id, f"{place}/{page}", draft))
            if there.read_bytes() == (folder / page).read_bytes():
                return place
        number += 1
        place = f"report-{number}"
    client.log_artifacts(run_id, str(folder), place)
    return place
