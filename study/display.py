"""What a person sees in the terminal: progress while a sweep runs, tables after it."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from study import schema
from study.folder import SweepFolder
from study.record import TrialHistory, short

PLAIN_LINE_SECONDS = 10.0
"""Least time between two lines of progress where the output is not a terminal."""

GAP = 2
"""Blanks between two columns of a table."""

LEAST_TASKS_FOR_ESTIMATE = 5
"""Tasks of each worker before the time left can be told from them."""

IN_NOTEBOOK = "JPY_PARENT_PID" in os.environ or "backend_inline" in os.environ.get("MPLBACKEND", "")
"""Whether a notebook's cell has called: it says that it is a terminal, but keeps all that is to be written over."""


def _console(stream: TextIO, *, stderr: bool) -> Console:
    """Plain text where nobody sits before a terminal, even where FORCE_COLOR is set, as in notebooks and on build servers."""
    return Console(
        stderr=stderr, highlight=False, force_terminal=None if stream.isatty() and not IN_NOTEBOOK else False
    )


console = _console(sys.stdout, stderr=False)
errors = _console(sys.stderr, stderr=True)


def remark(text: str) -> None:
    """A paragraph that explains; wrapped in a terminal, one line elsewhere."""
    console.print(text, style="dim", markup=False, soft_wrap=not console.is_terminal)


def headline(text: str) -> None:
    """A paragraph that begins what is shown; wrapped between words in a terminal, one line elsewhere."""
    console.print(text, markup=False, soft_wrap=not console.is_terminal)


def complain(text: str) -> None:
    """A line on standard error, wrapped between words in a terminal."""
    errors.print(text, markup=False, soft_wrap=not errors.is_terminal)


class Progress:
    """How a sweep goes: a calm live display in a terminal, plain lines elsewhere."""

    def __init__(self, folder: SweepFolder, workers: int | None) -> None:
        """`workers` is how many trials run at once; None: as many as fit."""
        plan = folder.plan
        self._name = plan.name
        self._workers = workers
        self._planned_trials = plan.trial_count
        self._planned_tasks = sum(group.trials * folder.task_counts[group.scenario] for group in plan.groups)
        self._groups = [group.label for group in plan.groups]
        self._histories = {history.key: history for history in folder.histories()}
        self._began: float | None = None
        self._tasks_before = self._tasks_done()
        self._said = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        """Starts to show."""
        if console.is_terminal:
            self._live = Live(console=console, refresh_per_second=2, transient=True, get_renderable=self._picture)
            self._live.start()
        else:
            at_once = f"{self._workers} at a time" if self._workers else "as many at a time as fit"
            self.say(f"{self._name}: {self._planned_trials} trials, {self._planned_tasks} tasks, {at_once}")
        return self

    def __exit__(self, *_: object) -> None:
        """Takes the live display away."""
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line for people, above the live display."""
        console.print(text, markup=False, soft_wrap=True)

    def trial_changed(self, history: TrialHistory) -> None:
        """A trial was started, reported a task, or ended."""
        self._histories[history.key] = history
        self._began = self._began or time.monotonic()
        if self._live and history.outcome != "waiting":
            return
        if history.outcome == "waiting":
            next_ = "goes on from its last checkpoint" if history.checkpoints else "starts again"
            self.say(f"{self._status()}; its worker has died: {history.key} {next_}")
        elif history.is_over:
            self.say(f"{self._status()}; {history.outcome}: {history.key}, {describe(history)}")
        elif time.monotonic() - self._said < PLAIN_LINE_SECONDS or not history.tasks:
            return
        else:
            self.say(self._status())
        self._said = time.monotonic()

    def trial_noted(self, history: TrialHistory, text: str) -> None:
        """Something happened to a trial that a reader of its numbers should know."""
        self.say(f"note: {history.key}: {text}")

    def _tasks_done(self) -> int:
        """Tasks that need no more work; those that a stopped trial was spared count as done."""
        return sum(
            history.task_count if history.is_over else len(history.tasks) for history in list(self._histories.values())
        )

    def _status(self) -> str:
        histories = list(self._histories.values())
        ended = sum(h.is_over for h in histories)
        running = sum(1 for h in histories if h.outcome == "running")
        done = self._tasks_done()
        return (
            f"trials {ended}/{self._planned_trials} done, {running} running; tasks {done}/{self._planned_tasks}; "
            f"{self._time_left(done)}"
        )

    def _time_left(self, done: int) -> str:
        elapsed = time.monotonic() - (self._began or time.monotonic())
        fresh = done - self._tasks_before
        running = sum(history.outcome == "running" for history in list(self._histories.values()))
        if fresh < LEAST_TASKS_FOR_ESTIMATE * (self._workers or max(1, running)):
            return f"{clock(elapsed)} so far"
        left = elapsed / fresh * max(0, self._planned_tasks - done)
        return f"{clock(elapsed)} so far, about {clock(left)} left"

    def _picture(self) -> RenderableType:
        bar = Table.grid()
        bar.add_row(ProgressBar(total=max(1, self._planned_tasks), completed=self._tasks_done(), width=40))
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for label in self._groups:
            found = [h for h in list(self._histories.values()) if h.group == label]
            scored = [h for h in found if h.outcome == "finished" and schema.OBJECTIVE in h.metrics]
            top = max(scored, key=lambda h: h.metrics[schema.OBJECTIVE], default=None)
            ended = sum(h.is_over for h in found)
            best = f"best {top.metrics[schema.OBJECTIVE]:.4f}  {top.name}" if top else ""
            table.add_row(label, f"{ended} done", best)
        return Group(Text(f"{self._name}  ", style="bold"), Text(self._status()), bar, table)


def describe(history: TrialHistory) -> str:
    """One trial's last numbers, for a line."""
    if history.outcome == "failed":
        return f"{history.name}: {history.reason}"
    parts = [history.name]
    if schema.OBJECTIVE in history.metrics:
        parts.append(f"objective {history.metrics[schema.OBJECTIVE]:.4f}")
    elif schema.TEST_ACCURACY in history.metrics:
        parts.append(f"test accuracy of the last task {history.metrics[schema.TEST_ACCURACY]:.4f}")
    if history.outcome == "stopped":
        parts.append(f"after {len(history.tasks)} of {history.task_count} tasks")
    return ", ".join(parts)


