"""Decides what is tried next, keeps the records, and tells the search how trials went. Knows no Ray.

All that happens in a sweep passes through here, in the driver's process: proposals out, results in. It acts on the records
alone, so that a conductor made anew goes on where the one before it stopped, whatever stopped it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from study.folder import SweepFolder
from study.record import TrialHistory, TrialRecord
from study.search import GroupSearch


class Watcher(Protocol):
    """Somebody who wants to know how the sweep goes; called in the driver's process."""

    def trial_changed(self, history: TrialHistory) -> None:
        """A trial was started, reported a task, or ended."""


class Conductor:
    """The one object between Ray and the records of a sweep."""

    def __init__(self, folder: SweepFolder, watchers: tuple[Watcher, ...] = ()) -> None:
        self._folder = folder
        self._watchers = watchers
        self._records = {record.history.key: record for record in folder.records()}
        for record in self._records.values():
            history = record.history
            if len(history.tasks) == history.task_count and history.outcome != "finished":
                record.append("end", outcome="finished")  # the driver died between the last task and the end
        self._searches: dict[str, GroupSearch] = {}
        self._proposed: dict[str, int] = {}
        for group in folder.plan.groups:
            tried = [history for history in self.histories if history.group == group.label]
            tried.sort(key=lambda history: history.number)
            self._searches[group.label] = GroupSearch(folder.plan, group, folder.task_counts[group.scenario], tried)
            self._proposed[group.label] = len(tried)

    @property
    def histories(self) -> list[TrialHistory]:
        """All trials so far."""
        return [record.history for record in self._records.values()]

    @property
    def remaining(self) -> int:
        """Trials that are still to be proposed, if nothing is in the hands of Ray."""
        return max(0, self._folder.plan.trial_count - sum(history.is_done for history in self.histories))

    def propose(self) -> TrialHistory | None:
        """The next trial, groups taking turns; None when there is nothing left to try."""
        for label in sorted(self._searches, key=self._turn):
            history = self._searches[label].propose()
            if history is not None:
                if history.key not in self._records:
                    record = TrialRecord.create(self._folder.root / "trials", history)
                    self._records[history.key] = record
                    self._proposed[label] += 1
                return self._records[history.key].history
        return None

    def checkpoint_of(self, key: str) -> str | None:
        """Where the last checkpoint of the trial lies, if it has one."""
        place = self._records[key].history.checkpoint
        return place and str(self._folder.root.resolve() / place)

    def _turn(self, label: str) -> tuple[bool, int]:
        return (not self._searches[label].has_unfinished, self._proposed[label])

    def started(self, key: str) -> None:
        """A worker begins or goes on with the trial."""
        self._append(key, "start")

    def result(self, key: str, line: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
        """Takes a task's measures; whether the trial goes on. A task done again after a failure is passed over."""
        record = self._records[key]
        if record.history.facts != facts:
            record.append("facts", facts=dict(facts))
        if line["task"] < len(record.history.tasks):
            return True
        self._append(key, "task", **line)
        return self._search(key).report(record.history.number, line["task"], line["metrics"])

    def checkpointed(self, key: str, path: str) -> None:
        """A checkpoint of the trial is in its place."""
        place = Path(path)
        root = self._folder.root.resolve()
        if place.is_relative_to(root):  # so that the folder of a sweep can be moved
            place = place.relative_to(root)
        self._records[key].append("checkpoint", path=str(place))

    def ended(self, key: str) -> None:
        """The trial has reached its last task, or was stopped by the scheduler."""
        history = self._records[key].history
        outcome = "finished" if len(history.tasks) == history.task_count else "stopped"
        self._search(key).tell(history.number, outcome, history.metrics)
        self._append(key, "end", outcome=outcome)

    def failed(self, key: str, reason: str) -> None:
        """The trial has failed for good."""
        self._search(key).tell(self._records[key].history.number, "failed", {})
        self._append(key, "end", outcome="failed", reason=reason)

    def _search(self, key: str) -> GroupSearch:
        return self._searches[self._records[key].history.group]

    def _append(self, key: str, kind: str, **content: Any) -> None:
        self._records[key].append(kind, **content)
        for watcher in self._watchers:
            watcher.trial_changed(self._records[key].history)
