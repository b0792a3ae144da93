"""The folder of a sweep.

study-results/
  mlflow.db                 MLflow's default store, shared by all sweeps in this folder
  NAME/sweep.jsonl          append-only log: the plan, then each start, change of budget, end, and MLflow's share of the time
  NAME/trials/KEY/          the record of each trial, and its tracebacks if it failed
  NAME/best/                exported configurations
  NAME/ray/                 checkpoints, one folder for each start, unless `--storage` puts them elsewhere
  NAME/mlflow-artifacts/    artifacts, if the store is a database rather than a server
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from study import addresses
from study.errors import StudyError, brief, nearest
from study.files import draft_of, write_fault
from study.sweep import storage
from study.sweep.execution import DEFAULT_DIRECTORY, Execution
from study.sweep.forms import LOG_LINE
from study.sweep.lines import FORMAT, LineError, LineReader, append_line, format_fault
from study.sweep.plan import Group, Plan, check_name
from study.sweep.record import ForeignRecordError, Outcome, TrialHistory, TrialRecord, records_in

STORE_FILE = "mlflow.db"

LOCK_FILE = ".lock"
"""Locked by the process that drives the sweep."""

PROBE_SECONDS = 0.2
"""How long a driver waits for the lock: longer than another process takes to see whether it is locked."""


class RunningError(StudyError):
    """Another process is driving the sweep."""


@dataclass(frozen=True)
class SweepFolder:
    """One sweep on disk.

    Attributes:
        root: the folder of this sweep.
        plan: what it tries, with its present budget.
        execution: what the user asked for at the last start.
        task_counts: number of tasks of each scenario.
    """

    root: Path
    plan: Plan
    execution: Execution
    task_counts: dict[str, int]

    @classmethod
    def create(cls, directory: Path, plan: Plan, execution: Execution, task_counts: dict[str, int]) -> SweepFolder:
        """Creates the folder of a new sweep.

        Raises StudyError if the name is taken or the folder cannot be written.
        """
        check_new(directory, plan.name)
        root = directory / plan.name
        line = {
            "kind": "plan",
            "format": FORMAT,
            "plan": plan.plain(),
            "execution": execution.plain(),
            "task_counts": task_counts,
            "directory": str(directory.resolve()),
        }
        try:
            with draft_of(root) as draft:
                (draft / "trials").mkdir(parents=True)
                append_line(draft / "sweep.jsonl", line, LOG_LINE)
                draft.rename(root)
        except OSError as error:
            raise StudyError(f"The folder {str(root)!r} cannot be written: {error.strerror}.") from None
        return cls(root, plan, execution, task_counts)

    @classmethod
    def open(cls, directory: Path, name: str) -> SweepFolder:
        """Opens the sweep of that name.

        Raises StudyError if there is none or its log cannot be understood.
        """
        check_name(name)
        root = directory / name
        if not (root / "sweep.jsonl").is_file():
            raise StudyError(f"There is no sweep {name!r} in {str(directory)!r}; {nearest(name, names(directory))}.")
        reader = LineReader(root / "sweep.jsonl", LOG_LINE)
        lines = reader.new_lines()
        first = _first_line(root / "sweep.jsonl")
        next(lines)
        try:
            plan = Plan.from_plain(first["plan"], "it")
            execution = _execution(first, directory)
            task_counts = dict(first["task_counts"])
            if missing := {group.scenario for group in plan.groups} - task_counts.keys():
                reader.refuse(f"the number of tasks of {min(missing)} is missing")
            for line in lines:
                if line["kind"] == "budget":
                    plan = plan.with_trials(line["trials"])
                elif line["kind"] == "start":
                    execution = _execution(line, directory)
                elif line["kind"] == "plan":
                    reader.refuse("the plan is on an earlier line")
        except LineError:
            raise
        except StudyError as error:  # written by another version, or edited
            reader.refuse(str(error))
        return cls(root, plan, execution, task_counts)

    @property
    def directory(self) -> Path:
        """The folder of all sweeps."""
        return self.root.parent

    @property
    def name(self) -> str:
        """The name that commands know the sweep by.

        It is that of its folder, which is not the plan's if the folder was renamed.
        """
        return self.root.name

    @property
    def identity(self) -> str:
        """An identifier of 16 hexadecimal digits.

        It differs even between sweeps of the same name and plan, since the first line of the log has the time.
        """
        return identity_of(self.root)

    def command(self, verb: str, *more: object) -> str:
        """A command on this sweep for the user to run."""
        return command(self.directory, verb, self.name, *more)

    def tuning(self) -> SweepFolder | None:
        """The sweep that this one confirms.

        None if it is not in the same folder. It may be under another name than at the time.
        """
        identity = self.plan.confirms.identity if self.plan.confirms else ""
        try:
            return next(
                (self.open(self.directory, root.name) for root in roots(self.directory).get(identity, [])), None
            )
        except StudyError:
            return None

    def log(self, kind: str, **content: Any) -> None:
        """Appends a line to the sweep's own log."""
        append_line(self.root / "sweep.jsonl", {"kind": kind, **content}, LOG_LINE)

    def records(self) -> list[TrialRecord]:
        """The records of all trials so far.

        In the order of the plan's groups, then of the trials' numbers. Raises StudyError if a file is not a record of this
        sweep, LineError if a line of a record does not fit.
        """
        places = {group.label: place for place, group in enumerate(self.plan.groups)}
        records = list(self.each_record())
        return sorted(records, key=lambda record: (places[record.history.group], record.history.number))

    def each_record(self) -> Iterator[TrialRecord]:
        """The records in no particular order, as `records`.

        One at a time is in memory.
        """
        groups = {group.label: group for group in self.plan.groups}
        try:
            for record in records_in(self.root / "trials", self.plan.labels, self.plan.goals):
                if fault := self._fault_of(record.history, groups):
                    raise LineError(record.path, record.first_line, fault)
                yield record
        except ForeignRecordError as error:
            raise StudyError(
                f"{str(self.root / 'trials')!r} has a file that is not a record of this sweep: "
                f"{error.path.parent.name}/{error.path.name}, line {error.number}: {error.fault}."
            ) from None

    def _fault_of(self, history: TrialHistory, groups: Mapping[str, Group]) -> str:
        """Why the sweep cannot have this trial, or ""."""
        group = groups.get(history.group)
        if group is None:
            return f"this sweep does not try {history.group}"
        if history.phase != self.plan.phase:
            return f"it is of the phase {history.phase!r}, but the sweep of {self.plan.phase!r}"
        if history.task_count != self.task_counts[group.scenario]:
            return f"it has {history.task_count} tasks, but the sweep {self.task_counts[group.scenario]}"
        if history.seeds != (due := list(self.plan.seeds_of(group, history.number))):
            return f"its seeds are {brief(history.seeds)}, but the sweep's are {due}"
        return group.fault_of(self.plan.configuration_of(history.number), history.tried)

    def outcomes(self) -> Counter[Outcome]:
        """Number of trials by outcome.

        Reads and checks all records, with one at a time in memory. Raises StudyError as `records` does.
        """
        return Counter(record.history.outcome for record in self.each_record())

    def histories(self) -> list[TrialHistory]:
        """The histories of all trials, ordered as the records."""
        return [record.history for record in self.records()]

    def begin_session(self, asked: Execution, resolved: Execution) -> str:
        """Logs a start.

        Args:
            asked: what the user asked for; a later resume, perhaps on another machine, starts from it.
            resolved: the same with GPUs and workers chosen.

        Returns:
            A name for Ray's files that no earlier start has used.
        """
        lines = LineReader(self.root / "sweep.jsonl", LOG_LINE).new_lines()
        earlier = sum(1 for line in lines if line["kind"] == "start")
        place = str(self.directory.resolve())
        self.log("start", execution=asked.plain(), resolved=resolved.plain(), directory=place)
        return f"session-{earlier:03d}"

    def checkpoint_place(self, execution: Execution) -> str:
        """The folder or URI for the checkpoints of this sweep."""
        if execution.storage is None:
            return own_checkpoint_place(self.directory, self.name)
        return storage.within(execution.storage, f"{self.plan.name}-{self.identity}")

    def checkpoint_places(self) -> list[str]:
        """Where the checkpoints of all its starts are, as `checkpoint_place`."""
        executions = [self.execution.model_copy(update={"storage": None}), self.execution]
        for line in LineReader(self.root / "sweep.jsonl", LOG_LINE).new_lines():
            if line["kind"] in ("plan", "start"):
                executions.append(_execution(line, self.directory))
        return list(dict.fromkeys(map(self.checkpoint_place, executions)))

    def recorded_place(self, place: str) -> str:
        """The place of a checkpoint as a record has it.

        Places in the folder of all sweeps are relative to that of this sweep, so that both may be moved.
        """
        root = self.root.resolve()
        if storage.is_uri(place) or not Path(place).is_relative_to(root.parent):
            return place
        return os.path.relpath(place, root)

    def checkpoints(self, history: TrialHistory) -> list[str]:
        """Where the checkpoints of a trial are now, newest first.

        They are absolute paths and URIs. Older checkpoints may have been deleted.
        """
        root = self.root.resolve()
        places = reversed(history.checkpoints)
        return [place if storage.is_uri(place) else os.path.normpath(root / place) for place in places]

    def traceback_file(self, key: str) -> Path:
        """The file with the tracebacks of a trial's failed attempts."""
        return self.root / "trials" / key / "traceback.txt"

    @property
    def is_running(self) -> bool:
        """Whether a process drives the sweep now.

        It asks for a shared lock, for a moment, which writes nothing and hinders no other reader.
        """
        try:
            with (self.root / LOCK_FILE).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # it has never run, or its file system has no locks
            return False
        return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the sweep against other drivers.

        Raises RunningError if another one has the lock, StudyError if the folder cannot be written.
        """
        lock = FileLock(self.root / LOCK_FILE, timeout=PROBE_SECONDS, poll_interval=PROBE_SECONDS / 10)
        try:
            lock.acquire()
        except Timeout:
            raise RunningError(f"The sweep {self.plan.name!r} is already running in another process.") from None
        except OSError as error:
            raise StudyError(f"The folder {str(self.root)!r} cannot be written: {error.strerror}.") from None
        try:
            yield
        finally:
            lock.release()


def command(directory: Path, verb: str, name: str, *more: object) -> str:
    """A command of the study for the user to run.

    A shell splits it into the same words again. It has the option `--dir` unless the folder is the default one.

    Args:
        directory: folder of all sweeps.
        verb: such as "resume".
        name: of a sweep or search space, or the path of a file.
        more: further options.
    """
    option = [] if directory == DEFAULT_DIRECTORY else ["--dir", str(directory)]
    name = f"./{name}" if name.startswith("-") else name  # a path in a folder of that name would look like an option
    return shlex.join(["study", verb, name, *option, *map(str, more)])


def identity_of(root: Path) -> str:
    """The identity of the sweep in a folder, see `SweepFolder`.

    Raises OSError if there is no sweep.
    """
    with (root / "sweep.jsonl").open("rb") as file:
        return hashlib.blake2b(file.readline(), digest_size=8).hexdigest()


def roots(directory: Path) -> dict[str, list[Path]]:
    """The folders of the sweeps in a folder, by identity.

    More than one has the same identity if a sweep was copied.
    """
    folders: dict[str, list[Path]] = {}
    for name in names(directory):
        folders.setdefault(identity_of(directory / name), []).append(directory / name)
    return folders


def _execution(line: Mapping[str, Any], directory: Path) -> Execution:
    """The execution in a line of the log.

    Its places within the folder of all sweeps are where that folder is now.
    """
    execution, before = Execution.from_plain(line["execution"]), line.get("directory")
    if not before or Path(before) == (now := directory.resolve()):
        return execution
    places = {name: getattr(execution, name) for name in ("storage", "data_dir", "tracking_uri")}
    moved = {name: addresses.moved(place, Path(before), now) for name, place in places.items() if place}
    return execution.model_copy(update=moved)


def _first_line(path: Path) -> Mapping[str, Any]:
    """The plan's line. Raises StudyError if it is missing or unknown."""
    reader = LineReader(path)
    first = next(reader.new_lines(), {})
    if first.get("kind") != "plan":
        raise StudyError(f"{str(path)!r} does not begin with the plan of a sweep.")
    if fault := format_fault(first):
        reader.refuse(fault)
    return first


