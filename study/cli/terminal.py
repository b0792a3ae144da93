"""Output for people: lines, tables, durations and numbers."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

from rich import progress
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from study.errors import printable

GAP = 2
"""Spaces between two columns of a table."""


IN_NOTEBOOK = "JPY_PARENT_PID" in os.environ or "backend_inline" in os.environ.get("MPLBACKEND", "")
"""Whether the output goes to a notebook's cell.

It claims to be a terminal, but keeps lines that are meant to be overwritten.
"""


class PrintableConsole(Console):
    """A console that escapes the control characters of its lines."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints as Rich does; names and paths are untrusted text."""
        shown = (printable(item, kept="\n") if isinstance(item, str) else item for item in objects)
        super().print(*shown, **options)


def _console(stream: TextIO, *, stderr: bool) -> Console:
    """A console that writes plain text except in a terminal.

    Even if FORCE_COLOR is set, as in notebooks and on build servers.
    """
    return PrintableConsole(
        stderr=stderr,
        highlight=False,
        force_terminal=None if stream.isatty() and not IN_NOTEBOOK else False,
        force_jupyter=False,  # lines are lines, and not pictures of lines
    )


console = _console(sys.stdout, stderr=False)
errors = _console(sys.stderr, stderr=True)


def remark(text: str) -> None:
    """Prints an explanation, dimmed, wrapped only in a terminal."""
    console.print(text, style="dim", markup=False, soft_wrap=not console.is_terminal)


def begin(text: str) -> None:
    """Says what a slow command does first.

    In a terminal only. Elsewhere a refusal is one line and nothing else.
    """
    if console.is_terminal:
        headline(text)


@contextmanager
def bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, in a terminal only.

    Yields a function that is told how many steps are done, and how many there are.
    """
    if not console.is_terminal:
        yield lambda _done, _all: None
        return
    with progress.Progress(*progress.Progress.get_default_columns(), console=console, transient=True) as shown:
        task = shown.add_task(text, total=None)
        yield lambda done, steps: shown.update(task, completed=done, total=steps)


def headline(text: str) -> None:
    """Prints an opening sentence, wrapped only in a terminal."""
    console.print(text, markup=False, soft_wrap=not console.is_terminal)


def complain(text: str) -> None:
    """Prints a line on stderr, wrapped only in a terminal."""
    errors.print(text, markup=False, soft_wrap=not errors.is_terminal)


def clock(seconds: float) -> str:
    """A duration for people.

    Such as 45 s, 3 min 20 s, 2 h 05 min.
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def moment(seconds: float) -> str:
    """Local date and time, to the minute.

    `seconds` are those since 1970.
    """
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def iso_moment(seconds: float) -> str:
    """Date and time in ISO 8601, in UTC.

    `seconds` are those since 1970.
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def show_json(value: object) -> None:
    """Prints plain data as JSON, with all digits.

    What is no number in JSON, such as infinity, becomes null.
    """
    console.print_json(json.dumps(_finite(value)))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(value: object) -> str:
    """A share with four decimals, or a dash if missing."""
    return f"{value:.4f}" if isinstance(value, float) else "-"


def show_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], numeric: int = 0, *, commands: bool = False
) -> None:
    """Prints a title and a plain table.

    In a terminal the table fits the width and no word is broken. If the longest words do not fit side by side, each row
    becomes a few lines. Elsewhere the table is as wide as it needs to be.

    Args:
        title: above the table, after an empty line.
        columns: their headings.
        rows: of cells.
        numeric: how many of the last columns are aligned to the right.
        commands: whether the first column holds commands, which are never wrapped.
    """
    shown = [tuple(printable(cell) for cell in row) for row in rows]
    widths = _widths([tuple(columns), *shown], console.width if console.is_terminal else None, whole=commands)
    console.print(f"\n{title}", style="bold", markup=False, soft_wrap=not console.is_terminal)
    if widths is None:
        _show_stacked(columns, shown)
        return
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    for place, column in enumerate(columns):
        right = place >= len(columns) - numeric
        table.add_column(Text(column), justify="right" if right else "left", overflow="fold", width=widths[place])
    for row in shown:
        table.add_row(*map(Text, row))
    if console.is_terminal:
        console.print(table)
        return
    wide = Console(
        highlight=False,
        width=sum(widths) + GAP * len(widths),
        file=io.StringIO(),
        force_terminal=False,
        force_jupyter=False,
    )
    wide.print(table)
    for line in wide.file.getvalue().splitlines():  # type: ignore[attr-defined]
        console.print(line.rstrip(), markup=False, soft_wrap=True)


def _widths(rows: Sequence[Sequence[str]], most: int | None, *, whole: bool) -> list[int] | None:
    """Widths of columns for rows of at most `most` characters.

    None if words would have to be broken. The excess is taken, character by character, from the widest column that can be
    narrower; with `whole`, never from the first. (Rich narrows columns below their longest word before it looks at it.)
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
    """Prints each row as a few lines, one per cell."""
    for first, *others in rows:
        console.print(first, markup=False, soft_wrap=True)
        for column, cell in zip(columns[1:], others, strict=True):
            console.print(Padding(Text(cell if len(columns) == 2 else f"{column}: {cell}"), (0, 0, 0, 2 * GAP)))
