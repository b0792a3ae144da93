"""Settings against each other: what the search promised and fresh seeds kept, and differences with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from analysis.figures import INCHES, INK, POINTS, QUIET, Size, colours, layout, markers, new_figure, save

LINE_INCHES = 0.16
LABEL_INCHES = 2.6
MARKER_SIZE = 45.0
MARGIN_COLOUR = "#d5edfa"


@dataclass(frozen=True)
class Confirmed:
    """One setting, scored by the search and again on fresh seeds.

    Attributes:
        label: names the row.
        method: decides colour and marker.
        tuned: accuracy by which it was chosen, share; NaN where it is not known.
        confirmed: accuracy on seeds that it was not chosen on, share; likewise.
        low: lower end of the 95 % interval of `confirmed`; NaN where it is not known.
        high: upper end, likewise.
    """

    label: str
    method: str
    tuned: float
    confirmed: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """One comparison.

    Attributes:
        label: says what is subtracted from what.
        mean: of the paired differences; NaN where it is not known.
        low: lower end of the interval of the mean; NaN where it is not known.
        high: upper end, likewise.
        p: p-value, 0 to 1; NaN where there is none.
    """

    label: str
    mean: float
    low: float
    high: float
    p: float


def tuned_and_confirmed(path: Path, title: str, rows: Sequence[Confirmed], size: Size) -> None:
    """A row a setting: hollow on the seeds of the search, filled with its interval where fresh seeds put it, and the gap.

    Args:
        path: of the PNG to write.
        title: stands above.
        rows: from top to bottom.
        size: wide or narrow.

    Raises:
        ValueError: there is no row.
    """
    save(_draw_tuned_and_confirmed(title, rows, size), path)


def differences(
    path: Path, title: str, rows: Sequence[Difference], unit: str, margin: float | None, size: Size
) -> None:
    """A forest plot: a row a comparison with its interval, a line at 0, and the margin of equivalence shaded.

    Args:
        path: of the PNG to write.
        title: stands above.
        rows: from top to bottom.
        unit: of the differences, as "share".
        margin: differences within -margin to margin do not matter; in the same unit. None: there is none.
        size: wide or narrow.

    Raises:
        ValueError: there is no row.
    """
    save(_draw_differences(title, rows, unit, margin, size), path)


def _draw_tuned_and_confirmed(title: str, rows: Sequence[Confirmed], size: Size) -> Figure:
    if not rows:
        raise ValueError("There is no setting to draw.")
    figure = new_figure(size)
    layout.title(figure, title, size)
    axes = figure.add_subplot()
    notes = [f"gap {_signed(row.tuned - row.confirmed)}" for row in rows]
    lanes, total = _rows(figure, axes, [row.label for row in rows], notes, size)
    colour, marker = colours(row.method for row in rows), markers(row.method for row in rows)
    for row, lane in zip(rows, lanes, strict=True):
        y = sum(lane) / 2
        look = colour[row.method]
        axes.plot([row.tuned, row.confirmed], [y, y], color=look, alpha=0.3, linewidth=4, solid_capstyle="butt")
        if math.isfinite(row.low) and math.isfinite(row.high):
            _interval(axes, row.low, row.high, y, look)
        shape: dict[str, Any] = {"marker": marker[row.method], "edgecolors": look, "linewidths": 1.3}
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
    note = "" if not unknown else f"Interval not known: {unknown} of {len(rows)}."
    layout.legend(figure, handles, [*labels, *colour], size, note)
    layout.fit_height(figure, [axes], total)
    return figure


def _draw_differences(title: str, rows: Sequence[Difference], unit: str, margin: float | None, size: Size) -> Figure:
    if not rows:
        raise ValueError("There is no difference to draw.")
    figure = new_figure(size)
    layout.title(figure, title, size)
    axes = figure.add_subplot()
    lanes, total = _rows(figure, axes, [row.label for row in rows], [_in_words(row) for row in rows], size)
    for row, lane in zip(rows, lanes, strict=True):
        y = sum(lane) / 2
        axes.plot([0, 0], lane, color=INK, linewidth=1, zorder=1)
        if margin is not None:
            axes.fill_betweenx(lane, -margin, margin, color=MARGIN_COLOUR, linewidth=0, zorder=0)
        known = math.isfinite(row.low) and math.isfinite(row.high)
        if known:
            _interval(axes, row.low, row.high, y, INK)
        face = INK if known else "white"
        axes.scatter(
            [row.mean], [y], s=MARKER_SIZE, marker="s", facecolors=face, edgecolors=INK, linewidths=1.3, zorder=4
        )
    seen = [0.0, *(number for row in rows for number in (row.mean, row.low, row.high) if math.isfinite(number))]
    handles: list[Artist] = [Line2D([], [], color=INK, marker="s", markersize=6)]
    labels = ["mean with its 95 % interval"]
    if any(not (math.isfinite(row.low) and math.isfinite(row.high)) for row in rows):
        handles.append(Line2D([], [], color=INK, marker="s", markerfacecolor="white", linestyle="none", markersize=6))
        labels.append("hollow: interval not known")
    if margin is not None:
        handles.append(Patch(facecolor=MARGIN_COLOUR))
        labels.append(f"equivalence margin ±{margin:g} ({unit})")
        seen += [-margin, margin]
    rim = 0.06 * (max(seen) - min(seen)) or 0.01
    axes.set_xlim(min(seen) - rim, max(seen) + rim)
    layout.name_axes(figure, axes, f"difference ({unit})", "", INCHES[size] - 0.6, size)
    _number_ticks(axes, size)
    layout.legend(figure, handles, labels, size)
    layout.fit_height(figure, [axes], total)
    return figure


def _rows(
    figure: Figure, axes: Axes, labels: Sequence[str], notes: Sequence[str], size: Size
) -> tuple[list[tuple[float, float]], float]:
    """Makes the y axis one of inches from the top, and writes labels and notes.

    On the wide page a label stands left and a note right of its row; on the narrow one both stand above it.

    Returns:
        Top and bottom of where each row's data belong, [row], and the height of the axes, all in inches.
    """
    points = POINTS[size]
    layout.plain(axes, size, grid="x")
    axes.spines["left"].set_visible(False)
    lanes: list[tuple[float, float]] = []
    total = 0.08
    if size == "wide":
        texts = [layout.wrapped(figure, label, points, LABEL_INCHES) for label in labels]
        for text in texts:
            height = max(0.32, LINE_INCHES * (text.count("\n") + 1) + 0.1)
            lanes.append((total, total + height))
            total += height
        axes.set_yticks([sum(lane) / 2 for lane in lanes], texts)
        beside = axes.secondary_yaxis("right")
        beside.set_yticks(
            list(axes.get_yticks()), [layout.wrapped(figure, note, points, LABEL_INCHES) for note in notes]
        )
        beside.spines[:].set_visible(False)
        beside.tick_params(labelsize=points, labelcolor=INK, length=0)
    else:
        for label, note in zip(labels, notes, strict=True):
            name, words = (layout.wrapped(figure, text, points, INCHES[size] - 0.45) for text in (label, note))
            white = {"facecolor": "white", "pad": 0.5, "linewidth": 0}
            for text, colour in ((name, INK), (words, QUIET)):
                place = (0, total)
                spot = axes.get_yaxis_transform()
                axes.text(*place, text, transform=spot, va="top", fontsize=points, color=colour, bbox=white, zorder=3)
                total += LINE_INCHES * (text.count("\n") + 1)
            lanes.append((total, total + 0.22))
            total += 0.32
        axes.set_yticks([])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(total, 0)
    return lanes, total


def _interval(axes: Axes, low: float, high: float, y: float, colour: str) -> None:
    axes.plot([low, high], [y, y], color=colour, linewidth=1.4, marker="|", markersize=8, markeredgewidth=1.4, zorder=3)


def _number_ticks(axes: Axes, size: Size) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(7 if size == "wide" else 4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))


def _in_words(row: Difference) -> str:
    if not math.isfinite(row.mean):
        return "not known"
    known = math.isfinite(row.low) and math.isfinite(row.high)
    interval = f"[{_signed(row.low)}, {_signed(row.high)}]" if known else "interval not known"
    p = "" if not math.isfinite(row.p) else ", p < 0.001" if row.p < 0.001 else f", p = {row.p:.3f}"
    return f"{_signed(row.mean)} {interval}{p}"


def _signed(value: float) -> str:
    """A difference in four decimals, or in none where it is a count; with its sign."""
    if not math.isfinite(value):
        return "not known"
    return f"{value:+.4f}".replace("-", "−") if abs(value) < 100 else f"{value:+,.0f}".replace("-", "−")