def own_checkpoint_place(directory: Path, name: str) -> str:
    """Where the checkpoints of a sweep go by default."""
    return str((directory / name / "ray").resolve())


def names(directory: Path) -> list[str]:
    """The sweeps in a folder, in alphabetical order."""
    folders = (path.parent.name for path in directory.glob("*/sweep.jsonl"))
    return sorted(name for name in folders if not name.startswith("."))  # hidden: the draft of a launch that was killed


def check_new(directory: Path, name: str) -> None:
    """Raises StudyError if a new sweep cannot be created.

    Its name is taken or unsuitable, or the folder cannot be written.
    """
    check_name(name)
    if name == STORE_FILE:
        raise StudyError(f"{name!r} cannot name a sweep: MLflow's store has that name; choose another with --name.")
    if (directory / name).exists():
        number = next(n for n in range(2, 10_000) if not (directory / f"{name}-{n}").exists())
        is_sweep = (directory / name / "sweep.jsonl").is_file()
        advice = f"continue it with `{command(directory, 'resume', name)}`, or " if is_sweep else "it is no sweep; "
        raise StudyError(
            f"{str(directory / name)!r} exists already; {advice}choose another name, for example --name {name}-{number}."
        )
    check_writable(directory)


def check_writable(directory: Path) -> None:
    """Raises StudyError if the folder cannot be created or written."""
    fault = write_fault(directory)
    if "is a file" in fault:
        raise StudyError(f"--dir {str(directory)!r} cannot be a folder: {fault}.")
    if fault:
        raise StudyError(f"--dir {str(directory)!r} cannot be written ({fault}); choose a folder that can.")
