"""The folder of a sweep: its plan and log, the records of its trials, its exports, Ray's checkpoints.

study-results/
  mlflow.db                 MLflow's default store, shared by the sweeps beside it
  NAME/sweep.jsonl          append-only: the plan, then every start, change of budget, and how long MLflow's part took
  NAME/trials/KEY/          the record of each trial, and its traceback if it failed
  NAME/best/                exported configurations
  NAME/ray/                 checkpoints, one folder a session, unless `--storage` puts them elsewhere
  NAME/mlflow-artifacts/    artifacts, where the store is a database and no server
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from study.errors import StudyError, nearest
from study.files import draft_of
from study.sweep import storage
from study.sweep.execution import DEFAULT_DIRECTORY, Execution
from study.sweep.plan import Plan, check_name
from study.sweep.record import LineReader, TrialHistory, TrialRecord, append_line, read_records

STORE_FILE = "mlflow.db"


class RunningError(StudyError):
    """Another process is driving the sweep."""


@dataclass(frozen=True)
class SweepFolder:
    """One sweep on disk."""

    root: Path
    plan: Plan
    execution: Execution
    task_counts: dict[str, int]

    @classmethod
    def create(cls, directory: Path, plan: Plan, execution: Execution, task_counts: dict[str, int]) -> SweepFolder:
        """Makes the folder of a new sweep. Raises StudyError when the name is taken or the folder cannot be written."""
        check_new(directory, plan.name)
        root = directory / plan.name
        line = {"kind": "plan", "plan": plan.plain(), "execution": execution.plain(), "task_counts": task_counts}
        try:
            with draft_of(root) as draft:
                (draft / "trials").mkdir(parents=True)
                append_line(draft / "sweep.jsonl", line)
                draft.rename(root)
        except OSError as error:
            raise StudyError(f"The folder {str(root)!r} cannot be written: {error.strerror}.") from None
        return cls(root, plan, execution, task_counts)

    @classmethod
    def open(cls, directory: Path, name: str) -> SweepFolder:
        """The sweep of that name. Raises StudyError when there is none."""
        check_name(name)
        root = directory / name
        if not (root / "sweep.jsonl").is_file():
            known = names(directory)
            raise StudyError(f"There is no sweep {name!r} in {str(directory)!r}; {nearest(name, known)}.")
        lines = list(LineReader(root / "sweep.jsonl").new_lines())
        if not lines or lines[0].get("kind") != "plan":
            raise StudyError(f"{str(root / 'sweep.jsonl')!r} does not begin with the plan of a sweep.")
        try:
            plan = Plan.from_plain(lines[0]["plan"], str(root))
            execution = Execution(**lines[0]["execution"])
            for line in lines[1:]:
                if line["kind"] == "budget":
                    plan = plan.with_trials(line["trials"])
                elif line["kind"] == "start":
                    execution = Execution(**line["execution"])
            return cls(root, plan, execution, lines[0]["task_counts"])
        except (KeyError, TypeError, ValueError):  # of another version, or by another hand
            raise StudyError(
                f"{str(root / 'sweep.jsonl')!r} is not the log of a sweep that this version reads."
            ) from None

    @property
    def directory(self) -> Path:
        """The folder of all sweeps."""
        return self.root.parent

    @property
    def identity(self) -> str:
        """16 hexadecimal digits that tell this sweep from any other one, of the same name and plan too."""
        with (self.root / "sweep.jsonl").open("rb") as file:
            return hashlib.blake2b(file.readline(), digest_size=8).hexdigest()

    @property
    def option(self) -> str:
        """What a command must be given to find the sweep: nothing when it lies in the default folder."""
        return "" if self.directory == DEFAULT_DIRECTORY else f" --dir {shlex.quote(str(self.directory))}"

    def log(self, kind: str, **content: Any) -> None:
        """Appends a line to the sweep's own log."""
        append_line(self.root / "sweep.jsonl", {"kind": kind, **content})

    def records(self) -> list[TrialRecord]:
        """The records of all trials so far, in the order of the plan's groups, then by number.

        Raises StudyError when something else lies among them.
        """
        places = {group.label: place for place, group in enumerate(self.plan.groups)}
        try:
            records = read_records(self.root / "trials", self.plan.labels)
            return sorted(records, key=lambda record: (places[record.history.group], record.history.number))
        except (KeyError, TypeError, ValueError) as error:  # of another version, or by another hand
            raise StudyError(f"{str(self.root / 'trials')!r} holds what is no record of this sweep: {error}") from None

    def histories(self) -> list[TrialHistory]:
        """What the records tell."""
        return [record.history for record in self.records()]

    def begin_session(self, asked: Execution, resolved: Execution) -> str:
        """Logs a start.

        Args:
            asked: what the user asked for, which a resume elsewhere begins from.
            resolved: the same with its open choices made.

        Returns:
            A name for what Ray stores that no earlier session has used.
        """
        taken = sum(1 for line in LineReader(self.root / "sweep.jsonl").new_lines() if line["kind"] == "start")
        self.log("start", execution=asked.plain(), resolved=resolved.plain())
        return f"session-{taken:03d}"

    def checkpoint_place(self, execution: Execution) -> str:
        """The place of the checkpoints: a folder or an address of this sweep alone."""
        if execution.storage is None:
            return own_checkpoint_place(self.directory, self.plan.name)
        return storage.within(execution.storage, f"{self.plan.name}-{self.identity}")

    def traceback_file(self, key: str) -> Path:
        """Where the tracebacks of a failed trial are kept, those of all attempts one after the other."""
        return self.root / "trials" / key / "traceback.txt"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other drivers out. Raises RunningError when one is in, StudyError when the folder cannot be written."""
        lock = FileLock(self.root / ".lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise RunningError(f"The sweep {self.plan.name!r} is running already, in another process.") from None
        except OSError as error:
            raise StudyError(f"The folder {str(self.root)!r} cannot be written: {error.strerror}.") from None
        try:
            yield
        finally:
            lock.release()


def own_checkpoint_place(directory: Path, name: str) -> str:
    """Where the checkpoints of a sweep go by default."""
    return str((directory / name / "ray").resolve())


def names(directory: Path) -> list[str]:
    """The sweeps in a folder, in alphabetical order."""
    found = (path.parent.name for path in directory.glob("*/sweep.jsonl"))
    return sorted(name for name in found if not name.startswith("."))  # such as the draft of a launch that was killed


def check_new(directory: Path, name: str) -> None:
    """Refuses a name that is taken, or a folder that cannot be written, before any work starts."""
    check_name(name)
    if name == STORE_FILE:
        raise StudyError(f"{name!r} cannot name a sweep: MLflow's store has that name; choose another with --name.")
    if (directory / name).exists():
        number = next(n for n in range(2, 10_000) if not (directory / f"{name}-{n}").exists())
        is_sweep = (directory / name / "sweep.jsonl").is_file()
        going_on = f"go on with it by `study resume {name}`, or " if is_sweep else "it is no sweep; "
        raise StudyError(
            f"{str(directory / name)!r} exists already; {going_on}choose another name, for example --name {name}-{number}."
        )
    check_writable(directory)


def first_existing(directory: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    return next((path for path in (directory, *directory.parents) if path.exists()), Path())


def check_writable(directory: Path) -> None:
    """Refuses a folder of sweeps that cannot be made or written. Raises StudyError."""
    existing = first_existing(directory)
    if not existing.is_dir():
        raise StudyError(f"--dir {str(directory)!r} cannot be a folder: {str(existing)!r} is a file.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise StudyError(f"--dir {str(directory)!r} cannot be written; choose a folder that can.")
