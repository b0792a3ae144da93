"""Accuracy over the tasks, and over the compute spent.

Means of several settings with 95 % intervals for the report, and plain curves of single trials for a sweep's runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, ScalarFormatter

from analysis.figures import layout
from analysis.figures.style import (
    INCHES,
    INK,
    LINE_STYLES,
    METHOD_COLOURS,
    OTHER_COLOURS,
    Size,
    colours,
    markers,
    new_figure,
    save,
)

PANEL_INCHES: dict[Size, float] = {"wide": 3.7, "narrow": 2.6}
MARKERS_A_LINE = 7

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Band:
    """Mean accuracy of one setting with its 95 % interval.

    Attributes:
        label: for the legend.
        method: decides colour and marker.
        mean: over the lanes, share, [task]; NaN where nothing was measured.
        low, high: ends of the interval, share, [task]; NaN where unknown, and no band is drawn there.
        lanes: each seed's values, share, [task]; drawn in charts alone.
    """

    label: str
    method: str
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    lanes: Mapping[int, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Spent:
    """A `Band` over the compute spent.

    Attributes:
        label: for the legend.
        method: decides colour and marker.
        gradient_evaluations: of one lane, from the start to the end of each task, count, [task].
        mean: share, [task].
        low, high: ends of the 95 % interval, share, [task]; NaN where unknown.
    """

    label: str
    method: str
    gradient_evaluations: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Curve:
    """Accuracy of one trial over the tasks.

    Attributes:
        label: for the legend.
        method: decides the colour.
        accuracy: share, [task, lane].
    """

    label: str
    method: str
    accuracy: Sequence[Sequence[float]]


def accuracy_by_task(path: Path, title: str, bands: Sequence[Band], size: Size) -> None:
    """The paper's figure: mean test accuracy per task, with bands.

    Args:
        path: of the PNG to write.
        title: of the figure.
        bands: settings of one method share colour and marker and differ in line style.
        size: wide or narrow.

    Raises:
        ValueError: there is no band, or a band's values are empty or differ in length.
    """
    save(_draw_accuracy_by_task(title, bands, size), path)


def difference_by_task(path: Path, title: str, bands: Sequence[Band], baseline: str, size: Size) -> None:
    """Accuracy minus a baseline's per task, with bands.

    Args:
        path: of the PNG to write.
        title: of the figure.
        bands: paired differences, of any sign.
        baseline: what was subtracted, for the axis: the line at 0.
        size: wide or narrow.

    Raises:
        ValueError: there is no band, or a band's values are empty or differ in length.
    """
    save(_draw_difference_by_task(title, bands, baseline, size), path)


def accuracy_by_gradient_evaluations(path: Path, title: str, curves: Sequence[Spent], size: Size) -> None:
    """Mean test accuracy against gradient evaluations spent.

    For methods that need different numbers of them per step.

    Args:
        path: of the PNG to write.
        title: of the figure.
        curves: settings of one method share colour and marker and differ in line style.
        size: wide or narrow.

    Raises:
        ValueError: there is no curve, or a curve's values are empty or differ in length.
    """
    save(_draw_accuracy_by_gradient_evaluations(title, curves, size), path)


def _draw_accuracy_by_task(title: str, bands: Sequence[Band], size: Size) -> Figure:
    tasks = [np.arange(1, len(band.mean) + 1, dtype=float) for band in bands]
    figure, axes = _draw_bands(title, bands, tasks, "task (index in order of training)", size)
    axes.xaxis.set_major_locator(
        MaxNLocator(10 if size == "wide" else 5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    )
    return _fitted(figure, axes, size)


def _draw_difference_by_task(title: str, bands: Sequence[Band], baseline: str, size: Size) -> Figure:
    tasks = [np.arange(1, len(band.mean) + 1, dtype=float) for band in bands]
    label = f"test accuracy minus that of {baseline} (share)"
    figure, axes = _draw_bands(title, bands, tasks, "task (index in order of training)", size, label, lowest=-1.0)
    axes.axhline(0, color=INK, linewidth=0.8, zorder=2)
    low, high = axes.get_ylim()
    rim = 0.04 * (high - low)
    axes.set_ylim(min(low, -rim), max(high, rim))
    axes.xaxis.set_major_locator(
        MaxNLocator(10 if size == "wide" else 5, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    )
    return _fitted(figure, axes, size)


def _draw_accuracy_by_gradient_evaluations(title: str, curves: Sequence[Spent], size: Size) -> Figure:
    spent = [np.asarray(curve.gradient_evaluations, dtype=float) for curve in curves]
    most = max((float(count) for counts in spent for count in counts if np.isfinite(count)), default=0.0)
    unit, words = next(
        (pair for pair in ((1e6, "millions"), (1e3, "thousands")) if most >= 2 * pair[0]), (1.0, "count")
    )
    figure, axes = _draw_bands(title, curves, spent, f"gradient evaluations ({words} per seed)", size)
    axes.xaxis.set_major_locator(MaxNLocator(8 if size == "wide" else 4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count / unit:g}"))
    axes.set_xlim(left=0)
    return _fitted(figure, axes, size)


def _draw_bands(
    title: str,
    bands: Sequence[Band | Spent],
    positions: Sequence[Floats],
    x_label: str,
    size: Size,
    y_label: str = "test accuracy (share)",
    lowest: float = 0.0,
) -> tuple[Figure, Axes]:
    """All curves over their `positions` [curve][task]."""
    if not bands:
        raise ValueError("There is no curve to draw.")
    colour, marker = colours(band.method for band in bands), markers(band.method for band in bands)
    figure = new_figure(size)
    axes = figure.add_subplot()
    layout.plain(axes, size, grid="y")
    axes.margins(x=0.02)
    layout.title(figure, title, size)
    layout.name_axes(figure, axes, x_label, y_label, INCHES[size] - 0.9, size)
    handles: list[Artist] = []
    drawn: list[Floats] = []
    intervals = 0
    for band, x, place in zip(bands, positions, places(bands), strict=True):
        mean, low, high = (np.asarray(row, dtype=float) for row in (band.mean, band.low, band.high))
        if not len(x) == len(mean) == len(low) == len(high) or not len(x):
            raise ValueError(f"The values of the curve {band.label!r} are empty or differ in length.")
        look: dict[str, Any] = {
            "color": colour[band.method],
            "linestyle": LINE_STYLES[place % len(LINE_STYLES)],
            "linewidth": 1.5 if size == "wide" else 1.1,
            "marker": marker[band.method],
            "markersize": 5 if size == "wide" else 4,
            "markerfacecolor": colour[band.method] if place < len(LINE_STYLES) else "white",
        }
        every = max(1, len(x) // MARKERS_A_LINE)
        shift = len(handles) * every // max(1, len(bands))
        axes.plot(x, mean, markevery=slice(shift, None, every), zorder=3, clip_on=False, **look)
        handles.append(Line2D([], [], **look))
        intervals += _draw_band(axes, x, low, high, colour[band.method], min(0.15, 1 / len(bands)))
        drawn += [mean, low, high]
    axes.set_ylim(*layout.share_limits(np.concatenate(drawn), least=0.02, lowest=lowest))
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.yaxis.set_major_locator(MaxNLocator(6 if size == "wide" else 5, steps=[1, 2, 5, 10]))
    if intervals == 0:
        note = "Lines: means over seeds. No bands: the intervals are unknown."
    else:
        note = "Lines: means over seeds. Bands: 95 % intervals" + (
            "." if intervals == len(bands) else "; lines without a band have no known interval."
        )
    layout.legend(figure, handles, [band.label for band in bands], size, note)
    return figure, axes


def _draw_band(axes: Axes, x: Floats, low: Floats, high: Floats, colour: str, alpha: float) -> bool:
    """Draws the interval where known; returns whether any was."""
    finite = np.isfinite(low) & np.isfinite(high) & np.isfinite(x)
    beside = np.append(finite[1:], False) | np.insert(finite[:-1], 0, False)  # whether a neighbour is finite
    if (finite & beside).any():
        axes.fill_between(x, low, high, where=list(finite & beside), color=colour, alpha=alpha, linewidth=0)
    if (finite & ~beside).any():  # a band needs two tasks side by side; one alone gets a vertical line
        alone = finite & ~beside
        axes.vlines(x[alone], low[alone], high[alone], colors=colour, alpha=0.5, linewidth=2)
    return bool(finite.any())


class OfMethod(Protocol):
    """Anything that belongs to a method."""

    @property
    def method(self) -> str:
        """Decides colour and marker."""


def places(curves: Sequence[OfMethod]) -> list[int]:
    """How many curves of the same method precede each."""
    methods = [curve.method for curve in curves]
    return [methods[:place].count(method) for place, method in enumerate(methods)]


def _fitted(figure: Figure, axes: Axes, size: Size) -> Figure:
    layout.fit_height(figure, [axes], PANEL_INCHES[size])
    return figure


def learning_curve(path: Path, title: str, measures: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Accuracy of one trial per task: mean and lanes.

    Args:
        path: of the PNG to write.
        title: of the figure.
        measures: accuracy as a share [task, lane], by what it was measured on.
    """
    figure, axes = _axes(title)
    for (label, values), colour in zip(
        measures.items(), (METHOD_COLOURS["sam"], METHOD_COLOURS["gnp"], *OTHER_COLOURS), strict=False
    ):
        table = np.asarray(values, dtype=float)  # [task, lane]
        tasks = np.arange(1, len(table) + 1)
        if table.shape[1] > 1:
            axes.plot(tasks, table, color=colour, alpha=0.25, linewidth=0.8, clip_on=False)
        look: dict[str, Any] = {"linewidth": 1.8, "marker": "o", "markersize": 3, "clip_on": False}
        axes.plot(tasks, table.mean(axis=1), color=colour, label=label, **look)
    _finish(figure, axes, path)


def comparison(path: Path, title: str, curves: Sequence[Curve]) -> None:
    """Accuracy of several trials per task, means over lanes.

    Args:
        path: of the PNG to write.
        title: of the figure.
        curves: one line each; trials of one method share a colour and differ in line style.
    """
    figure, axes = _axes(title)
    colour = colours(curve.method for curve in curves)
    for curve, place in zip(curves, places(curves), strict=True):
        means = np.asarray(curve.accuracy, dtype=float).mean(axis=1)
        tasks = np.arange(1, len(means) + 1)
        style = LINE_STYLES[place % len(LINE_STYLES)]
        look: dict[str, Any] = {"linestyle": style, "linewidth": 1.6, "clip_on": False}
        axes.plot(tasks, means, color=colour[curve.method], label=curve.label, **look)
    _finish(figure, axes, path)


def _axes(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)  # no global state: figures are drawn from threads
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("task (in order of training)")
    axes.set_ylabel("accuracy at the end of the task (share)")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _finish(figure: Figure, axes: Axes, path: Path) -> None:
    low = min((float(np.nanmin(line.get_ydata())) for line in axes.get_lines()), default=0.0)
    axes.set_ylim(max(0.0, np.floor(low * 10) / 10), 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 6:
        axes.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False)
    else:
        axes.legend(handles, labels, fontsize=8, frameon=False)
    save(figure, path)
