"""`study list`: search spaces and sweeps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import search_spaces
from study.cli import terminal
from study.errors import StudyError
from study.sweep import folder, winners
from study.sweep.folder import SweepFolder
from study.sweep.plan import check_name
from study.sweep.record import Outcome
from study.sweep.upkeep.state import SweepState, state_of

SHOWN: tuple[Outcome, ...] = ("finished", "stopped", "failed")
"""Outcomes that the table counts; the other trials wait, run or were interrupted."""


@dataclass(frozen=True)
class Entry:
    """A sweep of the list.

    Attributes:
        name: that commands know it by.
        space: what it tries.
        planned: number of trials, all together.
        confirms: name of the sweep that it confirms, or None.
        state: how it stands.
    """

    name: str
    space: str
    planned: int
    confirms: str | None
    state: SweepState

    def row(self) -> tuple[str, ...]:
        """The sweep as cells of a table."""
        words = [f"{self.state.outcomes[word]} {word}" for word in SHOWN if self.state.outcomes[word]]
        trials = f"{self.state.done}/{self.planned}"
        when = terminal.moment(self.state.since)
        return (self.name, self.space, trials, ", ".join(words) or "none yet", self.state.word, when)

    def plain(self) -> dict[str, Any]:
        """The sweep as plain data; times are in ISO 8601."""
        return {
            "name": self.name,
            "space": self.space,
            "confirms": self.confirms,
            "state": self.state.word,
            "since": terminal.iso_moment(self.state.since),
            "trials": self.planned,
            "outcomes": dict(self.state.outcomes),
        }


def entries(directory: Path) -> tuple[list[Entry], list[str], list[str]]:
    """The sweeps in a folder, notes and faults.

    A note is about a folder that commands do not know, a fault about a sweep that cannot be read.
    """
    found, notes, faults = [], [], []
    for name in folder.names(directory):
        try:
            check_name(name)
        except StudyError as error:  # such as a copy in a folder whose name no sweep can have
            notes.append(str(error))
            continue
        try:
            sweep = SweepFolder.open(directory, name)
            plan = sweep.plan
            confirms = plan.confirms.sweep if plan.confirms else None
            found.append(Entry(name, plan.space, winners.trial_count(sweep), confirms, state_of(sweep)))
        except StudyError as error:
            faults.append(str(error))
    return found, notes, faults


def show(directory: Path, *, as_json: bool = False) -> int:
    """Shows all search spaces and sweeps; returns the exit code.

    Raises StudyError, after the table, if a record or log cannot be read.
    """
    spaces = {name: search_spaces.load(name).description for name in search_spaces.names()}
    found, notes, faults = entries(directory)
    if as_json:
        listed = [{"name": name, "description": text} for name, text in spaces.items()]
        terminal.show_json({"spaces": listed, "sweeps": [entry.plain() for entry in found]})
    else:
        terminal.show_table("Search spaces", ["space", "what it tries"], spaces.items())
        _show_sweeps(directory, found)
    for note in (*notes, *faults[1:]):
        terminal.complain(f"note: {note}")
    if faults:
        raise StudyError(faults[0])
    return 0


def _show_sweeps(directory: Path, found: list[Entry]) -> None:
    if found:
        columns = ["sweep", "space", "trials", "outcomes", "state", "since"]
        terminal.show_table(f"Sweeps in {directory}", columns, [entry.row() for entry in found])
        return
    start = folder.command(directory, "run", "quickstart")
    terminal.console.print(f"\nNo sweeps in {directory} yet; start with: {start}", markup=False, soft_wrap=True)