def clock(seconds: float) -> str:
    """A duration for people: 45 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def number(value: object) -> str:
    """A share for a table: four decimals, and a dash for what there is not."""
    return f"{value:.4f}" if isinstance(value, float) else "-"


def show_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], numeric: int = 0, *, commands: bool = False
) -> None:
    """Prints an empty line, a title and a plain table, its last `numeric` columns aligned to the right.

    In a terminal the table fits its width, and no word is broken: where there is not even room for the longest words, each row
    becomes a few lines. Elsewhere it is as wide as it needs to be. `commands` in the first column are never wrapped.
    """
    shown = [tuple(row) for row in rows]
    widths = _widths([tuple(columns), *shown], console.width if console.is_terminal else None, whole=commands)
    console.print(f"\n{title}", style="bold", markup=False, soft_wrap=not console.is_terminal)
    if widths is None:
        _show_stacked(columns, shown)
        return
    made = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    for place, column in enumerate(columns):
        right = place >= len(columns) - numeric
        made.add_column(Text(column), justify="right" if right else "left", overflow="fold", width=widths[place])
    for row in shown:
        made.add_row(*map(Text, row))
    if console.is_terminal:
        console.print(made)
        return
    wide = Console(highlight=False, width=sum(widths) + GAP * len(widths), file=io.StringIO(), force_terminal=False)
    wide.print(made)
    for line in wide.file.getvalue().splitlines():  # type: ignore[attr-defined]
        console.print(line.rstrip(), markup=False, soft_wrap=True)


def _widths(rows: Sequence[Sequence[str]], most: int | None, *, whole: bool) -> list[int] | None:
    """How wide each column is, so that a row has at most so many characters; None when words would have to be broken.

    What is too wide is taken, character by character, from the widest column that can do with less; `whole`: not the first.
    """
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, cells)) for cells in columns]
    least = [max(len(word) for cell in cells for word in cell.split() or [""]) for cells in columns]
    if whole:
        least[0] = widths[0]
    while most is not None and sum(widths) + GAP * (len(widths) - 1) > most:
        spare = [width if width > enough else 0 for width, enough in zip(widths, least, strict=True)]
        if not any(spare):
            return None
        widths[spare.index(max(spare))] -= 1
    return widths


def _show_stacked(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table without columns: of each row the first cell, and the others in lines below it."""
    for first, *others in rows:
        console.print(first, markup=False, soft_wrap=True)
        for column, cell in zip(columns[1:], others, strict=True):
            console.print(Padding(Text(cell if len(columns) == 2 else f"{column}: {cell}"), (0, 0, 0, 2 * GAP)))


def settings_words(tried: Mapping[str, Any]) -> str:
    """Settings for a table: `lr=0.01 rho=0.05`."""
    return " ".join(f"{last(name)}={short(value)}" for name, value in tried.items())


def last(name: str) -> str:
    """The last word of a slash name."""
    return name.rsplit("/", 1)[-1]
