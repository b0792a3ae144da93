"""The conductor proposes trials and records what happens to them.

Everything in a sweep passes through it, in the driver's process: proposals go out, results come in. It imports no Ray. It
depends on the records only, so a new conductor continues where the last one stopped, for whatever reason.

A worker may die at any moment, with its machine. Its trial is then proposed again and continues from the last checkpoint that
can be read. Recorded results stand: when a task is trained a second time, the new result is compared with the recorded one
and dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from study import objective
from study.config import TrialConfig
from study.provenance import software_changes
from study.sweep import winners
from study.sweep.folder import SweepFolder
from study.sweep.plan import Group
from study.sweep.race.search import RaceSearch
from study.sweep.record import TrialHistory, TrialRecord
from study.sweep.search import GroupSearch

MOST_DEATHS = 5
"""A trial fails after this many deaths of its workers without a new task between them."""

DEATHS_IN_COMPANY = 2
"""After this many, a trial is trained alone: it may be what kills the workers of its packs."""

MOST_CHECKPOINTS = 4
"""A worker gets the places of this many last checkpoints; the oldest of them have usually been deleted."""


class Watcher(Protocol):
    """An observer of a sweep, called in the driver's process."""

    def trial_changed(self, history: TrialHistory) -> None:
        """Called after a trial started, reported, stopped, failed or ended."""

    def trial_noted(self, history: TrialHistory, text: str) -> None:
        """Called when a trial's record gets a note, see `Conductor.note`."""


