"""The progress of a sweep, live or as plain lines."""

from __future__ import annotations

import time

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from study import schema
from study.cli import overview, terminal
from study.cli.terminal import clock
from study.sweep.folder import SweepFolder
from study.sweep.race.configurations import configurations
from study.sweep.record import TrialHistory

PLAIN_LINE_SECONDS = 10.0
"""Least time between two lines of progress when the output is not a terminal."""


LEAST_TASKS_FOR_ESTIMATE = 5
"""Tasks of each worker before the time left is estimated."""


class Progress:
    """Shows how a sweep goes.

    In a terminal as a calm live display, elsewhere as plain lines.
    """

    def __init__(self, folder: SweepFolder, workers: int | None, pack: int | None = None) -> None:
        """`workers`: number of packs at once, of `pack` trials each; None: all that fit."""
        plan = folder.plan
        self._name = plan.name
        self._workers = workers and workers * (pack or 1)
        self._planned_trials = plan.trial_count
        self._most, self._of = ("at most ", " of at most ") if plan.deciding else ("", "/")
        self._planned_tasks = sum(plan.trials_of(group) * folder.task_counts[group.scenario] for group in plan.groups)
        self._plan = plan
        self._groups = [group.label for group in plan.groups]
        self._histories = {history.key: history for history in folder.histories()}
        self._began: float | None = None
        self._tasks_before = self._tasks_done()
        self._last_line = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        """Starts the display."""
        if terminal.console.is_terminal:
            self._live = Live(
                console=terminal.console, refresh_per_second=2, transient=True, get_renderable=self._picture
            )
            self._live.start()
        else:
            at_once = f"{self._workers} at a time" if self._workers else "as many at a time as fit"
            self.say(f"{self._name}: {overview.size(self._plan)}, {self._planned_tasks} tasks, {at_once}")
        return self

    def __exit__(self, *_: object) -> None:
        """Removes the live display."""
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """Prints a line, above any live display."""
        terminal.console.print(text, markup=False, soft_wrap=True)

    def trial_changed(self, history: TrialHistory) -> None:
        """Shows that a trial started, reported a task, or ended."""
        self._histories[history.key] = history
        self._began = self._began or time.monotonic()
        if self._live and history.outcome != "waiting":
            return
        if history.outcome == "waiting":
            next_ = "continues from its last checkpoint" if history.checkpoints else "starts again"
            self.say(f"{self._status()}; worker died: {history.key} {next_}")
        elif history.is_over:
            seeds = f", seeds {', '.join(map(str, history.seeds))}" if self._plan.is_race else ""
            self.say(f"{self._status()}; {history.outcome}: {history.key}, {describe(history)}{seeds}")
        elif time.monotonic() - self._last_line < PLAIN_LINE_SECONDS or not history.tasks:
            return
        else:
            self.say(self._status())
        self._last_line = time.monotonic()

    def trial_noted(self, history: TrialHistory, text: str) -> None:  # the record has it
        """Prints a note on a trial that affects its numbers."""
        self.say(f"note: {history.key}: {text}")

    def _tasks_done(self) -> int:
        """Tasks that need no more work.

        They include those that a stopped trial skips.
        """
        return sum(
            history.task_count if history.is_over else len(history.tasks) for history in list(self._histories.values())
        )

    def _status(self) -> str:
        histories = list(self._histories.values())
        ended = sum(h.is_over for h in histories)
        running = sum(1 for h in histories if h.outcome == "running")
        done = self._tasks_done()
        return (
            f"trials {ended}{self._of}{self._planned_trials} done, {running} running; "
            f"tasks {done}{self._of}{self._planned_tasks}; {self._time_left(done)}"
        )

    def _time_left(self, done: int) -> str:
        elapsed = time.monotonic() - (self._began or time.monotonic())
        fresh = done - self._tasks_before
        running = sum(history.outcome == "running" for history in list(self._histories.values()))
        if fresh < LEAST_TASKS_FOR_ESTIMATE * (self._workers or max(1, running)):
            return f"{clock(elapsed)} so far"
        left = elapsed / fresh * max(0, self._planned_tasks - done)
        return f"{clock(elapsed)} so far, {self._most or 'about '}{clock(left)} left"

    def _picture(self) -> RenderableType:
        bar = Table.grid()
        bar.add_row(ProgressBar(total=max(1, self._planned_tasks), completed=self._tasks_done(), width=40))
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for label in self._groups:
            histories = [h for h in list(self._histories.values()) if h.group == label]
            whole = configurations(self._plan, histories)
            scored = {h.key: value for h in whole if (value := h.objective) is not None}
            top = max(
                (h for h in whole if h.key in scored),
                key=lambda h: h.objectives[0].score(scored[h.key]),
                default=None,
            )
            ended = sum(h.is_over for h in histories)
            best = f"best {scored[top.key]:.4f}  {top.name}" if top else ""
            table.add_row(label, f"{ended} done", best)
        return Group(Text(f"{self._name}  ", style="bold"), Text(self._status()), bar, table)


def describe(history: TrialHistory) -> str:
    """A trial's last numbers in a few words."""
    if history.outcome == "failed":
        return f"{history.name}: {history.reason}"
    parts = [history.name]
    goal = history.objectives[0]
    value = goal.value(history.tasks)
    if value is not None:
        parts.append(f"{'objective' if goal.is_default else goal.label} {value:.4f}")
    elif schema.TEST_ACCURACY in history.metrics:
        parts.append(f"test accuracy of the last task {history.metrics[schema.TEST_ACCURACY]:.4f}")
    if history.outcome == "stopped":
        parts.append(f"after {len(history.tasks)} of {history.task_count} tasks")
    return ", ".join(parts)
