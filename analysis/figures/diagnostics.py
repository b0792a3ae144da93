"""Diagnostics over the tasks, and their correlation with accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.figures import layout
from analysis.figures.accuracy import OfMethod, places
from analysis.figures.style import INCHES, INK, LINE_STYLES, POINTS, Size, colours, markers, new_figure, save

COLUMNS: dict[Size, int] = {"wide": 3, "narrow": 1}
PANEL_INCHES = 1.35
ROW_INCHES = 0.12
"""Height of the row of one mark."""
LINE_INCHES = 0.16
LOGARITHMIC_FROM = 20.0
"""A panel is logarithmic if it spans more than this factor."""


@dataclass(frozen=True)
class Trajectory:
    """One diagnostic of one setting over the tasks.

    Attributes:
        label: of the setting, for the legend.
        method: decides colour and marker.
        tasks: index of each task measured, from 0.
        values: mean over the lanes after these tasks; NaN where unknown.
    """

    label: str
    method: str
    tasks: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Association:
    """One setting's correlations of diagnostics with later accuracy.

    Attributes:
        label: of the setting, for the legend.
        method: decides colour and marker.
        values: by diagnostic: correlation from -1 to 1 and its bounds; NaN where unknown.
    """

    label: str
    method: str
    values: Mapping[str, tuple[float, float, float]]


def trajectories(path: Path, title: str, panels: Mapping[str, Sequence[Trajectory]], size: Size) -> None:
    """A panel per diagnostic with a line per setting.

    Args:
        path: of the PNG to write.
        title: of the figure.
        panels: by the diagnostic's name and unit; all with the same settings in the same order.
        size: wide or narrow.

    Raises:
        ValueError: there is no panel, or none has a line.
    """
    save(_draw_trajectories(title, panels, size), path)


def associations(
    path: Path, title: str, settings: Sequence[Association], size: Size, follows: str = "the next task"
) -> None:
    """A row per diagnostic with a mark per setting.

    Each mark is a correlation with its interval, on an axis from -1 to 1.

    Args:
        path: of the PNG to write.
        title: of the figure.
        settings: those of one method share colour and marker; from the second on they are hollow.
        follows: the task whose test accuracy it is.
        size: wide or narrow.

    Raises:
        ValueError: there is no setting, or none with a value.
    """
    save(_draw_associations(title, settings, size, follows), path)


def _draw_trajectories(title: str, panels: Mapping[str, Sequence[Trajectory]], size: Size) -> Figure:
    if not panels or not any(panels.values()):
        raise ValueError("There is no diagnostic to draw.")
    figure = new_figure(size)
    layout.title(figure, title, size)
    columns = min(COLUMNS[size], len(panels))
    rows = -(-len(panels) // columns)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    first = next(iter(panels.values()))
    looks = _looks(first)
    for axes, (name, lines) in zip(grid.flat, panels.items(), strict=False):
        layout.plain(axes, size, grid="y")
        inches = INCHES[size] / columns - 0.5
        axes.set_title(layout.wrapped(figure, name, POINTS[size], inches), loc="left", fontsize=POINTS[size], color=INK)
        is_share = name.endswith("(share)")  # accuracies among them; their axes end at 0 and 1, where markers are whole
        for line, look in zip(lines, looks, strict=True):
            axes.plot(np.asarray(line.tasks) + 1, line.values, clip_on=not is_share, in_layout=not is_share, **look)
        finite = [value for line in lines for value in line.values if math.isfinite(value)]
        if finite and min(finite) > 0 and max(finite) > LOGARITHMIC_FROM * min(finite):
            axes.set_yscale("log")
        else:
            axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        if finite and is_share:
            low, high = axes.get_ylim()
            axes.set_ylim(max(low, 0.0) if min(finite) >= 0 else low, min(high, 1.0))
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    for column in range(columns):  # the lowest panel of a column names the axis
        for place in range(rows):
            if place * columns + column < len(panels):
                lowest = grid[place, column]
        lowest.set_xlabel("task (index in order of training)", fontsize=POINTS[size], color=INK)
        lowest.tick_params(labelbottom=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    handles: list[Artist] = [Line2D([], [], **look) for look in looks]
    layout.legend(figure, handles, [line.label for line in first], size, "Means over seeds.")
    layout.fit_height(figure, list(grid[:, 0]), PANEL_INCHES * rows)
    return figure


def extent(values: Sequence[float], *, is_share: bool) -> tuple[float, float, bool]:
    """A diagnostic's axis: its ends, and whether it is logarithmic.

    Args:
        values: finite ones.
        is_share: an axis of shares ends at 0 and 1.
    """
    if not values:
        return 0.0, 1.0, False
    low, high = min(values), max(values)
    is_log = low > 0 and high > LOGARITHMIC_FROM * low
    if is_log:
        rim = (high / low) ** 0.05
        low, high = low / rim, high * rim
    else:
        rim = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
        low, high = (max(low - rim, 0.0) if is_share and low >= 0 else low - rim), high + rim
    return low, min(high, 1.0) if is_share else high, is_log


def _looks(settings: Sequence[OfMethod]) -> list[dict[str, Any]]:
    """How each setting is drawn: colour, marker, line style, fill."""
    colour, marker = colours(one.method for one in settings), markers(one.method for one in settings)
    return [
        {
            "color": colour[one.method],
            "marker": marker[one.method],
            "markersize": 3.5,
            "markerfacecolor": "white" if place else colour[one.method],
            "linestyle": LINE_STYLES[place % len(LINE_STYLES)],
            "linewidth": 1.1,
            "markevery": 0.15,
        }
        for one, place in zip(settings, places(settings), strict=True)
    ]


def _draw_associations(
    title: str, settings: Sequence[Association], size: Size, follows: str = "the next task"
) -> Figure:
    names = list(dict.fromkeys(name for one in settings for name in one.values))
    if not names:
        raise ValueError("There is no association to draw.")
    figure = new_figure(size)
    layout.title(figure, title, size)
    axes = figure.add_subplot()
    layout.plain(axes, size, grid="x")
    axes.spines["left"].set_visible(False)
    texts, above = _row_names(figure, names, size)
    height = max(
        above + ROW_INCHES * (len(settings) + 2), max(LINE_INCHES * (text.count("\n") + 1) for text in texts) + 0.1
    )
    looks = _looks(settings)
    for row, name in enumerate(names):
        if row % 2:
            axes.axhspan(row * height, (row + 1) * height, color="#f7f7f5", linewidth=0, zorder=0)
        for place, (one, look) in enumerate(zip(settings, looks, strict=True)):
            value, low, high = one.values.get(name, (math.nan,) * 3)
            y = row * height + above + ROW_INCHES * (place + 1.5)
            _mark(axes, value, low, high, y, look)
    _name_rows(axes, texts, height, size)
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    axes.set_xlim(-1.02, 1.02)
    axes.set_ylim(len(names) * height, 0)
    layout.name_axes(figure, axes, f"correlation with test accuracy on {follows}", "", INCHES[size] - 0.6, size)
    axes.xaxis.set_major_locator(MaxNLocator(8 if size == "wide" else 4, steps=[1, 2, 5, 10]))
    handles: list[Artist] = [Line2D([], [], **look | {"linestyle": "none", "markersize": 6}) for look in looks]
    note = "Marks: correlation within seeds, from task to task. Lines: 95 % intervals over seeds."
    layout.legend(figure, handles, [one.label for one in settings], size, note)
    layout.fit_height(figure, [axes], len(names) * height)
    return figure


def _mark(axes: Axes, value: float, low: float, high: float, y: float, look: Mapping[str, Any]) -> None:
    if math.isfinite(low) and math.isfinite(high):
        axes.plot([low, high], [y, y], color=look["color"], linewidth=1.2, zorder=2)
    if math.isfinite(value):
        shape = {name: look[name] for name in ("color", "marker", "markerfacecolor")}
        axes.plot([value], [y], linestyle="none", markersize=5, zorder=3, **shape)


def _row_names(figure: Figure, names: Sequence[str], size: Size) -> tuple[list[str], float]:
    """The wrapped names, and their height above the marks.

    In inches; 0 on the wide page, where names stand on the left.
    """
    inches = 2.3 if size == "wide" else INCHES[size] - 0.5
    texts = [layout.wrapped(figure, name, POINTS[size], inches) for name in names]
    lines = max(text.count("\n") + 1 for text in texts)
    return texts, 0.0 if size == "wide" else LINE_INCHES * lines


def _name_rows(axes: Axes, texts: Sequence[str], height: float, size: Size) -> None:
    """Writes the names: on the left (wide), or above (narrow)."""
    axes.tick_params(axis="y", length=0)
    if size == "wide":
        axes.set_yticks([(row + 0.5) * height for row in range(len(texts))], texts)
        return
    axes.set_yticks([])
    for row, text in enumerate(texts):
        place = (0.01, row * height + 0.03)
        axes.text(*place, text, transform=axes.get_yaxis_transform(), va="top", fontsize=POINTS[size], color=INK)
