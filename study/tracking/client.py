"""A client of MLflow's store.

Connects to a store, checks that it is reachable and finds the runs of an experiment. The reports read stores through it too.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlparse
from urllib.request import urlopen

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from study.errors import StudyError, first_line

SWEEP_TAG: Final = "sweep_identity"
"""Tag of an experiment: the identity of its sweep. A name is not enough if several people share a server."""

CONFIRMS_TAG: Final = "confirms_identity"
"""Tag of a confirmation's experiment: the identity of the sweep that it confirms."""

SOFTWARE_CHANGES_TAG: Final = "software_changes"
"""Tag of a run whose source or versions changed while it ran: what changed, in words."""


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


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None for other stores."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def is_missing(uri: str) -> bool:
    """Whether the store is an SQLite file not yet created.

    Connecting to it would create it.
    """
    file = sqlite_file(uri)
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
    try:
        parsed = urlparse(uri)
        port = parsed.port or (443 if parsed.scheme == "https" else 80)
    except ValueError as error:
        raise StudyError(f"{uri!r} is not the address of an MLflow store: {error}.") from None
    file = sqlite_file(uri)
    if file is not None and (
        file.is_dir() or (not file.exists() and file.parent.exists() and not file.parent.is_dir())
    ):
        raise StudyError(f"{uri!r} cannot be MLflow's store: {str(file)!r} cannot be a file.")
    if served(uri):
        try:
            socket.create_connection((parsed.hostname or "", port), timeout=5).close()
        except OSError as error:
            raise StudyError(
                f"No MLflow server answers at {uri} ({error}); start it, or leave out the address to use a local file."
            ) from None
    elif parsed.scheme not in ("sqlite", "postgresql", "mysql", "mssql") and "+" not in parsed.scheme:
        raise StudyError(
            f"{uri!r} is no MLflow store that the study can use: give http(s)://HOST:PORT, sqlite:///FILE or another "
            f"database."
        )


@contextmanager
def refusals(uri: str) -> Iterator[None]:
    """Turns errors of MLflow in its block into a StudyError."""
    try:
        yield
    except (MlflowException, OSError) as error:
        raise StudyError(f"MLflow at {uri} refuses: {first_line(error)}.") from None


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

    It has not connected yet. Raises StudyError if MLflow does not support such a store.
    """
    quieten()
    try:
        return MlflowClient(uri)
    except (MlflowException, OSError):  # it may be back soon
        raise
    except Exception as error:  # a database of an unknown kind or without its driver; SQLAlchemy raises many types
        raise StudyError(f"MLflow cannot use {uri!r}: {first_line(error)}.") from None


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
