"""Errors of MLflow: which pass, and what to do otherwise.

An error is *busy* if the store is there but cannot answer now: it is locked, slow, or answers 429 or 5xx. It is *final* if
the same request fails again until somebody does something: a deleted experiment, a missing password, tables of another
version. Any other error, such as a server that is away, may pass too, but nobody knows when.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import mlflow
from mlflow.exceptions import MlflowException, RestException

from study.errors import Halted, StudyError, first_line

T = TypeVar("T")

BUSY_SECONDS = 120.0
"""Longest wait for a busy store."""

PAUSE_SECONDS = 1.0
"""Pause between two tries while a store is busy."""

BUSY_CODES: Final = ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")
"""MLflow's names of the answers 503, 429 and 504."""

FINAL_CODES: Final = (
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "NOT_FOUND",
    "ENDPOINT_NOT_FOUND",
    "UNAUTHENTICATED",
    "CUSTOMER_UNAUTHORIZED",
    "PERMISSION_DENIED",
)
"""MLflow's names of answers that trying again does not change."""

_STATUS = re.compile(r"too many (\d{3}) error responses|failed with error code (\d{3})")
_BUSY_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_LOCKED = re.compile(
    r"database( table| schema)? is locked|too many (clients|connections)|timeout exception|timed out", re.I
)
_NO_PASSWORD = re.compile(r"no password supplied|authentication failed|access denied for user", re.IGNORECASE)
_SCHEMA = re.compile(r"out-of-date database schema \(found version (\w+)")


class BusyError(Halted):
    """The store is there but cannot answer now."""


class DeletedError(StudyError):
    """The sweep's experiment has been deleted in MLflow."""


def deleted(uri: str, name: str, experiment_id: str) -> DeletedError:
    """The error that an experiment has been deleted."""
    return DeletedError(
        f"The experiment of {name!r} has been deleted in MLflow; restore it with `MLFLOW_TRACKING_URI={uri} mlflow "
        f"experiments restore --experiment-id {experiment_id}`, or name another store with --tracking-uri."
    )


def is_busy(error: BaseException) -> bool:
    """Whether the store is there but cannot answer now."""
    if isinstance(error, BusyError):
        return True
    if isinstance(error, StudyError):
        return False
    if (status := _status(error)) is not None:
        return status in _BUSY_STATUSES
    if isinstance(error, RestException):  # the server's own words
        return error.error_code in (*BUSY_CODES, "INTERNAL_ERROR")
    return bool(_LOCKED.search(str(error))) or (
        isinstance(error, MlflowException) and error.error_code in BUSY_CODES[1:]  # a database's first one says more
    )


def is_final(error: BaseException) -> bool:
    """Whether trying again changes nothing until somebody acts."""
    if is_busy(error):
        return False
    if isinstance(error, StudyError) or _NO_PASSWORD.search(str(error)) or _SCHEMA.search(str(error)):
        return True
    return isinstance(error, MlflowException) and error.error_code in FINAL_CODES


def reason(error: BaseException, uri: str) -> str:
    """Why MLflow refuses, as a clause.

    Args:
        error: of MLflow, its database or its server.
        uri: of the store.
    """
    text, status, code = str(error), _status(error), getattr(error, "error_code", "")
    if status == 401 or code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"):
        words = (
            "it asks for a user: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    elif status == 403 or code == "PERMISSION_DENIED":
        words = "it does not permit this to the user of MLFLOW_TRACKING_USERNAME or MLFLOW_TRACKING_TOKEN"
    elif status is not None:
        words = f"it answers with error {status}"
    elif "timeout exception" in text or "timed out" in text:
        words = "it does not answer in time"
    elif "API request to" in text and (found := re.search(r"\[Errno -?\d+\] ([\w ]+)", text)):
        words = f"nobody answers there ({found[1]})"
    elif _NO_PASSWORD.search(text):
        words = f"{first_line(error)}; set MLFLOW_TRACKING_URI to the address with its password"
    elif found := _SCHEMA.search(text):
        words = _way_out(found[1], uri)
    else:
        words = first_line(error)
    return words


def _way_out(revision: str, uri: str) -> str:
    """What to do about tables of another version of MLflow."""
    versions = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    if any(versions.glob(f"{revision}_*.py")):
        return f"its tables are of an older MLflow; back it up, then run `mlflow db upgrade {uri}`"
    return (
        f"its tables are not of MLflow {mlflow.__version__} or an older one; update MLflow here, or name another store with "
        f"--tracking-uri"
    )


def patiently(request: Callable[[], T], say: Callable[[str], None]) -> T:
    """Makes a request again while the store is busy.

    Args:
        request: raises `BusyError` if the store is.
        say: called once with a message if it has to wait.

    Returns:
        What the request returns.

    Raises:
        BusyError: the store has been busy for `BUSY_SECONDS`.
    """
    began, told = time.monotonic(), False
    while True:
        try:
            return request()
        except BusyError as error:
            if time.monotonic() - began >= BUSY_SECONDS:
                raise
            if not told:
                say(f"{str(error).rstrip('.')}; trying again for up to {BUSY_SECONDS:g} s")
            told = True
            time.sleep(PAUSE_SECONDS)


def _status(error: BaseException) -> int | None:
    """The HTTP status in an error's message, if there is one."""
    found = _STATUS.search(str(error))
    return int(found[1] or found[2]) if found else None
