"""Options that several commands share, and what their words mean."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from study.config import TrialConfig
from study.errors import StudyError, nearest
from study.sweep.execution import Execution

Directory = Annotated[Path, typer.Option("--dir", help="Folder of all sweeps.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of downloaded data sets; default: $STUDY_DATA or ~/.cache/plasticity-study/data."),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(help="MLflow's store or server; default: $MLFLOW_TRACKING_URI, or SQLite in the folder of sweeps."),
]
Name = Annotated[str, typer.Argument(help="Name of the sweep.", show_default=False)]
Settings = Annotated[
    list[str],
    typer.Option("--set", help="Overrule any setting by its slash name, e.g. training/batch_size=32. Repeatable."),
]
CpusPerTrial = Annotated[float | None, typer.Option(help="CPUs and threads of each trial; default 1.")]
GpusPerTrial = Annotated[
    float | None, typer.Option(help="GPUs of each trial; a fraction shares a card; default 0.25 where there is one.")
]
Workers = Annotated[
    int | None, typer.Option(help="Most trials at once; 1 makes a search repeatable. Default: all that fit.")
]
Address = Annotated[
    str | None,
    typer.Option(
        help="A Ray cluster, HOST:PORT or auto; or local: this machine alone. Default: $RAY_ADDRESS, or local."
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        help="Folder or s3://BUCKET/PREFIX that all nodes reach, for checkpoints; default: in the sweep's folder."
    ),
]
PricePerHour = Annotated[
    float | None,
    typer.Option(help="Price of an hour of all that the sweep runs on, for the estimate.", min=0, show_default=False),
]


def parse_overrides(settings: list[str]) -> dict[str, Any]:
    """Settings by slash name, from `--set` options. Raises StudyError if one is malformed."""
    return dict(parse_setting(text) for text in settings)


def parse_widths(words: str) -> tuple[int, ...]:
    """Layer widths from words such as `100,100`. Raises StudyError."""
    try:
        widths = tuple(int(word) for word in words.split(","))
    except ValueError:
        widths = ()
    if not widths or min(widths) < 1:
        raise StudyError(f"--widths {words} must be whole numbers from 1 on with commas between them, such as 100,100.")
    return widths


def data_folder(given: Path | None) -> Path:
    """The folder of downloaded data sets: as given, $STUDY_DATA, or the cache."""
    cache = os.environ.get("STUDY_DATA") or Path.home() / ".cache" / "plasticity-study" / "data"
    return Path(given or cache).expanduser().resolve()


def execution_changes(
    cpus_per_trial: float | None,
    gpus_per_trial: float | None,
    workers: int | None,
    address: str | None,
    storage: str | None,
    data_dir: Path | None,
    tracking_uri: str | None,
) -> dict[str, Any]:
    """Changes to the execution of a sweep that there is already; None: as it was."""
    changes = {
        "cpus_per_trial": cpus_per_trial,
        "gpus_per_trial": gpus_per_trial,
        "workers": workers,
        "address": address or os.environ.get("RAY_ADDRESS") or None,
        "storage": storage,
        "tracking_uri": tracking_uri,
        "data_dir": str(data_folder(data_dir)) if data_dir else None,
    }
    checked_execution(**{**changes, "data_dir": ""})
    return changes


def checked_execution(**choices: Any) -> Execution:
    """The execution, refusing numbers that make no sense."""
    for name in ("cpus_per_trial", "workers"):
        if choices[name] is not None and not 0 < choices[name] < math.inf:
            raise StudyError(f"--{name.replace('_', '-')} must be above 0, not {choices[name]:g}.")
    if choices["gpus_per_trial"] is not None and not 0 <= choices["gpus_per_trial"] < math.inf:
        raise StudyError(f"--gpus-per-trial must be 0 or more, not {choices['gpus_per_trial']:g}.")
    return Execution(**{name: value for name, value in choices.items() if value is not None})


def parse_setting(text: str) -> tuple[str, Any]:
    """Reads `key=value` as the command line gives it; the value is JSON, or else a plain word.

    Raises:
        StudyError: there is no `=`, or no slash in the key, or no such group of settings.
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
