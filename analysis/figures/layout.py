"""Figure layout: wrapped text, legends below, fitted heights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from analysis.figures.style import FAINT, INCHES, INK, POINTS, QUIET, Size

BREAKS = "_/-=,.:;"
"""A word wider than its line is preferably broken after one of these."""

LABEL_INCHES: dict[Size, float] = {"wide": 2.7, "narrow": 2.8}
"""Maximum width of a legend label."""


def text_width(figure: Figure, text: str, points: float) -> float:
    """Width of one line of text, in inches."""
    renderer = cast(Any, figure.canvas).get_renderer()
    width, _, _ = renderer.get_text_width_height_descent(text, FontProperties(size=points), False)
    return float(width) / float(figure.dpi)


def wrapped(figure: Figure, text: str, points: float, inches: float) -> str:
    """The text in lines no wider than `inches`.

    Dollar signs are escaped, so that matplotlib starts no formula.
    """
    lines: list[str] = []
    line = ""
    for word in text.split():
        candidate = f"{line} {word}" if line else word
        if text_width(figure, candidate, points) <= inches:
            line = candidate
            continue
        if line:
            lines.append(line)
        line = word
        while len(line) > 1 and text_width(figure, line, points) > inches:
            most = next((n for n in range(len(line) - 1, 1, -1) if text_width(figure, line[:n], points) <= inches), 1)
            cut = next((n for n in range(most, most // 2, -1) if line[n - 1] in BREAKS), most)
            lines.append(line[:cut])
            line = line[cut:]
    return "\n".join([*lines, line]).replace("$", r"\$")


def spaced(figure: Figure, ticks: Mapping[float, str], points: float, inches: float) -> dict[float, str]:
    """The tick labels that overlap no label kept before.

    Their places are from 0 to 1 over `inches`.
    """
    kept: dict[float, str] = {}
    end = -math.inf
    for place, text in sorted(ticks.items()):
        half = text_width(figure, text, points) / 2
        if place * inches - half > end:
            kept[place] = text
            end = place * inches + half + 0.6 * points / 72
    return kept


def title(figure: Figure, text: str, size: Size) -> None:
    """Writes the title at the top left of the figure."""
    points = POINTS[size] + 2
    figure.suptitle(
        wrapped(figure, text, points, INCHES[size] - 0.25), x=0.1 / INCHES[size], ha="left", fontsize=points, color=INK
    )


def plain(axes: Axes, size: Size, grid: str = "both") -> None:
    """Styles axes: two spines, a faint grid, the font size.

    `grid` is both, x, y or none.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(labelsize=POINTS[size], colors=QUIET, labelcolor=INK, length=3)
    axes.set_axisbelow(True)
    if grid != "none":
        axes.grid(axis=cast(Any, grid), color=FAINT, linewidth=0.8)


def name_axes(figure: Figure, axes: Axes, x: str, y: str, inches: float, size: Size) -> None:
    """Names the axes: x below, y above the left end.

    Above, it need not be read sideways. `inches` is the width available.
    """
    points = POINTS[size]
    axes.set_xlabel(wrapped(figure, x, points, inches), fontsize=points, color=INK)
    if y:
        axes.set_title(wrapped(figure, y, points, inches), loc="left", fontsize=points, color=INK)


def share_limits(
    values: Sequence[float] | np.ndarray[Any, Any], least: float = 0.01, lowest: float = 0.0
) -> tuple[float, float]:
    """Axis limits for shares: never below `lowest` or above 1.

    Around the finite values, at least `least` apart. What lies outside, such as the end of a t interval above 1, is cut off.
    """
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return lowest, 1.0
    low, high = (min(1.0, max(lowest, float(value))) for value in (finite.min(), finite.max()))
    rim = max(0.05 * (high - low), (least - (high - low)) / 2)
    return max(lowest, low - rim), min(1.0, high + rim)


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Axis limits: those of shares if all values are shares."""
    finite = [value for value in values if np.isfinite(value)]
    if all(0 <= value <= 1 for value in finite):
        return share_limits(values)
    low, high = min(finite), max(finite)
    rim = 0.05 * (high - low) or 0.05 * abs(high)
    return low - rim, high + rim


def legend(figure: Figure, handles: Sequence[Artist], labels: Sequence[str], size: Size, note: str = "") -> None:
    """Draws the legend below all axes, in fitting columns.

    Args:
        figure: may have one legend.
        handles: one per label.
        labels: long ones wrap; they read down the columns.
        size: decides how much room there is.
        note: a sentence above the entries.
    """
    points = POINTS[size]
    room = INCHES[size] - 0.3
    texts = [wrapped(figure, label, points, LABEL_INCHES[size]) for label in labels]
    widest = max(text_width(figure, line, points) for text in texts for line in text.split("\n"))
    columns = max(1, min(len(texts), int(room / (widest + (2.6 + 0.6 + 2.0) * points / 72))))
    rows = -(-len(texts) // columns)
    drawn = figure.legend(
        handles,
        texts,
        loc="outside lower left",
        ncols=-(-len(texts) // rows),
        fontsize=points,
        frameon=False,
        labelcolor=INK,
        handlelength=2.6,
        handletextpad=0.6,
        columnspacing=2.0,
        title=wrapped(figure, note, points, room) if note else None,
        title_fontproperties={"size": points},
        alignment="left",
    )
    drawn.get_title().set_color(QUIET)


def fit_height(figure: Figure, stacked: Sequence[Axes], inches: float) -> None:
    """Sets the figure's height so that stacked axes total `inches`.

    Everything around them (title, tick labels, legend) has a height of its own, found by laying the figure out.
    """
    engine = figure.get_layout_engine()
    for _ in range(3):
        if engine:
            engine.execute(figure)
        height = float(figure.get_figheight())
        missing = inches - sum(float(axes.get_position().height) for axes in stacked) * height
        if abs(missing) < 0.005:
            break
        figure.set_figheight(height + missing)
