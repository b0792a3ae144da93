"""Options that several commands share, and their meaning."""

from __future__ import annotations

import json
import math
import os
import unicodedata
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from study import addresses, redaction
from study.config import TrialConfig
from study.errors import StudyError, nearest
from study.sweep.execution import Execution

Place = TypeVar("Place", Path, str)

UNSHOWN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, bytes that are no text, and line breaks."""


def in_one_line(value: Place | None) -> Place | None:
    """The folder or address that an option names.

    Raises StudyError if it cannot be shown in one line.
    """
    if value is not None and any(unicodedata.category(character) in UNSHOWN for character in str(value)):
        raise StudyError(f"{str(value)!a} has a line break or control character in it; choose another name.")
    return value


Directory = Annotated[Path, typer.Option("--dir", help="Folder of all sweeps.", callback=in_one_line)]
DataDir = Annotated[
    Path | None,
    typer.Option(
        callback=in_one_line,
        help="Folder of downloaded data sets; default: $STUDY_DATA or ~/.cache/plasticity-study/data.",
    ),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        callback=in_one_line,
        help="MLflow's store or server; default: $MLFLOW_TRACKING_URI, or SQLite in the folder of sweeps.",
    ),
]
Name = Annotated[str, typer.Argument(help="Name of the sweep.", show_default=False)]
Settings = Annotated[
    list[str],
    typer.Option("--set", help="Override a setting by its slash name, e.g. training/batch_size=32. Repeatable."),
]
CpusPerTrial = Annotated[float | None, typer.Option(help="CPUs and threads per trial; default: 1.")]
GpusPerTrial = Annotated[
    float | None, typer.Option(help="GPUs per trial; a fraction shares a GPU; default: 0.25 if there is one.")
]
Workers = Annotated[
    int | None, typer.Option(help="Most trials at once; 1 makes a search repeatable; default: all that fit.")
]
Address = Annotated[
    str | None,
    typer.Option(
        help="A Ray cluster (HOST:PORT or auto), or local for this machine only; default: $RAY_ADDRESS, or local."
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        callback=in_one_line,
        help="Folder or s3://BUCKET/PREFIX for checkpoints, reachable from all nodes; default: the sweep's folder.",
    ),
]
PricePerHour = Annotated[
    float | None,
    typer.Option(help="For the estimate: price per hour of all machines together.", min=0, show_default=False),
]


def parse_overrides(settings: list[str]) -> dict[str, Any]:
    """Settings by slash name, from `--set` options.

    Raises StudyError if one is malformed.
    """
    return dict(parse_setting(text) for text in settings)


def parse_widths(words: str) -> tuple[int, ...]:
    """Layer widths from words such as `100,100`.

    Raises StudyError if they are malformed.
    """
    try:
        widths = tuple(int(word) for word in words.split(","))
    except ValueError:
        widths = ()
    if not widths or min(widths) < 1:
        raise StudyError(f"--widths {words} must be positive whole numbers separated by commas, such as 100,100.")
    return widths


def data_folder(given: Path | None) -> Path:
    """The folder of downloaded data sets.

    As given, else $STUDY_DATA, else the cache in the user's home.
    """
    cache = os.environ.get("STUDY_DATA") or "~/.cache/plasticity-study/data"
    return addresses.full_path(given or cache)


def new_execution(
    cpus_per_trial: float | None = None,
    gpus_per_trial: float | None = None,
    workers: int | None = None,
    address: str | None = None,
    storage: str | None = None,
    data_dir: Path | None = None,
    tracking_uri: str | None = None,
) -> Execution:
    """The execution that options and environment ask for.

    Raises StudyError if a number is out of range.
    """
    changes = execution_changes(cpus_per_trial, gpus_per_trial, workers, address, storage, data_dir, tracking_uri)
    given = {name: value for name, value in changes.items() if value is not None}
    return Execution(**{**given, "data_dir": str(data_folder(data_dir))})


def execution_changes(
    cpus_per_trial: float | None,
    gpus_per_trial: float | None,
    workers: int | None,
    address: str | None,
    storage: str | None,
    data_dir: Path | None,
    tracking_uri: str | None,
) -> dict[str, Any]:
    """Changes to the execution of an existing sweep.

    A value of None means as before.

    Raises StudyError if a number is out of range, or if an address that would be kept has a secret in it.
    """
    for option, number in (("--cpus-per-trial", cpus_per_trial), ("--workers", workers)):
        if number is not None and not 0 < number < math.inf:
            raise StudyError(f"{option} must be above 0, not {number:g}.")
    if gpus_per_trial is not None and not 0 <= gpus_per_trial < math.inf:
        raise StudyError(f"--gpus-per-trial must be 0 or more, not {gpus_per_trial:g}.")
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address and ("@" in address or redaction.has_secrets(address)):
        raise StudyError("--address must have no user name, password or token in it: give HOST:PORT, auto or local.")
    if storage and redaction.has_secrets(storage):
        raise StudyError(
            f"--storage {redaction.without_secrets(storage)} was given with a password or key, which Ray would write into its "
            f"files; leave it out and set the storage's own variables, such as AWS_SECRET_ACCESS_KEY, on all nodes."
        )
    return {
        "cpus_per_trial": cpus_per_trial,
        "gpus_per_trial": gpus_per_trial,
        "workers": workers,
        "address": address,
        "storage": storage,
        "tracking_uri": addresses.absolute(redaction.kept(tracking_uri)) if tracking_uri else tracking_uri,
        "data_dir": str(data_folder(data_dir)) if data_dir else None,
    }


def parse_setting(text: str) -> tuple[str, Any]:
    """A slash name and its value, from `key=value`.

    The value is read as JSON if it is JSON, and else as a plain word.


    Raises:
        StudyError: there is no `=`, no slash in the key, or no such group of settings.
    """
    key, equals, value = text.partition("=")
    if not equals or "/" not in key:
        raise StudyError(f"--set {text} is not a setting; write it like --set training/batch_size=32.")
    groups = [name for name in TrialConfig.model_fields if name != "seeds"]
    if key.split("/")[0] not in groups:
        raise StudyError(f"--set {text}: unknown setting {key!r}; {nearest(key.split('/')[0], groups)}.")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
