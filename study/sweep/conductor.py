"""Decides what is tried next, keeps the records, and tells the search how trials went. Knows no Ray.

All that happens in a sweep passes through here, in the driver's process: proposals out, results in. It acts on the records
alone, so that a conductor made anew goes on where the one before it stopped, whatever stopped it.

A worker may die at any moment, its machine with it. Its trial is then proposed again and goes on from its last checkpoint that
can be read; what had been recorded stands, and tasks that are trained a second time are compared with it and passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from study.sweep.folder import SweepFolder
from study.sweep.record import TrialHistory, TrialRecord
from study.sweep.search import GroupSearch

MOST_DEATHS = 5
"""So many deaths of its workers, with no new task between them, and a trial has failed."""

MOST_CHECKPOINTS = 4
"""So many of its last checkpoints a worker is told of; the oldest of them are usually gone."""


class Watcher(Protocol):
    """Somebody who wants to know how the sweep goes; called in the driver's process."""

    def trial_changed(self, history: TrialHistory) -> None:
        """A trial was started, reported a task, lost its worker, or ended."""

    def trial_noted(self, history: TrialHistory, text: str) -> None:  # the record has it
        """Something happened to a trial that a reader of its numbers should know."""


class Conductor:
    """The one object between Ray and the records of a sweep."""

    def __init__(self, folder: SweepFolder, watchers: tuple[Watcher, ...] = ()) -> None:
        self._folder = folder
        self._watchers = watchers
        self._records = {record.history.key: record for record in folder.records()}
        for record in self._records.values():
            _write_missing_end(record)
        self._searches: dict[str, GroupSearch] = {}
        self._proposed: dict[str, int] = {}
        self._deaths: dict[str, int] = {}
        for group in folder.plan.groups:
            tried = [history for history in self.histories if history.group == group.label]
            tried.sort(key=lambda history: history.number)
            self._searches[group.label] = GroupSearch(folder.plan, group, folder.task_counts[group.scenario], tried)
            self._proposed[group.label] = len(tried)
        self._in_work: set[str] = set()

    @property
    def histories(self) -> list[TrialHistory]:
        """All trials so far."""
        return [record.history for record in self._records.values()]

    @property
    def remaining(self) -> int:
        """Trials that are still to be proposed, if nothing is in the hands of Ray."""
        return max(0, self._folder.plan.trial_count - sum(history.is_done for history in self.histories))

    @property
    def is_waiting(self) -> bool:
        """Whether a trial is in the hands of Ray, and may come back to be proposed again."""
        return bool(self._in_work)

    def propose(self) -> TrialHistory | None:
        """The next trial, groups taking turns; None when there is nothing to try now, see `is_waiting`."""
        for label in sorted(self._searches, key=self._turn):
            history = self._searches[label].propose()
            if history is not None:
                if history.key not in self._records:
                    record = TrialRecord.create(self._folder.root / "trials", history)
                    self._records[history.key] = record
                    self._proposed[label] += 1
                self._in_work.add(history.key)
                return self._records[history.key].history
        return None

    def _turn(self, label: str) -> tuple[bool, int]:
        return (not self._searches[label].has_unfinished, self._proposed[label])

    def checkpoints_of(self, key: str) -> list[str]:
        """Where the last checkpoints of the trial lie, the newest first; paths in full."""
        root = self._folder.root.resolve()
        places = self._records[key].history.checkpoints[-MOST_CHECKPOINTS:]
        return [place if "://" in place else str(root / place) for place in reversed(places)]

    def started(self, key: str) -> None:
        """A worker begins or goes on with the trial."""
        self._append(key, "start")

    def result(self, key: str, line: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
        """Takes a task's measures; whether the trial goes on. A task that is recorded already is compared and passed over."""
        record = self._records[key]
        history = record.history
        if history.facts != facts:
            record.append("facts", facts=dict(facts))
        if line["task"] < len(history.tasks):
            if line["lanes"] != history.tasks[line["task"]]["lanes"]:
                self.note(key, f"{line['name']}, trained again, gave other numbers than before; the first ones stand")
            return True
        goes_on = self._search(key).report(history.number, line["task"], line["metrics"])
        self._append(key, "task", **line, **({} if goes_on else {"stops": True}))
        self._deaths.pop(key, None)
        return goes_on

    def checkpointed(self, key: str, place: str) -> None:
        """A checkpoint of the trial is in its place, a path or a URI."""
        root = self._folder.root.resolve()
        if "://" not in place and Path(place).is_relative_to(root):  # so that the folder of a sweep can be moved
            place = str(Path(place).relative_to(root))
        self._records[key].append("checkpoint", path=place)

    def note(self, key: str, text: str) -> None:
        """Keeps and tells something about a trial, once."""
        history = self._records[key].history
        if text not in history.notes:
            self._records[key].append("note", text=text)
            for watcher in self._watchers:
                watcher.trial_noted(history, text)

    def lost(self, key: str, reason: str) -> None:
        """The worker of the trial has died. The trial is proposed again, unless its workers die again and again."""
        history = self._records[key].history
        if history.is_over:
            return
        self._deaths[key] = self._deaths.get(key, 0) + 1
        if self._deaths[key] >= MOST_DEATHS:
            self.failed(key, f"its worker died {MOST_DEATHS} times on task {len(history.tasks)}: {reason}")
            return
        self._append(key, "lost", reason=reason)
        self._in_work.discard(key)
        self._search(key).take_back(history)

    def ended(self, key: str) -> None:
        """Ray is done with the trial: it has reached its last task, or was stopped by the scheduler, or by an interruption."""
        history = self._records[key].history
        if history.is_over or not (history.was_stopped or history.is_complete):
            return
        outcome = "stopped" if history.was_stopped else "finished"
        self._search(key).tell(history.number, outcome, history.metrics)
        self._append(key, "end", outcome=outcome)
        self._in_work.discard(key)

    def failed(self, key: str, reason: str, traceback: str = "") -> None:
        """The trial has failed for good."""
        history = self._records[key].history
        if traceback:
            with self.traceback_file(key).open("a", encoding="utf-8") as file:
                file.write(traceback.rstrip() + "\n\n")
        self._search(key).tell(history.number, "failed", {})
        self._append(key, "end", outcome="failed", reason=reason)
        self._in_work.discard(key)

    def traceback_file(self, key: str) -> Path:
        """Where the tracebacks of a failed trial are kept, those of all attempts one after the other."""
        return self._folder.traceback_file(key)

    def _search(self, key: str) -> GroupSearch:
        return self._searches[self._records[key].history.group]

    def _append(self, key: str, kind: str, **content: Any) -> None:
        self._records[key].append(kind, **content)
        for watcher in self._watchers:
            watcher.trial_changed(self._records[key].history)


def _write_missing_end(record: TrialRecord) -> None:
    """Ends a trial whose last task is recorded, but not its end: the driver died between the two."""
    history = record.history
    if history.is_done:
        return
    if history.was_stopped:
        record.append("end", outcome="stopped")
    elif history.is_complete:
        record.append("end", outcome="finished")
