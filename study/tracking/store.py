"""MLflow's store of a sweep: its address, experiment and runs."""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient

from study import addresses, redaction
from study.errors import StudyError
from study.sweep.execution import Execution
from study.sweep.folder import STORE_FILE, SweepFolder, command
from study.tracking import artifacts, faults, views
from study.tracking.client import (
    ARTIFACTS,
    CONFIRMS_TAG,
    SWEEP_TAG,
    check_reachable,
    connect,
    find_runs,
    is_missing,
    reader,
    refusals,
    served,
)


def default_uri(directory: Path) -> str:
    """The SQLite store beside the sweeps."""
    return addresses.database(directory / STORE_FILE)


def tracking_uri(directory: Path, execution: Execution | None = None, asked: str | None = None) -> str:
    """The address of a sweep's store.

    Relative paths in it begin at the current folder.

    Args:
        directory: folder of all sweeps.
        execution: of the sweep; None if its folder is not here.
        asked: the store that the user names now, if any.

    Returns:
        The first that there is: the store asked for, the sweep's, MLFLOW_TRACKING_URI, the default. It has no secrets, see
        `study.redaction`.
    """
    own = execution.tracking_uri if execution else None
    named = asked or own or os.environ.get("MLFLOW_TRACKING_URI")
    return addresses.absolute(redaction.kept(named)) if named else default_uri(directory)


def missing(uri: str, directory: Path, sweep: SweepFolder | None) -> StudyError:
    """The error that a store does not exist yet.

    It names the command that makes it: of the sweep, if there is one.
    """
    if sweep is None:
        way_out = command(directory, "run", "quickstart")
    else:
        named = [] if uri == tracking_uri(directory, sweep.execution) else ["--tracking-uri", uri]
        way_out = sweep.command("sync", *named)
    return StudyError(f"There is no MLflow store {uri} yet; make it with `{way_out}`.")


def check_new_experiment(uri: str, name: str) -> None:
    """Raises StudyError if a new experiment cannot be created.

    The store cannot be used, or it has an experiment of this name.
    """
    check_reachable(uri)
    if is_missing(uri):
        return
    with refusals(uri):
        existing = Store(uri).experiment_id(name)
    if existing is not None:
        raise StudyError(
            f"MLflow at {uri} has an experiment {name!r} already (perhaps a deleted one); choose another name with --name."
        )


def check_experiment(uri: str, folder: SweepFolder) -> None:
    """Raises StudyError if the sweep cannot be logged.

    The store cannot be used, or its experiment has been deleted or is of another sweep.
    """
    check_reachable(uri)
    if not is_missing(uri):
        with refusals(uri):
            Store(uri).own_experiment(folder)


def count_rows(uri: str) -> None:
    """Has SQLite look at how its rows are spread.

    Else it reads the values of all runs to find those of one, and reading a sweep of thousands of trials takes the square of
    their number. It takes milliseconds, and is left out where the file cannot be written now. Other stores do so by themselves.
    """
    file = addresses.database_file(uri)
    if file is None or not file.is_file():
        return
    with suppress(sqlite3.Error), closing(sqlite3.connect(file)) as database:
        database.execute(f"PRAGMA analysis_limit = {ROWS_LOOKED_AT}")
        database.execute("ANALYZE metrics")
        database.commit()


ROWS_LOOKED_AT = 1000


class Store:
    """An MLflow store.

    Opening a database creates its tables if they are missing.

    Attributes:
        uri: its address.
        client: of the store.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        with _locked(file.parent) if (file := addresses.database_file(uri)) else nullcontext():
            self.client = connect(uri)
            self.client.search_experiments(max_results=1)

    def experiment(self, folder: SweepFolder) -> str:
        """Identifier of the sweep's experiment, created if missing.

        Raises StudyError if the experiment of that name belongs to another sweep or has been deleted.
        """
        existing = self.own_experiment(folder)
        if existing is not None:
            artifacts.settle(self.uri, folder)
            return existing
        location = None if served(self.uri) else (folder.root.resolve() / ARTIFACTS).as_uri()
        tags = {"mlflow.note.content": folder.plan.description, SWEEP_TAG: folder.identity, **views.views(folder.plan)}
        if folder.plan.confirms:
            tags[CONFIRMS_TAG] = folder.plan.confirms.identity
        return str(self.client.create_experiment(folder.plan.name, artifact_location=location, tags=tags))

    def own_experiment(self, folder: SweepFolder) -> str | None:
        """Identifier of the sweep's experiment, or None if missing.

        Raises StudyError as `experiment` does.
        """
        experiment = self.client.get_experiment_by_name(folder.plan.name)
        if experiment is None:
            return None
        if experiment.tags.get(SWEEP_TAG) != folder.identity:
            raise StudyError(
                f"MLflow at {self.uri} has an experiment {folder.plan.name!r} of another sweep; choose another store "
                f"with --tracking-uri."
            )
        if experiment.lifecycle_stage != "active":
            raise faults.deleted(self.uri, folder.plan.name, experiment.experiment_id)
        return str(experiment.experiment_id)

    def experiment_id(self, name: str) -> str | None:
        """Identifier of the experiment of that name, or None.

        Deleted experiments count too.
        """
        experiment = self.client.get_experiment_by_name(name)
        return None if experiment is None else str(experiment.experiment_id)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Locks the folder of a database during its creation.

    Two processes that create the same database at once break it.

    Raises StudyError if nothing may be written there.
    """
    lock = FileLock(directory / ".mlflow.lock")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise  # a full disk, say, which may have room again
        raise StudyError(
            f"The folder {str(directory)!r} of MLflow's store cannot be written: {error.strerror}."
        ) from None
    try:
        yield
    finally:
        lock.release()


def run_ids(uri: str, folder: SweepFolder) -> dict[str, str]:
    """MLflow's runs of the trials, by the trials' keys.

    Raises StudyError if the store refuses.
    """
    if is_missing(uri):
        return {}
    with refusals(uri):
        runs = runs_of(reader(uri), folder.plan.name, folder.identity)
    return {trial: run for trial, run in runs.items() if trial}


def runs_of(client: MlflowClient, name: str, identity: str) -> dict[str, str]:
    """The runs of a sweep, by the trials' keys.

    The sweep's own run has the key "". Empty if the store has no experiment of that name and identity.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.tags.get(SWEEP_TAG) != identity:
        return {}
    runs: dict[str, str] = {}
    for role in ("trial", "sweep"):
        for run in find_runs(client, str(experiment.experiment_id), f"tags.role = '{role}'"):
            key = run.data.tags.get("trial", "") if role == "trial" else ""
            if key or role == "sweep":  # somebody may have removed the tag of a trial
                runs.setdefault(key, str(run.info.run_id))
    return runs


def attach(uri: str, run_id: str, folder: Path, page: str) -> str:
    """Attaches a report to a run, beside earlier reports.

    Args:
        uri: of the store.
        run_id: of the run.
        folder: of the report.
        page: the file in which reports differ; a report is not sent again if one with the same page is attached.

    Returns:
        The path of its artifacts in the run: "report", "report-2" and so on.

    Raises:
        StudyError: the store refuses.
    """
    with refusals(uri):
        client = connect(uri)
        artifacts = {file.path for file in client.list_artifacts(run_id)}
        place, number = "report", 1
        while place in artifacts:
            with tempfile.TemporaryDirectory() as draft:
                attached = Path(client.download_artifacts(run_id, f"{place}/{page}", draft))
                if attached.read_bytes() == (folder / page).read_bytes():
                    return place
            number += 1
            place = f"report-{number}"
        client.log_artifacts(run_id, str(folder), place)
    return place
