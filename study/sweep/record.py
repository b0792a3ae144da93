"""The append-only record of a trial.

Records are the source of truth of a sweep: a resume replays them, and MLflow shows a copy of them. A record is a file of JSON
lines, `trials/KEY/record.jsonl` in the sweep's folder. Only the driver writes to it, and it only appends. Kinds of lines, in
the order in which they may occur:

    trial       what is run: key, number, scenario, method, phase, settings tried, complete configuration with seeds
    start       an attempt begins: the first, one after the death of a worker, or one after a resume
    facts       where it runs, and with what: device, threads, host, versions, fingerprints of data and source
    task        the results of one task, see `study.training.task_log.task_line`; has `stops` if the scheduler ends the trial here
    checkpoint  where the checkpoint after a task is: a path within the sweep's folder, another path, or a URI
    note        something that a reader of the numbers should know, as text
    lost        the worker of an attempt has died, with the reason; another attempt follows
    end         the outcome of the trial: finished, stopped (early, by the scheduler) or failed, with the reason

Every line has `at`, the time in seconds since 1970. A line cut short by a crash is skipped, and the next line that is appended
starts on a new line.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from study.config import EARLIER_LABELS, Labels, settings_words

Line = dict[str, Any]
Outcome = Literal["waiting", "running", "finished", "stopped", "failed"]


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Appends a line and waits until it is on disk.

    A last line that a crash cut short is closed first.
    """
    data = (json.dumps({**line, "at": round(time.time(), 3)}, allow_nan=False) + "\n").encode()
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                data = b"\n" + data
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class LineReader:
    """Reads the lines appended since the last read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new_lines(self) -> Iterator[Line]:
        """Yields the new complete lines.

        Lines that are not JSON were cut short by a crash and are skipped.
        """
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole, newline, _ = data.rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for text in whole.split(b"\n"):
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict):
                yield line


@dataclass(eq=False)
class TrialHistory:
    """The state of a trial according to its record.

    Attributes:
        key: its name within the sweep, such as "class_pairs-sam-007".
        number: its number within its scenario and method, from 0.
        scenario, method, phase: where it belongs.
        tried: the settings in which the trials of its method differ, by slash name.
        config: the complete configuration with the seeds, as nested plain data.
        task_count: length of its task sequence.
        sampler_notes: attributes that the sampler needs in a replay.
        tasks: the lines of its tasks so far, in order.
        facts: see the table of lines above; those of the last attempt.
        past_facts: the lines of all its facts, in order.
        checkpoints: places of its checkpoints, the newest last; older ones may have been deleted.
        notes: what a reader of its numbers should know.
        outcome: of the last attempt.
        reason: why it failed.
        labels: of the settings, see `study.config.Label`; they come from the plan and are not in the record.
        started, ended: when the first attempt began and the last one ended, in seconds since 1970; None before that.
    """

    key: str
    number: int
    scenario: str
    method: str
    phase: str
    tried: dict[str, Any]
    config: dict[str, Any]
    task_count: int
    sampler_notes: dict[str, Any]
    tasks: list[Line] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    past_facts: list[Line] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    outcome: Outcome = "waiting"
    reason: str = ""
    started: float | None = None
    ended: float | None = None
    labels: Labels = field(default_factory=lambda: EARLIER_LABELS)

    def apply(self, line: Line) -> None:
        """Updates the state by the next line of the record."""
        match line["kind"]:
            case "start":
                self.outcome, self.reason, self.ended = "running", "", None
                self.started = self.started or line["at"]
            case "facts":
                self.facts = line["facts"]
                self.past_facts.append(line)
            case "task" if line["task"] == len(self.tasks):
                self.tasks.append(line)
            case "checkpoint":
                self.checkpoints.append(line["path"])
            case "note":
                self.notes.append(line["text"])
            case "lost":
                self.outcome = "waiting"
            case "end":
                self.outcome, self.reason, self.ended = line["outcome"], line.get("reason", ""), line["at"]

    @property
    def group(self) -> str:
        """Label of its group: scenario and method."""
        return f"{self.scenario}-{self.method}"

    @property
    def name(self) -> str:
        """A name for people, such as "sam lr=0.01 rho=0.05"."""
        return " ".join(filter(None, [self.method, settings_words(self.tried, self.labels)]))

    @property
    def is_complete(self) -> bool:
        """Whether all of its tasks are recorded."""
        return len(self.tasks) == self.task_count

    @property
    def was_stopped(self) -> bool:
        """Whether the scheduler stopped the trial at its last task.

        The record may not have the line `end` yet.
        """
        return bool(self.tasks) and bool(self.tasks[-1].get("stops"))

    @property
    def is_done(self) -> bool:
        """Whether it is finished or was stopped early."""
        return self.outcome in ("finished", "stopped")

    @property
    def is_over(self) -> bool:
        """Whether it is done or has failed.

        Nothing more happens to it until the sweep is resumed.
        """
        return self.is_done or self.outcome == "failed"

    @property
    def seeds(self) -> list[int]:
        """The seeds, one for each lane."""
        return list(self.config["seeds"])

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics after its last task; empty before the first."""
        return dict(self.tasks[-1]["metrics"]) if self.tasks else {}

    @property
    def summary(self) -> dict[str, float]:
        """The summary by schema name; empty unless the trial finished."""
        if self.outcome != "finished" or not self.tasks or "summary" not in self.tasks[-1]:
            return {}
        seconds = sum(
            line["metrics"]["seconds/training"] + line["metrics"]["seconds/evaluation"] for line in self.tasks
        )
        return {**self.tasks[-1]["summary"], "summary/seconds": seconds}

    @property
    def row(self) -> dict[str, Any]:
        """The trial as a row of a table.

        The settings tried have their slash names, and the summary, of finished trials only, its schema names.
        """
        return {
            "trial": self.key,
            "number": self.number,
            "scenario": self.scenario,
            "method": self.method,
            "phase": self.phase,
            "name": self.name,
            "outcome": self.outcome,
            "tasks": len(self.tasks),
            **self.tried,
            **self.summary,
        }


