"""Settings compared: tuned against confirmed, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from analysis.figures import layout
from analysis.figures.style import INCHES, INK, POINTS, QUIET, Size, colours, markers, new_figure, save

LINE_INCHES = 0.16
LABEL_INCHES = 2.6
MARKER_SIZE = 45.0
MARGIN_COLOUR = "#d5edfa"


@dataclass(frozen=True)
class Confirmed:
    """One setting's score in the search and on fresh seeds.

    Attributes:
        label: of the row.
        method: decides colour and marker.
        tuned: accuracy on the seeds of the search, share; NaN if unknown.
        confirmed: accuracy on fresh seeds, share; NaN if unknown.
        low, high: ends of the 95 % interval of `confirmed`; NaN if unknown.
    """

    label: str
    method: str
    tuned: float
    confirmed: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """One paired comparison.

    Attributes:
        label: says what is subtracted from what.
        mean: of the paired differences; NaN if unknown.
        low, high: ends of the interval of the mean; NaN if unknown.
        p: p-value, 0 to 1; NaN if there is none.
    """

    label: str
    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Score:
    """One setting's score over its seeds.

    Attributes:
        label: of the row.
        method: decides colour and marker.
        mean: over the seeds, share.
        low, high: ends of its 95 % interval; NaN if unknown.
        seeds: the score of each seed, share.
    """

    label: str
    method: str
    mean: float
    low: float
    high: float
    seeds: Mapping[int, float]


def scores(path: Path, title: str, rows: Sequence[Score], unit: str, size: Size) -> None:
    """One row per setting: mean, interval and seeds.

    Args:
        path: of the file to write.
        title: of the figure.
        rows: from top to bottom.
        unit: of the scores, for the axis.
        size: wide or narrow.

    Raises:
        ValueError: there is no row.
    """
    save(_draw_scores(title, rows, unit, size), path)


def tuned_and_confirmed(path: Path, title: str, rows: Sequence[Confirmed], size: Size) -> None:
    """One row per setting: tuned, confirmed, and the gap.

    The tuned score is hollow; the confirmed one is filled and has its interval.

    Args:
        path: of the PNG to write.
        title: of the figure.
        rows: from top to bottom.
        size: wide or narrow.

    Raises:
        ValueError: there is no row.
    """
    save(_draw_tuned_and_confirmed(title, rows, size), path)


def differences(
    path: Path, title: str, rows: Sequence[Difference], unit: str, margin: float | None, size: Size, note: str = ""
) -> None:
    """A forest plot of paired differences.

    One row per comparison with its interval, a line at 0, and the equivalence margin shaded.

    Args:
        path: of the PNG to write.
        title: of the figure.
        rows: from top to bottom.
        unit: of the differences, such as "share".
        margin: differences from -margin to margin do not matter; in the same unit. None: there is no margin.
        size: wide or narrow.
        note: a sentence above the legend, such as why no p-value is small.

    Raises:
        ValueError: there is no row.
    """
    save(_draw_differences(title, rows, unit, margin, size, note), path)


def _draw_scores(title: str, rows: Sequence[Score], unit: str, size: Size) -> Figure:
    if not rows:
        raise ValueError("There is no score to draw.")
    figure = new_figure(size)
    layout.title(figure, title, size)
    axes = figure.add_subplot()
    notes = [f"{row.mean:.4f}" + _bounds(row.low, row.high) for row in rows]
    strips, total = _rows(figure, axes, [row.label for row in rows], notes, size)
    colour, marker = colours(row.method for row in rows), markers(row.method for row in rows)
    for row, strip in zip(rows, strips, strict=True):
        y, look = sum(strip) / 2, colour[row.method]
        below = [y + 0.08] * len(row.seeds)
        axes.scatter(list(row.seeds.values()), below, 9, color=look, alpha=0.5, linewidths=0, clip_on=False, zorder=2)
        if math.isfinite(row.low) and math.isfinite(row.high):
            _interval(axes, row.low, row.high, y, look)
        shape: dict[str, Any] = {"marker": marker[row.method], "color": look, "clip_on": False, "zorder": 4}
        axes.scatter([row.mean], [y], MARKER_SIZE, **shape)
    axes.set_xlim(
        *layout.share_limits([number for row in rows for number in (row.mean, row.low, row.high, *row.seeds.values())])
    )
    layout.name_axes(figure, axes, unit, "", INCHES[size] - 0.6, size)
    _number_ticks(axes, size)
    handles: list[Artist] = [
        Line2D([], [], color=QUIET, marker="o", markersize=6),
        Line2D([], [], color=QUIET, alpha=0.5, marker="o", markersize=3, linestyle="none"),
        *(Line2D([], [], color=colour[m], marker=marker[m], linestyle="none", markersize=6) for m in colour),
    ]
    layout.legend(figure, handles, ["mean with its 95 % interval", "single seeds", *colour], size)
    layout.fit_height(figure, [axes], total)
    return figure


def _bounds(low: float, high: float) -> str:
    return f" [{low:.4f}, {high:.4f}]" if math.isfinite(low) and math.isfinite(high) else ", interval unknown"


def _draw_tuned_and_confirmed(title: str, rows: Sequence[Confirmed], size: Size) -> Figure:
    if not rows:
        raise ValueError("There is no setting to draw.")
    figure = new_figure(size)
    layout.title(figure, title, size)
    axes = figure.add_subplot()
    notes = [f"gap {signed(row.tuned - row.confirmed)}" for row in rows]
    strips, total = _rows(figure, axes, [row.label for row in rows], notes, size)
    colour, marker = colours(row.method for row in rows), markers(row.method for row in rows)
    for row, strip in zip(rows, strips, strict=True):
        y = sum(strip) / 2
        look = colour[row.method]
        axes.plot([row.tuned, row.confirmed], [y, y], color=look, alpha=0.3, linewidth=4, solid_capstyle="butt")
        if math.isfinite(row.low) and math.isfinite(row.high):
            _interval(axes, row.low, row.high, y, look)
        shape: dict[str, Any] = {
            "marker": marker[row.method],
            "edgecolors": look,
            "linewidths": 1.3,
            "clip_on": False,
        }
        axes.scatter([row.confirmed], [y], MARKER_SIZE, facecolors=look, zorder=4, **shape)
        axes.scatter([row.tuned], [y], MARKER_SIZE, facecolors="white", zorder=4, **shape)
    axes.set_xlim(
        *layout.share_limits([number for row in rows for number in (row.tuned, row.confirmed, row.low, row.high)])
    )
    layout.name_axes(figure, axes, "accuracy (share)", "", INCHES[size] - 0.6, size)
    _number_ticks(axes, size)
    unknown = sum(not (math.isfinite(row.low) and math.isfinite(row.high)) for row in rows)
    line: dict[str, Any] = {"color": QUIET, "marker": "o", "markersize": 6.0}
    handles: list[Artist] = [
        Line2D([], [], markerfacecolor="white", linestyle="none", **line),
        Line2D([], [], linestyle="none" if unknown == len(rows) else "-", **line),
        Line2D([], [], color=QUIET, alpha=0.4, linewidth=4),
    ]
    labels = [
        "hollow: tuned (on the seeds of the search)",
        "filled: confirmed on fresh seeds" + (", 95 % interval" if unknown < len(rows) else ""),
        "gap: tuned minus confirmed (share)",
    ]
    handles += [Line2D([], [], color=colour[m], marker=marker[m], linestyle="none", markersize=6) for m in colour]
    note = "" if not unknown else f"Interval unknown: {unknown} of {len(rows)}."
    layout.legend(figure, handles, [*labels, *colour], size, note)
    layout.fit_height(figure, [axes], total)
    return figure


def _draw_differences(
    title: str, rows: Sequence[Difference], unit: str, margin: float | None, size: Size, note: str = ""
) -> Figure:
    if not rows:
        raise ValueError("There is no difference to draw.")
    figure = new_figure(size)
    layout.title(figure, title, size)
    axes = figure.add_subplot()
    strips, total = _rows(figure, axes, [row.label for row in rows], [in_words(row) for row in rows], size)
    for row, strip in zip(rows, strips, strict=True):
        y = sum(strip) / 2
        axes.plot([0, 0], strip, color=INK, linewidth=1, zorder=1)
        if margin is not None:
            axes.fill_betweenx(strip, -margin, margin, color=MARGIN_COLOUR, linewidth=0, zorder=0)
        bounded = math.isfinite(row.low) and math.isfinite(row.high)
        if bounded:
            _interval(axes, row.low, row.high, y, INK)
        face = INK if bounded else "white"
        axes.scatter(
            [row.mean], [y], s=MARKER_SIZE, marker="s", facecolors=face, edgecolors=INK, linewidths=1.3, zorder=4
        )
    extent = [0.0, *(number for row in rows for number in (row.mean, row.low, row.high) if math.isfinite(number))]
    handles: list[Artist] = [Line2D([], [], color=INK, marker="s", markersize=6)]
    labels = ["mean with its 95 % interval"]
    if any(not (math.isfinite(row.low) and math.isfinite(row.high)) for row in rows):
        handles.append(Line2D([], [], color=INK, marker="s", markerfacecolor="white", linestyle="none", markersize=6))
        labels.append("hollow: interval unknown")
    if margin is not None:
        handles.append(Patch(facecolor=MARGIN_COLOUR))
        labels.append(f"equivalence margin ±{margin:g} ({unit})")
        extent += [-margin, margin]
    rim = 0.06 * (max(extent) - min(extent)) or 0.01
    axes.set_xlim(min(extent) - rim, max(extent) + rim)
    layout.name_axes(figure, axes, f"difference ({unit})", "", INCHES[size] - 0.6, size)
    _number_ticks(axes, size)
    layout.legend(figure, handles, labels, size, note)
    layout.fit_height(figure, [axes], total)
    return figure


def _rows(
    figure: Figure, axes: Axes, labels: Sequence[str], notes: Sequence[str], size: Size
) -> tuple[list[tuple[float, float]], float]:
    """Scales the y axis in inches and writes labels.

    On the wide page a row's label is on its left and its note on its right; on the narrow one both are above it.

    Returns:
        Top and bottom of each row's data, [row], and the height of the axes, all in inches from the top.
    """
    points = POINTS[size]
    layout.plain(axes, size, grid="x")
    axes.spines["left"].set_visible(False)
    strips: list[tuple[float, float]] = []
    total = 0.08
    if size == "wide":
        texts = [layout.wrapped(figure, label, points, LABEL_INCHES) for label in labels]
        for text in texts:
            height = max(0.32, LINE_INCHES * (text.count("\n") + 1) + 0.1)
            strips.append((total, total + height))
            total += height
        axes.set_yticks([sum(strip) / 2 for strip in strips], texts)
        beside = axes.secondary_yaxis("right")
        beside.set_yticks(
            list(axes.get_yticks()), [layout.wrapped(figure, note, points, LABEL_INCHES) for note in notes]
        )
        beside.spines[:].set_visible(False)
        beside.tick_params(labelsize=points, labelcolor=INK, length=0, pad=8)  # clear of a marker at the end
    else:
        for label, note in zip(labels, notes, strict=True):
            name, words = (layout.wrapped(figure, text, points, INCHES[size] - 0.45) for text in (label, note))
            white = {"facecolor": "white", "pad": 0.5, "linewidth": 0}
            for text, colour in ((name, INK), (words, QUIET)):
                place = (0, total)
                spot = axes.get_yaxis_transform()
                axes.text(*place, text, transform=spot, va="top", fontsize=points, color=colour, bbox=white, zorder=3)
                total += LINE_INCHES * (text.count("\n") + 1)
            strips.append((total, total + 0.22))
            total += 0.32
        axes.set_yticks([])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(total, 0)
    return strips, total


def _interval(axes: Axes, low: float, high: float, y: float, colour: str) -> None:
    axes.plot([low, high], [y, y], color=colour, linewidth=1.4, marker="|", markersize=8, markeredgewidth=1.4, zorder=3)


def _number_ticks(axes: Axes, size: Size) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(7 if size == "wide" else 4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))


def in_words(row: Difference) -> str:
    """A difference with its interval and p-value, as text."""
    if not math.isfinite(row.mean):
        return "unknown"
    bounded = math.isfinite(row.low) and math.isfinite(row.high)
    interval = f"[{signed(row.low)}, {signed(row.high)}]" if bounded else "interval unknown"
    p = "" if not math.isfinite(row.p) else ", p < 0.001" if row.p < 0.001 else f", p = {row.p:.3f}"
    return f"{signed(row.mean)} {interval}{p}"


def signed(value: float) -> str:
    """A signed difference: four decimals, or none for a count."""
    if not math.isfinite(value):
        return "unknown"
    return f"{value:+.4f}".replace("-", "−") if abs(value) < 100 else f"{value:+,.0f}".replace("-", "−")
