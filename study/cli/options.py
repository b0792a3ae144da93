"""Options that several commands share, and their meaning."""

from __future__ import annotations

import json
import math
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict, Unpack

import typer

from study import addresses, redaction
from study.cli.upkeep import completion, session
from study.config import MOST_SEEDS, TrialConfig, is_too_nested, parse_yaml
from study.errors import StudyError, nearest
from study.parts import outside
from study.sweep.execution import Execution

MOST_IMAGES = 100_000
"""Images of a minibatch in `study bench`."""

MOST_UNITS = 1_000_000
"""Units of a layer in `study bench`."""

MOST_PROCESSORS = 1_000_000
"""CPUs or GPUs of a trial, or trials at once."""

LONGEST_PATH = 4000
"""Bytes of a path, somewhat fewer than Linux allows, since files go below it."""

LONGEST_FILE_NAME = 255
"""Bytes between two slashes of a path."""


UNSHOWN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, bytes that are no text, and line breaks."""


def word(what: str) -> Callable[[str], str]:
    """Parses a value that must not be empty.

    It must fit into one line.

    Args:
        what: the option or argument, for the message.
    """

    def parse(text: str) -> str:
        if not text:
            raise StudyError(f"{what} must not be empty; give a value or leave it out.")
        if any(unicodedata.category(character) in UNSHOWN for character in text):
            raise StudyError(f"{what} {text!a} has a line break or control character in it; choose another name.")
        return text

    return parse


def path(what: str) -> Callable[[str | Path], Path]:
    """Parses a path.

    Refused are an empty one and one that no file system can hold.

    Args:
        what: the option or argument, for the message.
    """

    def parse(given: str | Path) -> Path:
        text = word(what)(str(given))
        content = text.encode()
        longest = max(map(len, content.split(b"/")))
        if len(content) > LONGEST_PATH or longest > LONGEST_FILE_NAME:
            raise StudyError(
                f"{what} {text!r} is too long: a path has at most {LONGEST_PATH} bytes, and "
                f"{LONGEST_FILE_NAME} between two slashes."
            )
        return Path(text)

    return parse


def path_text(what: str) -> Callable[[str], str]:
    """Parses a name that may be a path; see `path`.

    Args:
        what: the argument, for the message.
    """

    def parse(text: str) -> str:
        path(what)(text)
        return text

    return parse


def new_folder(what: str) -> Callable[[str | Path], Path]:
    """Parses the path of a new folder; see `path`.

    Args:
        what: the option, for the message.
    """

    def parse(given: str | Path) -> Path:
        folder = path(what)(given)
        if folder.name in ("", ".."):
            raise StudyError(f"{what} {str(given)!r} must name a new folder, such as {what} page.")
        return folder

    return parse


def place(what: str) -> Callable[[str], str]:
    """Parses a folder or an address such as s3://BUCKET/PREFIX.

    Args:
        what: the option, for the message.
    """

    def parse(text: str) -> str:
        return word(what)(text) if "://" in text else str(path(what)(text))

    return parse


def pack_size(text: str | int) -> int:
    """Parses the size of a pack; 0 stands for auto."""
    if text == "auto":
        return 0
    if not str(text).isdecimal() or not 1 <= int(text) <= MOST_PROCESSORS:
        raise StudyError(
            f"--pack must be auto or a whole number, at least 1 and at most {MOST_PROCESSORS:,}, not {str(text)!r}."
        )
    return int(text)


def number(what: str, low: float, high: float) -> Callable[[str | float], float]:
    """Parses a number within bounds.

    Args:
        what: the option, for the message.
        low, high: the bounds; both are included.
    """

    def parse(given: str | float) -> float:
        try:
            value = float(given)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # nor if it is NaN
            raise StudyError(f"{what} must be a number, at least {low:g} and at most {high:g}, not {str(given)!r}.")
        return value

    return parse


Directory = Annotated[
    Path, typer.Option("--dir", help="Folder of all sweeps.", parser=path("--dir"), metavar="DIRECTORY")
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder of downloaded data sets; default: $STUDY_DATA or ~/.cache/plasticity-study/data.",
        parser=path("--data-dir"),
        metavar="DIRECTORY",
    ),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        help="MLflow's store or server; default: $MLFLOW_TRACKING_URI, or SQLite in the folder of sweeps.",
        parser=word("--tracking-uri"),
        metavar="ADDRESS",
    ),
]
FilesFolder = Annotated[
    Path | None,
    typer.Option(
        "--to",
        help="Folder for the files; default: a folder within the sweep's.",
        parser=path("--to"),
        metavar="DIRECTORY",
    ),
]
NewFolder = Annotated[
    Path | None,
    typer.Option(
        "--to",
        help="A new folder; default: a folder within the sweep's.",
        parser=new_folder("--to"),
        metavar="DIRECTORY",
    ),
]
Formats = Annotated[
    list[str],
    typer.Option(
        "--format",
        help="Write figures as svg or pdf too, or tables as parquet or latex (booktabs), beside png and csv. Repeatable.",
    ),
]
SpaceName = Annotated[
    str,
    typer.Argument(
        help="Name of a search space (see: study list) or path of a file.",
        parser=path_text("The search space"),
        autocompletion=completion.spaces,
    ),
]
Name = Annotated[str, typer.Argument(help="Name of the sweep.", show_default=False, autocompletion=completion.sweeps)]
Settings = Annotated[
    list[str],
    typer.Option("--set", help="Override a setting by its slash name, e.g. training/batch_size=32. Repeatable."),
]
CpusPerTrial = Annotated[
    float | None, typer.Option(help="CPUs and threads of a worker, which trains a pack of trials; default: 1.")
]
GpusPerTrial = Annotated[
    float | None, typer.Option(help="GPUs of a worker; a fraction shares a GPU; default: 1 if there is one.")
]
Workers = Annotated[
    int | None, typer.Option(help="Most workers at once; 1 makes a search repeatable; default: all that fit.")
]
Pack = Annotated[
    int | None,
    typer.Option(
        help="Most trials that a worker trains together, as one stack of lanes, or auto; default: auto, which is 1 on a CPU.",
        parser=pack_size,
        metavar="N",
    ),
]
Page = Annotated[
    bool,
    typer.Option("--ui", help="Serve MLflow's page on this machine while the sweep runs, and print its address."),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="A Ray cluster (HOST:PORT or auto), or local for this machine only; default: $RAY_ADDRESS, or local.",
        parser=word("--address"),
        metavar="ADDRESS",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        help="Folder or s3://BUCKET/PREFIX for checkpoints, reachable from all nodes; default: the sweep's folder.",
        parser=place("--storage"),
        metavar="PLACE",
    ),
]
After = Annotated[
    str | None,
    typer.Option(
        help="Begin the search with what this earlier sweep has found; its settings, ranges and objective must fit.",
        metavar="SWEEP",
        autocompletion=completion.sweeps,
        show_default=False,
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        help="End in good order after this time, such as 90s, 30m or 1h30m, with exit code 0; go on with study resume.",
        parser=session.seconds_of,
        metavar="TIME",
        show_default=False,
    ),
]
Notify = Annotated[
    str | None,
    typer.Option(
        help="When done or failed: a shell command with $STUDY_TEXT, or an http(s) address that gets JSON; kept nowhere.",
        envvar="STUDY_NOTIFY",
        parser=session.target_of,
        metavar="COMMAND|URL",
        show_default=False,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with all digits, instead of tables.")]
BatchSizes = Annotated[list[int], typer.Option(help="Images per minibatch. Repeatable.", min=1, max=MOST_IMAGES)]
LaneCounts = Annotated[list[int], typer.Option(help="Seeds trained together. Repeatable.", min=1, max=MOST_SEEDS)]
Seconds = Annotated[
    float,
    typer.Option(
        help="Seconds per cell of the tables and round; other measurements scale with it.",
        parser=number("--seconds", 0.001, 3600),
        metavar="NUMBER",
    ),
]
Host = Annotated[str, typer.Option(help="Address to listen on.", parser=word("--host"), metavar="HOST")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Check the command, show the plan and estimate its time; start nothing."),
]
PricePerHour = Annotated[
    float | None,
    typer.Option(
        help="For the estimate: price per hour of all machines together.",
        parser=number("--price-per-hour", 0, 1e9),
        metavar="NUMBER",
        show_default=False,
    ),
]


def parse_overrides(settings: list[str]) -> dict[str, Any]:
    """Settings by slash name, from `--set` options.

    Raises StudyError if one is malformed, or names a file that cannot be read.
    """
    return outside.adopted(dict(parse_setting(text) for text in settings), Path())


def parse_widths(words: str) -> tuple[int, ...]:
    """Layer widths from words such as `100,100`.

    Raises StudyError if they are malformed.
    """
    try:
        widths = tuple(int(word) for word in words.split(","))
    except ValueError:
        widths = ()
    if not widths or min(widths) < 1 or max(widths) > MOST_UNITS:
        raise StudyError(
            f"--widths {words} must be whole numbers from 1 to {MOST_UNITS:,} separated by commas, such as 100,100."
        )
    return widths


def check_threads(threads: int) -> None:
    """Raises StudyError if this machine has fewer processors."""
    most = os.cpu_count() or 1
    if not 1 <= threads <= most:
        raise StudyError(f"--threads must be from 1 to {most}, the processors of this machine, not {threads}.")


def data_folder(given: Path | None) -> Path:
    """The folder of downloaded data sets.

    As given, else $STUDY_DATA, else the cache in the user's home.
    """
    if given is None and (variable := os.environ.get("STUDY_DATA")):
        given = path("STUDY_DATA")(variable)
    try:
        return addresses.full_path(given or "~/.cache/plasticity-study/data")
    except RuntimeError:
        raise StudyError(
            "This user has no home folder to keep data sets in; name another folder with --data-dir or STUDY_DATA."
        ) from None


class Where(TypedDict, total=False):
    """Where and how a sweep runs, as the options say.

    Attributes:
        cpus_per_trial, gpus_per_trial: reserved for each trial, or pack of trials.
        workers: trials, or packs, at once.
        pack: trials that a worker trains together.
        address: of a Ray cluster.
        storage: for checkpoints that all nodes can reach.
        data_dir: folder of downloaded data sets.
        tracking_uri: of MLflow's store.
    """

    cpus_per_trial: float | None
    gpus_per_trial: float | None
    workers: int | None
    pack: int | None
    address: str | None
    storage: str | None
    data_dir: Path | None
    tracking_uri: str | None


def new_execution(**where: Unpack[Where]) -> Execution:
    """The execution that options and environment ask for.

    Raises StudyError if a number is out of range.
    """
    given = {name: value for name, value in execution_changes(**where).items() if value is not None}
    return Execution(**{**given, "data_dir": str(data_folder(where.get("data_dir")))})


def execution_changes(
    cpus_per_trial: float | None = None,
    gpus_per_trial: float | None = None,
    workers: int | None = None,
    pack: int | None = None,
    address: str | None = None,
    storage: str | None = None,
    data_dir: Path | None = None,
    tracking_uri: str | None = None,
) -> dict[str, Any]:
    """Changes to the execution of an existing sweep.

    A value of None means as before.

    Raises StudyError if a number is out of range, or if an address that would be kept has a secret in it.
    """
    for option, value in (("--cpus-per-trial", cpus_per_trial), ("--workers", workers)):
        if value is not None and not 0 < value <= MOST_PROCESSORS:
            limit = f"above 0 and at most {MOST_PROCESSORS:,}" if value > 0 else "above 0"
            raise StudyError(f"{option} must be {limit}, not {value}.")
    if gpus_per_trial is not None and not 0 <= gpus_per_trial <= MOST_PROCESSORS:
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
        "pack": pack,
        "address": address,
        "storage": storage,
        "tracking_uri": addresses.absolute(redaction.kept(tracking_uri)) if tracking_uri else tracking_uri,
        "data_dir": str(data_folder(data_dir)) if data_dir else None,
    }


def parse_setting(text: str) -> tuple[str, Any]:
    """A slash name and its value, from `key=value`.

    The value is read as JSON if it is JSON, else as a file's YAML would be, and else as a plain word.

    Raises:
        StudyError: there is no `=`, no slash in the key, no such group of settings, or the value is nested too deep.
    """
    key, equals, value = text.partition("=")
    if not equals or "/" not in key:
        raise StudyError(f"--set {text} is not a setting; write it like --set training/batch_size=32.")
    groups = [name for name in TrialConfig.model_fields if name != "seeds"]
    if key.split("/")[0] not in groups:
        raise StudyError(f"--set {text}: unknown setting {key!r}; {nearest(key.split('/')[0], groups)}.")
    return key, _value(key, value)


def _value(key: str, text: str) -> Any:
    """The value of a setting, from its text."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise StudyError(f"--set {key}: the value is nested too deep.") from None
    except ValueError:
        try:
            value = parse_yaml(text)
        except ValueError:
            return text
        if not isinstance(value, bool | int | float | str | list | dict):  # YAML's dates, and nothing for a comment
            return text
    if is_too_nested(value):
        raise StudyError(f"--set {key}: the value is nested too deep, or has too many values.")
    return value
