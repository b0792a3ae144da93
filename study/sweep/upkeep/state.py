"""Whether a sweep is running, interrupted or finished."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from study.sweep import winners
from study.sweep.folder import SweepFolder
from study.sweep.forms import LOG_LINE
from study.sweep.lines import LineReader
from study.sweep.record import Outcome


@dataclass(frozen=True)
class SweepState:
    """How a sweep stands.

    Attributes:
        word: "running" while a process drives it, "finished" if all trials have ended, failed ones included, else "interrupted".
        since: in seconds since 1970, when it was started last, when its last trial ended, or when the last thing was recorded.
        outcomes: number of its trials by outcome.
    """

    word: Literal["running", "interrupted", "finished"]
    since: float
    outcomes: Counter[Outcome]

    @property
    def done(self) -> int:
        """Number of trials that have finished or were stopped early."""
        return self.outcomes["finished"] + self.outcomes["stopped"]


def state_of(sweep: SweepFolder) -> SweepState:
    """How a sweep stands, by its records and its lock.

    One record at a time is in memory. Raises StudyError if a record or the log cannot be read.
    """
    is_running = sweep.is_running
    outcomes: Counter[Outcome] = Counter()
    changed = 0.0
    for record in sweep.each_record():
        outcomes[record.history.outcome] += 1
        changed = max(changed, record.history.changed or 0.0)
    started, logged = _session(sweep)
    if is_running:
        return SweepState("running", started, outcomes)
    if outcomes["finished"] + outcomes["stopped"] + outcomes["failed"] >= winners.trial_count(sweep):
        return SweepState("finished", changed, outcomes)
    return SweepState("interrupted", max(changed, logged), outcomes)


def _session(sweep: SweepFolder) -> tuple[float, float]:
    """When the sweep was started last, and the last line of its log."""
    started = logged = 0.0
    for line in LineReader(sweep.root / "sweep.jsonl", LOG_LINE).new_lines():
        logged = line["at"]
        if line["kind"] in ("plan", "start"):
            started = logged
    return started, logged
