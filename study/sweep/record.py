"""The append-only record of a trial: the sweep's truth, what a resume replays, what MLflow is a view of.

A record is a file of JSON lines, `trials/KEY/record.jsonl` in the sweep's folder. The driver appends, nobody rewrites. Kinds of
lines, in the order in which they may come:

    trial       what is to be run: key, number, scenario, method, phase, settings tried, complete configuration with seeds
    start       an attempt begins (the first, one after the death of a worker, one after a resume)
    facts       where and with what it runs: device, threads, versions, data fingerprint, host
    task        one task's measures, see `study.training.task_log.task_line`; `stops` when the scheduler ends the trial here
    checkpoint  the place of the checkpoint after a task: a path within the sweep's folder, another path, or a URI
    note        something that a reader of the numbers should know, as text
    lost        the worker of an attempt has died, with the reason; another attempt follows
    end         the outcome of the trial: finished, stopped (early, by the scheduler) or failed, with the reason

A line that was cut short by a crash is passed over, and whatever is appended next starts on a line of its own.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from study.config import EARLIER_LABELS, Labels, settings_words

Line = dict[str, Any]
Outcome = Literal["waiting", "running", "finished", "stopped", "failed"]


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Appends one line, on disk before this returns. A torn last line is closed first."""
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
    """Reads the lines that were appended since it last looked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new_lines(self) -> Iterator[Line]:
        """The new whole lines; a line that is no JSON was torn by a crash and is passed over."""
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
    """What a record tells of a trial.

    Attributes:
        key: its name within the sweep, "class_pairs-sam-007".
        number: its number within its scenario and method, from 0.
        scenario, method, phase: where it belongs.
        tried: the settings that set it apart from the other trials of its method, by slash name.
        config: the complete configuration with the seeds, as nested plain data.
        task_count: length of its task sequence.
        sampler_notes: what the sampler must find again in a replay.
        tasks: the lines of its tasks so far, in order.
        facts: see the module.
        checkpoints: places of its checkpoints, the newest last; the older ones may be gone.
        notes: what a reader of its numbers should know.
        outcome: of the last attempt.
        reason: why it failed.
        labels: of the settings, see `study.config.Label`; the plan's, and no part of the record.
        started, ended: when the first attempt began and the last one ended, seconds since 1970; None before.
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
    checkpoints: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    outcome: Outcome = "waiting"
    reason: str = ""
    started: float | None = None
    ended: float | None = None
    labels: Labels = field(default_factory=lambda: EARLIER_LABELS)

    def apply(self, line: Line) -> None:
        """Takes one more line into account."""
        match line["kind"]:
            case "start":
                self.outcome, self.reason, self.ended = "running", "", None
                self.started = self.started or line["at"]
            case "facts":
                self.facts = line["facts"]
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
        """Label of its scenario and method."""
        return f"{self.scenario}-{self.method}"

    @property
    def name(self) -> str:
        """What people call the trial: "sam lr=0.01 rho=0.05"."""
        return " ".join(filter(None, [self.method, settings_words(self.tried, self.labels)]))

    @property
    def is_complete(self) -> bool:
        """Whether all of its tasks are recorded."""
        return len(self.tasks) == self.task_count

    @property
    def was_stopped(self) -> bool:
        """Whether the scheduler has ended the trial at its last task, be that written down as its end or not."""
        return bool(self.tasks) and bool(self.tasks[-1].get("stops"))

    @property
    def is_done(self) -> bool:
        """Whether it needs no more work: finished, or stopped early."""
        return self.outcome in ("finished", "stopped")

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it in this session: done or failed."""
        return self.is_done or self.outcome == "failed"

    @property
    def seeds(self) -> list[int]:
        """One for each lane."""
        return list(self.config["seeds"])

    @property
    def metrics(self) -> dict[str, float]:
        """The measures after the last task so far; empty before the first."""
        return dict(self.tasks[-1]["metrics"]) if self.tasks else {}

    @property
    def summary(self) -> dict[str, float]:
        """The summary of a finished trial by schema name; empty otherwise."""
        if self.outcome != "finished" or not self.tasks or "summary" not in self.tasks[-1]:
            return {}
        seconds = sum(
            line["metrics"]["seconds/training"] + line["metrics"]["seconds/evaluation"] for line in self.tasks
        )
        return {**self.tasks[-1]["summary"], "summary/seconds": seconds}


class TrialRecord:
    """The file of one trial and what has been read of it."""

    def __init__(self, path: Path, labels: Labels = EARLIER_LABELS) -> None:
        """Opens an existing record. Raises ValueError when it does not begin as that of the trial that its folder names."""
        self.path = path
        self._reader = LineReader(path)
        lines = self._reader.new_lines()
        header = next(lines, None)
        if header is None or header.get("kind") != "trial":
            raise ValueError(f"{str(path)!r} is not the record of a trial.")
        if header.get("key") != path.parent.name:  # a key names files too, so it must be no path
            raise ValueError(
                f"{str(path)!r} is the record of {header.get('key')!r}, not of the trial that its folder names."
            )
        known = {k: v for k, v in header.items() if k not in ("kind", "at")}
        self.history = TrialHistory(**known, labels=labels)
        for line in lines:
            self.history.apply(line)

    @classmethod
    def create(cls, trials: Path, history: TrialHistory) -> TrialRecord:
        """Begins the record of a new trial in the folder `trials`, where at most a torn first line may stand.

        Raises FileExistsError when the trial has a record.
        """
        path = trials / history.key / "record.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and has_whole_line(path):
            raise FileExistsError(str(path))
        header = {name: getattr(history, name) for name in TRIAL_FIELDS}
        append_line(path, {"kind": "trial", **header})
        return cls(path, history.labels)

    def append(self, kind: str, **content: Any) -> None:
        """Appends a line and takes it into account."""
        append_line(self.path, {"kind": kind, **content})
        self.refresh()

    def refresh(self) -> None:
        """Reads what has been appended since."""
        for line in self._reader.new_lines():
            self.history.apply(line)


TRIAL_FIELDS = ("key", "number", "scenario", "method", "phase", "tried", "config", "task_count", "sampler_notes")
"""What the first line of a record says."""


def read_records(trials: Path, labels: Labels = EARLIER_LABELS) -> list[TrialRecord]:
    """The records in a folder, in no order; a trial that has not even a whole first line is passed over."""
    return [TrialRecord(path, labels) for path in trials.glob("*/record.jsonl") if has_whole_line(path)]


def has_whole_line(path: Path) -> bool:
    """Whether a record has more than a torn first line, or two."""
    return next(LineReader(path).new_lines(), None) is not None