class TrialRecord:
    """A record's file and the state that it describes.

    Only the driver that holds the sweep's lock may `append`; any process may open the record and `refresh` it.
    """

    def __init__(self, path: Path, labels: Labels = EARLIER_LABELS) -> None:
        """Opens an existing record.

        Raises ValueError if the first line is not that of the trial that the folder is named after.
        """
        self.path = path
        self._reader = LineReader(path)
        lines = self._reader.new_lines()
        header = next(lines, None)
        if header is None or header.get("kind") != "trial":
            raise ValueError(f"{str(path)!r} is not the record of a trial.")
        if header.get("key") != path.parent.name:  # files are named after the key, so it must not be a path
            raise ValueError(
                f"{str(path)!r} is the record of {header.get('key')!r}, not of the trial that its folder is named after."
            )
        fields = {name: value for name, value in header.items() if name not in ("kind", "at")}
        self.history = TrialHistory(**fields, labels=labels)
        for line in lines:
            self.history.apply(line)

    @classmethod
    def create(cls, trials: Path, history: TrialHistory) -> TrialRecord:
        """Creates the record of a new trial.

        Raises FileExistsError if the trial has a record with a complete line. One with nothing but a first line that was cut
        short is taken over.
        """
        path = trials / history.key / "record.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and has_whole_line(path):
            raise FileExistsError(str(path))
        header = {name: getattr(history, name) for name in TRIAL_FIELDS}
        append_line(path, {"kind": "trial", **header})
        return cls(path, history.labels)

    def append(self, kind: str, **content: Any) -> None:
        """Appends a line and updates the state by it."""
        append_line(self.path, {"kind": kind, **content})
        self.refresh()  # reads one line, or two: a crash may have left a whole line without its end, closed only now

    def refresh(self) -> None:
        """Reads what was appended since the last read."""
        for line in self._reader.new_lines():
            self.history.apply(line)


TRIAL_FIELDS = ("key", "number", "scenario", "method", "phase", "tried", "config", "task_count", "sampler_notes")
"""Fields of the first line of a record."""


def read_records(trials: Path, labels: Labels = EARLIER_LABELS) -> list[TrialRecord]:
    """The records in a folder, in no particular order.

    Trials without a complete first line are skipped.
    """
    return [TrialRecord(path, labels) for path in trials.glob("*/record.jsonl") if has_whole_line(path)]


def facts_in_order(histories: Iterable[TrialHistory]) -> list[dict[str, Any]]:
    """The facts of all attempts at trials, by time."""
    lines = [line for history in histories for line in history.past_facts]
    return [line["facts"] for line in sorted(lines, key=lambda line: float(line["at"]))]


def has_whole_line(path: Path) -> bool:
    """Whether a record has at least one complete line."""
    return next(LineReader(path).new_lines(), None) is not None
