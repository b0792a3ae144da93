"""MLflow's store as a reader meets it: a client, the runs of an experiment, the tags that tell sweeps apart."""

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
"""Tag of an experiment: whose runs it holds. A name is not enough where several people share a server."""

CONFIRMS_TAG: Final = "confirms_identity"
"""Tag of a confirmation's experiment: the identity of the sweep that it confirms."""


def quieten() -> None:
    """Makes MLflow give up soon when a server is away, and keeps its chatter off the terminal.

    MLflow repeats no request by itself: the answer may be lost and not the request, and then a run would be made twice.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # an error is raised too, and told in a sentence


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None when the store is none."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def is_missing(uri: str) -> bool:
    """Whether the store is an SQLite file that does not exist yet; to look into it would make it."""
    file = sqlite_file(uri)
    return file is not None and not file.exists()


def served(uri: str) -> bool:
    """Whether the store is a server, which keeps artifacts itself, and not a database."""
    return urlparse(uri).scheme in ("http", "https")


def check_reachable(uri: str) -> None:
    """Refuses a server that does not answer, before any work starts. Raises StudyError."""
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
                f"No MLflow server answers at {uri} ({error}); start it, or leave the address away to use a local file."
            ) from None
    elif parsed.scheme not in ("sqlite", "postgresql", "mysql", "mssql") and "+" not in parsed.scheme:
        raise StudyError(
            f"{uri!r} is no MLflow store that the study can use: give http(s)://HOST:PORT, sqlite:///FILE or another "
            f"database."
        )


@contextmanager
def refusals(uri: str) -> Iterator[None]:
    """Turns whatever MLflow refuses inside into one StudyError."""
    try:
        yield
    except (MlflowException, OSError) as error:
        raise StudyError(f"MLflow at {uri} refuses: {first_line(error)}.") from None


def server_version(uri: str) -> str:
    """The version of MLflow that a server runs; "" when the store is no server, or when the server does not say."""
    if not served(uri):
        return ""
    try:
        with urlopen(f"{uri.rstrip('/')}/version", timeout=5) as answer:  # noqa: S310  # http or https: see `served`
            return str(answer.read(100), "utf-8", "replace").strip()
    except (OSError, ValueError):
        return ""


def connect(uri: str) -> MlflowClient:
    """A client of the store, which is not looked into yet. Raises StudyError when MLflow has no such kind of store."""
    quieten()
    try:
        return MlflowClient(uri)
    except (MlflowException, OSError):  # it may be back in a while
        raise
    except Exception as error:  # a database of an unknown kind or without its driver, whatever that raises
        raise StudyError(f"MLflow cannot use {uri!r}: {first_line(error)}.") from None


def find_runs(client: MlflowClient, experiment_id: str, query: str) -> list[Run]:
    """All runs of an experiment that a query finds, however many."""
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], query, max_results=1000, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs
