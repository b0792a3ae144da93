"""Mean accuracy of several settings with its 95 % intervals: over the tasks, and over the work that they took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, ScalarFormatter

from analysis.figures import INCHES, LINE_STYLES, Size, colours, layout, markers, new_figure, save

PANEL_INCHES: dict[Size, float] = {"wide": 3.7, "narrow": 2.6}
MARKERS_A_LINE = 7

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Band:
    """Mean accuracy over the lanes of one setting, with its 95 % interval.

    Attributes:
        label: for the legend.
        method: decides colour and marker.
        mean: share, [task]; NaN where nothing was measured.
        low: lower end of the interval, share, [task]; NaN where it is not known, and no band is drawn there.
        high: upper end, likewise.
    """

    label: str
    method: str
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Spent:
    """A `Band` whose tasks have a price.

    Attributes:
        label: for the legend.
        method: decides colour and marker.
        gradient_evaluations: of one lane from the start to the end of each task, count, [task].
        mean: share, [task].
        low: lower end of the 95 % interval, share, [task]; NaN where it is not known.
        high: upper end, likewise.
    """

    label: str
    method: str
    gradient_evaluations: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def accuracy_by_task(path: Path, title: str, bands: Sequence[Band], size: Size) -> None:
    """The paper's figure: mean test accuracy of each task of several settings, with 95 % bands.

    Args:
        path: of the PNG to write.
        title: stands above.
        bands: settings of one method share colour and marker and differ in line style.
        size: wide or narrow.

    Raises:
        ValueError: there is no band, or one whose rows are empty or differ in length.
    """
    save(_draw_accuracy_by_task(title, bands, size), path)


def accuracy_by_gradient_evaluations(path: Path, title: str, curves: Sequence[Spent], size: Size) -> None:
    """Mean test accuracy against the gradient evaluations spent so far, for methods that take unequally many a step.

    Args:
        path: of the PNG to write.
        title: stands above.
        curves: settings of one method share colour and marker and differ in line style.
        size: wide or narrow.

    Raises:
        ValueError: there is no curve, or one whose rows are empty or differ in length.
    """
    save(_draw_accuracy_by_gradient_evaluations(title, curves, size), path)


def _draw_accuracy_by_task(title: str, bands: Sequence[Band], size: Size) -> Figure:
    tasks = [np.arange(1, len(band.mean) + 1, dtype=float) for band in bands]
    figure, axes = _draw_bands(title, bands, tasks, "task (index in order of training)", size)
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
    title: str, bands: Sequence[Band | Spent], rows: Sequence[Floats], x_label: str, size: Size
) -> tuple[Figure, Axes]:
    """All curves over their `rows` [curve][task], with names, limits and legend."""
    if not bands:
        raise ValueError("There is no curve to draw.")
    colour, marker = colours(band.method for band in bands), markers(band.method for band in bands)
    figure = new_figure(size)
    axes = figure.add_subplot()
    layout.plain(axes, size, grid="y")
    axes.margins(x=0.02)
    layout.title(figure, title, size)
    layout.name_axes(figure, axes, x_label, "test accuracy (share)", INCHES[size] - 0.9, size)
    handles: list[Artist] = []
    drawn: list[Floats] = []
    intervals = 0
    for band, x, place in zip(bands, rows, places(bands), strict=True):
        mean, low, high = (np.asarray(row, dtype=float) for row in (band.mean, band.low, band.high))
        if not len(x) == len(mean) == len(low) == len(high) or not len(x):
            raise ValueError(f"The rows of the curve {band.label!r} are empty or differ in length.")
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
    axes.set_ylim(*layout.share_limits(np.concatenate(drawn), least=0.02))
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.yaxis.set_major_locator(MaxNLocator(6 if size == "wide" else 5, steps=[1, 2, 5, 10]))
    if intervals == 0:
        note = "Lines: means over seeds. No bands: the intervals are not known."
    else:
        note = "Lines: means over seeds. Bands: 95 % intervals" + (
            "." if intervals == len(bands) else "; a line without a band has no known interval."
        )
    layout.legend(figure, handles, [band.label for band in bands], size, note)
    return figure, axes


def _draw_band(axes: Axes, x: Floats, low: Floats, high: Floats, colour: str, alpha: float) -> bool:
    """The interval where both ends are known; a task without known neighbours gets an upright line. Whether any was."""
    known = np.isfinite(low) & np.isfinite(high) & np.isfinite(x)
    beside = np.append(known[1:], False) | np.insert(known[:-1], 0, False)
    if (known & beside).any():
        axes.fill_between(x, low, high, where=list(known & beside), color=colour, alpha=alpha, linewidth=0)
    if (known & ~beside).any():
        alone = known & ~beside
        axes.vlines(x[alone], low[alone], high[alone], colors=colour, alpha=0.5, linewidth=2)
    return bool(known.any())


class OfMethod(Protocol):
    """What belongs to a method."""

    @property
    def method(self) -> str:
        """Decides colour and marker."""


def places(curves: Sequence[OfMethod]) -> list[int]:
    """How many curves of the same method stand before each: decides its line style."""
    methods = [curve.method for curve in curves]
    return [methods[:place].count(method) for place, method in enumerate(methods)]


def _fitted(figure: Figure, axes: Axes, size: Size) -> Figure:
    layout.fit_height(figure, [axes], PANEL_INCHES[size])
    return figure