class Conductor:
    """Stands between Ray and the records of a sweep."""

    def __init__(self, folder: SweepFolder, watchers: tuple[Watcher, ...] = ()) -> None:
        self._folder = folder
        self._watchers = watchers
        self._records = {record.history.key: record for record in folder.records()}
        for record in self._records.values():
            _write_missing_end(record)
        self._searches: dict[str, GroupSearch | RaceSearch] = {}
        self._proposed: dict[str, int] = {}
        self._deaths: dict[str, int] = {}
        for group in folder.plan.groups:
            self._searches[group.label] = self._new_search(group)
            self._proposed[group.label] = len(self._of_group(group.label))
        self._due: dict[str, int] = {}
        self._find_due()
        self._running: set[str] = set()  # keys of the trials that Ray has

    @property
    def histories(self) -> list[TrialHistory]:
        """The histories of all trials so far."""
        return [record.history for record in self._records.values()]

    def _of_group(self, label: str) -> list[TrialHistory]:
        """The histories of a group's trials, by number."""
        own = [history for history in self.histories if history.group == label]
        return sorted(own, key=lambda history: history.number)

    def _new_search(self, group: Group) -> GroupSearch | RaceSearch:
        plan, tasks = self._folder.plan, self._folder.task_counts[group.scenario]
        if plan.is_race:
            return RaceSearch(plan, group, tasks, partial(self._of_group, group.label))
        return GroupSearch(plan, group, tasks, self._of_group(group.label))

    @property
    def remaining(self) -> int:
        """Number of due trials not done; Ray may have some."""
        return max(0, sum(self._due.values()) - sum(history.is_done for history in self.histories))

    @property
    def is_waiting(self) -> bool:
        """Whether a trial that Ray has may be proposed again."""
        return bool(self._running)

    def propose(self) -> TrialHistory | None:
        """Returns the next trial; None if there is none now.

        Groups take turns. After None there may be another trial later: see `is_waiting`.
        """
        return next(filter(None, map(self._propose_of, sorted(self._searches, key=self._turn))), None)

    def propose_pack(self, most: int) -> list[TrialHistory]:
        """Returns the next trials to train together, perhaps none.

        They are of one group and have the same shape, see `study.config.TrialConfig.stack_shape`. A new batch is not drawn while
        the one before it is trained, unless packs are larger than batches: so the same trials are drawn however packs are cut.

        Args:
            most: number of trials.
        """
        pack: list[TrialHistory] = []
        while len(pack) < most:
            if pack and self._folder.plan.batch >= most and self._searches[pack[0].group].must_draw:
                break
            history = self._propose_of(pack[0].group) if pack else self.propose()
            if history is None:
                break
            if pack and (self._shape(history) != self._shape(pack[0]) or self._is_dangerous(history)):
                self._return(history)
                break
            pack.append(history)
            if self._is_dangerous(history):
                break
        return pack

    def _propose_of(self, label: str) -> TrialHistory | None:
        """The next trial of a group; records its whole batch."""
        search = self._searches[label]
        history = search.propose()
        if history is None:
            return None
        for drawn in (history, *search.ready):
            if drawn.key not in self._records:
                self._records[drawn.key] = TrialRecord.create(self._folder.root / "trials", drawn)
                self._proposed[label] += 1
        self._running.add(history.key)
        return self._records[history.key].history

    def _shape(self, history: TrialHistory) -> str:
        return TrialConfig.from_plain(history.config).stack_shape

    def _is_dangerous(self, history: TrialHistory) -> bool:
        return self._deaths.get(history.key, 0) >= DEATHS_IN_COMPANY

    def _return(self, history: TrialHistory) -> None:
        """Takes a trial back that is not over."""
        self._running.discard(history.key)
        self._search(history.key).take_back(history)

    def _find_due(self) -> None:
        """Lets the searches propose the trials that are due by now."""
        self._due = winners.due_trials(self._folder.plan, self.histories)
        for label, search in self._searches.items():
            search.limit = self._due[label]

    def rungs_of(self, key: str) -> list[int]:
        """Numbers of tasks after which a trial may be stopped."""
        search = self._search(key)
        if isinstance(search, RaceSearch) or self._folder.plan.scheduler != "asha":
            return []
        return search.rungs.steps

    def _turn(self, label: str) -> tuple[bool, int]:
        """Sorts groups with unfinished trials first, then by trials proposed."""
        return (not self._searches[label].has_unfinished, self._proposed[label])

    def checkpoints_of(self, key: str) -> list[str]:
        """Absolute places of a trial's last checkpoints, the newest first."""
        return self._folder.checkpoints(self._records[key].history)[:MOST_CHECKPOINTS]

    def started(self, key: str) -> None:
        """Records that a worker starts or continues a trial."""
        self._append(key, "start")

    def result(self, key: str, line: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
        """Records the result of a task.

        The result of a task that is in the record already is compared with it and dropped; a difference becomes a note, as does
        a change of source or versions.

        Args:
            key: of the trial.
            line: see `study.training.task_log.task_line`.
            facts: where and with what it was trained.

        Returns:
            Whether the trial continues.
        """
        record = self._records[key]
        history = record.history
        if history.facts != facts:
            changes = software_changes([history.facts, facts]) if history.tasks else ""
            record.append("facts", facts=dict(facts))
            if changes:
                self.note(key, f"after {len(history.tasks)} tasks it continued with other software: {changes}")
        if line["task"] < len(history.tasks):
            if line["lanes"] != history.tasks[line["task"]]["lanes"]:
                self.note(key, f"{line['name']}, trained again, gave other numbers than before; the first ones stand")
            return True
        values = objective.values(history.objectives, [*history.tasks, line])
        continues = self._search(key).report(history.number, line["task"], values)
        self._append(key, "task", **line, **({} if continues else {"stops": True}))
        self._deaths.pop(key, None)
        return continues

    def checkpointed(self, key: str, place: str) -> None:
        """Records the place of a new checkpoint, path or URI.

        A trial that failed has no new state in the checkpoint of its pack.
        """
        if self._records[key].history.is_over:
            return
        self._records[key].append("checkpoint", path=self._folder.recorded_place(place))

    def note(self, key: str, text: str) -> None:
        """Records a note on a trial and tells the watchers.

        Notes are for things that a reader of the trial's numbers should know. The same note is recorded once.
        """
        history = self._records[key].history
        if text not in history.notes:
            self._records[key].append("note", text=text)
            for watcher in self._watchers:
                watcher.trial_noted(history, text)

    def lost(self, key: str, reason: str) -> None:
        """Records the death of a worker.

        The trial is proposed again, or fails after `MOST_DEATHS` deaths.
        """
        history = self._records[key].history
        if history.is_over:
            return
        if history.was_stopped or history.is_complete:
            self.ended(key)
            return
        self._deaths[key] = self._deaths.get(key, 0) + 1
        if self._deaths[key] >= MOST_DEATHS:
            self.failed(key, f"its worker died {MOST_DEATHS} times on task {len(history.tasks)}: {reason}")
            return
        self._append(key, "lost", reason=reason)
        self._return(history)

    def ended(self, key: str) -> None:
        """Records that Ray is done with a trial.

        It has trained its last task, or the scheduler stopped it; nothing is recorded if an interruption ended it.
        """
        history = self._records[key].history
        if history.is_over or not (history.was_stopped or history.is_complete):
            return
        outcome = "stopped" if history.was_stopped else "finished"
        self._search(key).tell(history.number, outcome, objective.values(history.objectives, history.tasks))
        self._append(key, "end", outcome=outcome)
        self._find_due()
        self._running.discard(key)

    def released(self, key: str) -> None:
        """Proposes a trial again whose pack ended before it did.

        Does nothing if the trial is over.
        """
        history = self._records[key].history
        if not history.is_over:
            self._return(history)

    def failed(self, key: str, reason: str, traceback: str = "", facts: Mapping[str, Any] | None = None) -> None:
        """Records that a trial has failed.

        The facts are recorded if there are none yet.
        """
        if facts and not self._records[key].history.facts:
            self._records[key].append("facts", facts=dict(facts))
        history = self._records[key].history
        if traceback:
            with self.traceback_file(key).open("a", encoding="utf-8") as file:
                file.write(traceback.rstrip() + "\n\n")
        self._search(key).tell(history.number, "failed", {})
        self._append(key, "end", outcome="failed", reason=reason)
        self._find_due()
        self._running.discard(key)

    def traceback_file(self, key: str) -> Path:
        """The file with the tracebacks of a trial's failed attempts."""
        return self._folder.traceback_file(key)

    def _search(self, key: str) -> GroupSearch | RaceSearch:
        return self._searches[self._records[key].history.group]

    def _append(self, key: str, kind: str, **content: Any) -> None:
        self._records[key].append(kind, **content)
        for watcher in self._watchers:
            watcher.trial_changed(self._records[key].history)


def _write_missing_end(record: TrialRecord) -> None:
    """Records the end of a trial if that is missing.

    The driver died between the line of the last task and that of the end.
    """
    history = record.history
    if history.is_done:
        return
    if history.was_stopped:
        record.append("end", outcome="stopped")
    elif history.is_complete:
        record.append("end", outcome="finished")
