"""A client of MLflow's store.

Connects to a store, checks that it is reachable and finds the runs of an experiment. The reports read stores through it too.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import urlparse
from urllib.request import urlopen

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from study import addresses, redaction
from study.errors import StudyError, first_line
from study.files import write_fault
from study.sweep import folder
from study.tracking import faults

SWEEP_TAG: Final = "sweep_identity"
"""Tag of an experiment: the identity of its sweep. A name is not enough if several people share a server."""

CONFIRMS_TAG: Final = "confirms_identity"
"""Tag of a confirmation's experiment: the identity of the sweep that it confirms."""

ARTIFACTS: Final = "mlflow-artifacts"
"""Folder of artifacts within a sweep's, if the store is a database."""

SOFTWARE_CHANGES_TAG: Final = "software_changes"
"""Tag of a run whose source or versions changed while it ran: what changed, in words."""


DATABASE: Final = re.compile(r"(postgresql|mysql|mssql)(\+\w+)?")
"""Schemes of databases that MLflow can use, with or without the name of a driver."""

SQLITE_BEGIN: Final = b"SQLite format 3\0"
"""The first bytes of every SQLite database but an empty one."""


def quieten() -> None:
    """Gives MLflow short timeouts, no retries and no output.

    MLflow must not retry by itself: if only the answer to a request was lost, a retry would create a run twice. What the user
    has set in the environment is kept.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are raised too, and become one sentence


def is_missing(uri: str) -> bool:
    """Whether the store is an SQLite file not yet created.

    Connecting to it would create it.
    """
    file = addresses.database_file(uri)
    return file is not None and not file.exists()


def served(uri: str) -> bool:
    """Whether the store is a server rather than a database.

    A server stores artifacts itself.
    """
    return urlparse(uri).scheme in ("http", "https")


def check_reachable(uri: str) -> None:
    """Raises StudyError if the store cannot be reached.

    The address is malformed, of an unsupported kind, or no server answers there.
    """
    if redaction.is_ambiguous(redaction.completed(uri)):
        raise StudyError(
            "The address of MLflow's store has a raw @, /, ? or # in its password: write them as %40, %2F, %3F and %23, or "
            "leave the password out and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )
    try:
        parsed = urlparse(redaction.completed(uri))
        port = parsed.port or (443 if parsed.scheme == "https" else 80)
    except ValueError:  # whose message has the odd part in it, perhaps a password
        raise StudyError(f"{uri!r} is not the address of an MLflow store: its host or port is malformed.") from None
    file = addresses.database_file(uri)
    if file is not None and (fault := _file_fault(file)):
        raise StudyError(f"{uri!r} cannot be MLflow's store: {fault}.")
    if parsed.scheme.startswith("sqlite") and (file is None or parsed.scheme not in ("sqlite", "sqlite+pysqlite")):
        raise StudyError(f"{uri!r} names no file for MLflow's store: give sqlite:///FILE.")
    if served(uri):
        if not parsed.hostname:
            raise StudyError(f"{uri!r} is not the address of an MLflow store: it names no host.")
        try:
            socket.create_connection((parsed.hostname, port), timeout=5).close()
        except (OSError, UnicodeError) as error:
            raise StudyError(
                f"No MLflow server answers at {uri} ({error}); start it, or leave out the address to use a local file."
            ) from None
    elif DATABASE.fullmatch(parsed.scheme):
        try:
            create_engine(uri)  # does not connect yet
        except Exception as error:  # SQLAlchemy and the drivers raise many types
            raise StudyError(f"MLflow cannot use {uri!r}: {first_line(error)}.") from None
    elif file is None:
        raise StudyError(
            f"{uri!r} is no MLflow store that the study can use: give http(s)://HOST:PORT, sqlite:///FILE or another "
            f"database."
        )


def _file_fault(file: Path) -> str:
    """Why a file cannot be a database, or ""."""
    try:
        if file.is_dir():
            return f"{str(file)!r} is a folder"
        if not file.exists():
            fault = write_fault(file if file.is_symlink() else file.parent)
            return f"{str(file)!r} cannot be created ({fault})" if fault else ""
        if not file.is_file():
            return f"{str(file)!r} is not a regular file"
        with file.open("rb") as opened:
            begin = opened.read(len(SQLITE_BEGIN))
    except OSError as error:
        return f"{str(file)!r} cannot be read ({error.strerror})"
    return "" if begin in (b"", SQLITE_BEGIN) else f"{str(file)!r} is not an SQLite database"


@contextmanager
def refusals(uri: str) -> Iterator[None]:
    """Turns errors of MLflow in its block into a StudyError.

    It is a BusyError if the store may answer in a moment.
    """
    try:
        yield
    except (MlflowException, OSError) as error:
        reason = faults.reason(error, uri)
        if faults.is_busy(error):
            raise faults.BusyError(f"MLflow at {uri} is busy: {reason}.") from None
        raise StudyError(f"MLflow at {uri} refuses: {reason}.") from None


def server_version(uri: str) -> str:
    """Returns the MLflow version of a server.

    "" if the store is not a server, or if the server does not answer.
    """
    if not served(uri):
        return ""
    try:
        with urlopen(f"{uri.rstrip('/')}/version", timeout=5) as answer:  # noqa: S310  # http or https: see `served`
            return str(answer.read(100), "utf-8", "replace").strip()
    except (OSError, ValueError):
        return ""


def connect(uri: str) -> MlflowClient:
    """Returns a client of the store.

    It connects with the secrets of the address. Raises MlflowException or OSError if the store is away or busy, StudyError if
    MLflow does not support such a store.
    """
    quieten()
    try:
        return MlflowClient(redaction.completed(uri))
    except (MlflowException, OSError):  # it may be back soon
        raise
    except OperationalError as error:  # a database that is locked, away or refuses the password
        raise MlflowException(str(error), TEMPORARILY_UNAVAILABLE) from None
    except Exception as error:  # a database of an unknown kind or without its driver; SQLAlchemy raises many types
        raise StudyError(f"MLflow cannot use {uri!r}: {first_line(error)}.") from None


def reader(uri: str) -> MlflowClient:
    """Returns a client that writes no file of a database.

    Raises StudyError as `connect` does, also if a file is not a complete store.
    """
    file = addresses.database_file(uri)
    # after a crash SQLite rolls back what is in its journal, and only a connection that can write does so
    crashed = file is not None and file.with_name(f"{file.name}-journal").exists()
    return connect(uri if crashed else addresses.read_only(uri))


class Artifacts:
    """Reads the artifacts of a sweep's runs.

    MLflow has absolute addresses. Artifacts beside a database are in the sweep's folder, which may have moved since.
    """

    def __init__(self, client: MlflowClient, uri: str, experiment: Experiment, directory: Path | None = None) -> None:
        """Looks for the sweep's folder.

        Args:
            client: of the store.
            uri: of the store.
            experiment: of the sweep.
            directory: folder of all sweeps; None: only the folder of the store's file is looked through.
        """
        self._client = client
        self._location = str(experiment.artifact_location)
        file = addresses.database_file(uri)
        directories = [place for place in (directory, file and file.parent) if place]
        roots = [
            root for place in directories for root in folder.roots(place).get(experiment.tags.get(SWEEP_TAG, ""), [])
        ]
        recorded = own_folder(self._location)
        folders = [] if recorded is None or served(uri) else [root.resolve() / ARTIFACTS for root in roots]
        self._folder = recorded if recorded in folders else next(iter(folders), None)

    def text(self, run: Run, path: str) -> str:
        """The text of one artifact of a run.

        Raises OSError or MlflowException if it cannot be read.
        """
        address = str(run.info.artifact_uri)
        if self._folder is not None and address.startswith(f"{self._location}/"):
            within = address.removeprefix(f"{self._location}/")
            return (self._folder / within / path).read_text(encoding="utf-8")
        return artifact_text(self._client, run.info.run_id, path)


def own_folder(location: str) -> Path | None:
    """The folder of an experiment's artifacts beside its records.

    None if they are elsewhere, such as where a server keeps those of all experiments.
    """
    place = addresses.local_folder(location)
    return place if place is not None and place.name == ARTIFACTS else None


def artifact_text(client: MlflowClient, run_id: str, path: str) -> str:
    """The text of one artifact of a run."""
    with TemporaryDirectory() as draft:
        return Path(client.download_artifacts(run_id, path, draft)).read_text(encoding="utf-8")


def find_runs(client: MlflowClient, experiment_id: str, query: str) -> list[Run]:
    """All runs of an experiment that match a query."""
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], query, max_results=1000, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs
