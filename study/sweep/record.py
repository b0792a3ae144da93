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

Every line has `at`, the time in seconds since 1970. `study.sweep.forms` has the forms of the lines, and `study.sweep.lines` says
what happens to a line that a crash cut short. A record whose lines do not fit, or stand in another order, is refused with the
number of the line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from study import objective
from study.config import DEFAULT_PARTS, EARLIER_LABELS, Labels, TrialConfig, settings_words, with_later_settings
from study.errors import StudyError, brief
from study.objective import DEFAULT, Objective
from study.schema import EVALUATION_SECONDS, TRAINING_SECONDS
from study.sweep.forms import RECORD_LINE
from study.sweep.lines import (
    FORMAT,
    Line,
    LineError,
    LineReader,
    append_line,
    append_text,
    format_fault,
    is_cut,
    line_text,
)
from study.sweep.task_line import TaskLine, compacted

Outcome = Literal["waiting", "running", "finished", "stopped", "failed"]


@dataclass(eq=False)
class TrialHistory:
    """The state of a trial according to its record.

    Attributes:
        key: its name within the sweep, such as "class_pairs-sam-007".
        number: its number within its scenario and method, from 0.
        scenario, method, phase: where it belongs.
        tried: the settings in which the trials of its method differ, by slash name.
        config: the complete configuration with the seeds, as nested plain data; what the record's version did not know has the
            value that it had then.
        task_count: length of its task sequence.
        sampler_notes: attributes that the sampler needs in a replay.
        tasks: the lines of its tasks so far, in order, each a `TaskLine`.
        facts: see the table of lines above; those of the last attempt.
        past_facts: the lines of all its facts, in order.
        checkpoints: places of its checkpoints, the newest last; older ones may have been deleted.
        notes: what a reader of its numbers should know.
        outcome: of the last attempt.
        reason: why it failed.
        labels: of the settings, see `study.config.Label`; they come from the plan and are not in the record.
        objectives: of the sweep; they come from the plan too.
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
    objectives: tuple[Objective, ...] = DEFAULT

    def fault_of(self, line: Line | TaskLine) -> str:
        """Why this line cannot be the next one, or "".

        The line has its form, see `study.sweep.forms`.
        """
        if isinstance(line, TaskLine):
            return self._fault_of_task(line)
        if line["kind"] == "trial":
            return "the trial has begun on an earlier line"
        if line["kind"] == "end" and line["outcome"] == "finished" and not self.is_complete:
            return f"the trial is said to be finished with {len(self.tasks)} of {self.task_count} tasks"
        return ""

    def _fault_of_task(self, line: TaskLine) -> str:
        due, count, seeds = len(self.tasks), self.task_count, len(self.config["seeds"])
        if line.task != due or due == count:
            place = f"task {due} is due" if due < count else f"all {count} tasks are done"
            return f"task {line.task} stands where {place}"
        has_summary = line.summary is not None
        if has_summary != (line.task + 1 == count):
            return f"task {line.task} of {count} has {'a' if has_summary else 'no'} 'summary'"
        if line.shape.lane_count != seeds:
            return f"it has {line.shape.lane_count} lanes, but the trial has {seeds} seeds"
        first = self.tasks[0] if self.tasks else line
        if isinstance(first, TaskLine) and not line.shape.continues(first.shape):
            return "it has other quantities than the trial's first task"
        return ""

    def apply(self, line: Line) -> None:
        """Updates the state by the next line of the record."""
        if isinstance(line, TaskLine):
            self.tasks.append(line)
            return
        match line["kind"]:
            case "start":
                self.outcome, self.reason, self.ended = "running", "", None
                self.started = self.started or line["at"]
            case "facts":
                self.facts = line["facts"]
                self.past_facts.append(line)
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
    def changed(self) -> float | None:
        """When it last started, reported or ended.

        In seconds since 1970; None before its first attempt.
        """
        lines = [*self.past_facts[-1:], *self.tasks[-1:]]
        moments = [self.started, self.ended, *(line["at"] for line in lines)]
        return max((moment for moment in moments if moment is not None), default=None)

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
        """The summary by schema name; empty unless the trial finished.

        The value of an objective of the sweep's own is in it, though not in the record: it follows from the tasks.
        """
        if self.outcome != "finished" or not self.tasks or "summary" not in self.tasks[-1]:
            return {}
        of_tasks = (line["metrics"] for line in self.tasks)
        seconds = sum(metrics[TRAINING_SECONDS] + metrics[EVALUATION_SECONDS] for metrics in of_tasks)
        chosen = objective.summary(self.objectives, self.tasks)
        return {**self.tasks[-1]["summary"], "summary/seconds": seconds, **chosen}

    @property
    def objective(self) -> float | None:
        """The value of the sweep's first objective.

        None unless the trial has finished and has one.
        """
        if self.outcome != "finished" or not self.tasks:
            return None
        goal = self.objectives[0]
        value: float | None = (self.tasks[-1].get("summary") or {}).get(goal.column)
        return goal.value(self.tasks) if value is None and not goal.is_default else value

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


class ForeignRecordError(LineError, ValueError):
    """A file that is not the record of its trial."""


class TrialRecord:
    """A record's file and the state that it describes.

    Only the driver that holds the sweep's lock may `append`; any process may open the record and `refresh` it.

    Attributes:
        path: of the file.
        history: the state.
        first_line: number of the trial's own line.
    """

    def __init__(
        self, path: Path, labels: Labels = EARLIER_LABELS, objectives: tuple[Objective, ...] = DEFAULT
    ) -> None:
        """Opens an existing record.

        Labels and objectives are those of the plan.

        Raises ForeignRecordError if the first line is not that of the trial that the folder is named after, LineError if a line
        does not fit.
        """
        self.path = path
        _check_is_own(path)
        self._reader = LineReader(path, RECORD_LINE)
        header = next(self._reader.new_lines())
        fields = {name: header[name] for name in TRIAL_FIELDS}
        if fault := _header_fault(header):
            self._reader.refuse(fault)
        fields |= {"config": with_later_settings(header["config"])}
        self.history = TrialHistory(**fields, labels=labels, objectives=objectives)
        self.first_line = self._reader.number
        self.refresh()

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
        append_line(path, {"kind": "trial", "format": FORMAT, **header}, RECORD_LINE)
        return cls(path, history.labels, history.objectives)

    def append(self, kind: str, **content: Any) -> None:
        """Appends a line and updates the state by it.

        Raises StudyError, and writes nothing, if a reader would refuse the line.
        """
        line = {"kind": kind, **content}
        try:
            text = line_text(line, RECORD_LINE)
            fault = self.history.fault_of(compacted(json.loads(text)))
        except ValueError as error:
            fault = str(error)
        if fault:
            raise StudyError(f"A line of kind {kind!r} does not fit into {str(self.path)!r}: {fault}.")
        append_text(self.path, text)
        self.refresh()  # reads one line, or two: a crash may have left a whole line without its end, closed only now

    def refresh(self) -> None:
        """Reads what was appended since the last read.

        Raises LineError if a line does not fit.
        """
        for line in self._reader.new_lines():
            try:
                compact = compacted(line)
            except ValueError as error:
                self._reader.refuse(str(error))
            if fault := self.history.fault_of(compact):
                self._reader.refuse(fault)
            self.history.apply(compact)


TRIAL_FIELDS = ("key", "number", "scenario", "method", "phase", "tried", "config", "task_count", "sampler_notes")
"""Fields of the first line of a record."""


def _check_is_own(path: Path) -> None:
    """Raises LineError if a record's beginning cannot be read.

    Its first line is no trial's, or another trial's, or has an unknown format.
    """
    reader = LineReader(path)
    header = next(reader.new_lines(), {})
    if header.get("kind") != "trial":
        raise ForeignRecordError(path, reader.number, "it is not the record of a trial")
    if header.get("key") != path.parent.name:  # files are named after the key, so it must not be a path
        found = brief(header.get("key"))
        fault = f"it is the record of {found}, not of the trial that its folder is named after"
        raise ForeignRecordError(path, reader.number, fault)
    if fault := format_fault(header):
        reader.refuse(fault)


def _header_fault(header: Line) -> str:
    """What is wrong with a trial's own line, or ""."""
    if header["key"] != f"{header['scenario']}-{header['method']}-{header['number']:03d}":
        return "its key does not say its scenario, method and number"
    try:
        config = TrialConfig.from_plain(header["config"], "its configuration")
    except StudyError as error:
        return str(error)
    for section in (*DEFAULT_PARTS, "seeds"):
        if section not in header["config"] or (section in DEFAULT_PARTS and "name" not in header["config"][section]):
            return f"its configuration does not say its {section}"
    settings = config.flat()
    for name, value in header["tried"].items():
        if settings.get(name) != value:
            return f"{name} is {brief(value)} in 'tried', but {brief(settings.get(name))} in 'config'"
    return ""


def read_records(
    trials: Path, labels: Labels = EARLIER_LABELS, objectives: tuple[Objective, ...] = DEFAULT
) -> list[TrialRecord]:
    """The records in a folder, in no particular order.

    Trials without a complete first line are skipped. Raises LineError as `TrialRecord` does.
    """
    return list(records_in(trials, labels, objectives))


def records_in(
    trials: Path, labels: Labels = EARLIER_LABELS, objectives: tuple[Objective, ...] = DEFAULT
) -> Iterator[TrialRecord]:
    """Yields the records of `read_records` one by one."""
    for path in trials.glob("*/record.jsonl"):
        if has_whole_line(path):
            yield TrialRecord(path, labels, objectives)


def facts_in_order(histories: Iterable[TrialHistory]) -> list[dict[str, Any]]:
    """The facts of all attempts at trials, by time."""
    lines = [line for history in histories for line in history.past_facts]
    return [line["facts"] for line in sorted(lines, key=lambda line: float(line["at"]))]


def has_whole_line(path: Path) -> bool:
    """Whether a record has at least one complete line."""
    with path.open("rb") as file:
        return any(text.endswith(b"\n") and not is_cut(text[:-1]) for text in file)
