"""Parallel coordinates: every trial as a line through its settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import layout
from analysis.figures.scales import ZERO_AT, Scale
from analysis.figures.search import Searched, Tried, key, scale_of, settings_and_valued, without_value
from analysis.figures.style import INCHES, INK, POINTS, QUIET, Size, colours, markers, new_figure, save

NONE_AT, NONE_WIDTH = -0.27, 0.08
"""Place of a setting that a method does not have, outside the scale and its 0.

Trials are spread there over this width in the order of their values, so that their lines do not all run through one point.
"""


def parallel_coordinates(
    path: Path,
    title: str,
    tried: Sequence[Tried],
    value_label: str,
    size: Size,
    searched: Searched = MappingProxyType({}),
) -> None:
    """Draws every trial as a line through its settings.

    The better the trial, the darker its line. The axes of settings span what was searched. They are side by side on the wide page
    and stacked on the narrow one. A setting that a method does not have is at "none".

    Args:
        path: of the PNG to write.
        title: of the figure.
        tried: the trials, in any order.
        value_label: the value with its unit.
        size: wide or narrow.
        searched: without it, the axes span the trials.

    Raises:
        ValueError: there is no trial, or none with a setting.
    """
    save(_draw_parallel_coordinates(title, tried, value_label, size, searched), path)


def scales_of(names: Sequence[str], valued: Sequence[Tried], searched: Searched) -> list[Scale]:
    """The scales of all settings, then of the value."""
    return [*(scale_of(name, valued, searched) for name in names), Scale.linear(trial.value for trial in valued)]


def is_absent(name: str, valued: Sequence[Tried]) -> bool:
    """Whether any trial lacks a setting."""
    return any(not math.isfinite(trial.settings.get(name, math.nan)) for trial in valued)


def lowest_place(names: Sequence[str], valued: Sequence[Tried], scales: Sequence[Scale]) -> float:
    """The lowest place on any scale."""
    if any(is_absent(name, valued) for name in names):
        return NONE_AT - NONE_WIDTH / 2
    return ZERO_AT if any(scale.zero for scale in scales) else 0.0


def places(trial: Tried, names: Sequence[str], scales: Sequence[Scale]) -> tuple[list[float], float]:
    """A trial's places on the scales, and its strength.

    Both are from 0 to 1, but for places of a zero or "none".
    """
    settings = [trial.settings.get(name, math.nan) for name in names]
    place_of_value = scales[-1].place(trial.value)
    strength = 1 - place_of_value if trial.falling else place_of_value
    none = NONE_AT + (strength - 0.5) * NONE_WIDTH
    along = [
        scale.place(value) if math.isfinite(value) else none
        for scale, value in zip(scales, [*settings, trial.value], strict=True)
    ]
    return along, 0.1 + 0.85 * strength**3


def _draw_parallel_coordinates(
    title: str, tried: Sequence[Tried], value_label: str, size: Size, searched: Searched = MappingProxyType({})
) -> Figure:
    names, valued = settings_and_valued(tried)
    wide = size == "wide"
    figure = new_figure(size)
    layout.title(figure, title, size)
    axes = figure.add_subplot()
    axes.set_axis_off()
    scales = scales_of(names, valued, searched)
    lowest = lowest_place(names, valued, scales)
    room = (INCHES[size] - 0.3) / len(scales) - 0.15 if wide else INCHES[size] - 0.5
    labels = [*names, value_label]
    for place, (scale, label) in enumerate(zip(scales, labels, strict=True)):
        has_none = place < len(names) and is_absent(names[place], valued)
        _parallel_axis(
            figure, axes, place, scale, layout.wrapped(figure, label, POINTS[size], room), has_none, lowest, size
        )
    colour, marker = colours(trial.method for trial in tried), markers(trial.method for trial in tried)
    for trial in sorted(valued, key=lambda trial: trial.score):
        along, strength = places(trial, names, scales)
        across = [float(place) for place in range(len(scales))]
        look: dict[str, Any] = {
            "color": colour[trial.method],
            "alpha": strength,
            "linewidth": 1.2 if wide else 0.9,
        }
        x, y = (across, along) if wide else (along, across)
        axes.plot(x, y, **look, marker=marker[trial.method], markersize=4, markevery=[-1], clip_on=False, zorder=2)
    rim = 0.04
    if wide:
        axes.set_xlim(-0.1, len(scales) - 0.9)
        axes.set_ylim(lowest - rim, 1 + rim)
    else:
        axes.set_xlim(lowest - rim, 1 + rim)
        axes.set_ylim(len(scales) - 0.75, -0.1)
    word = "lower" if any(trial.falling for trial in valued) else "higher"
    note = f"One line per trial: the {word} its value, the stronger the line."
    layout.legend(figure, *key(tried, [], ringed=False), size, f"{note} {without_value(tried, valued)}".strip())
    layout.fit_height(figure, [axes], 3.6 if wide else 0.85 * len(scales))
    return figure


def _parallel_axis(
    figure: Figure, axes: Axes, place: int, scale: Scale, label: str, has_none: bool, lowest: float, size: Size
) -> None:
    """Draws one axis with its name and ticks.

    It is vertical on the wide page and horizontal on the narrow one, where `lowest` is the left end.
    """
    wide = size == "wide"
    ticks = {scale.place(value): text for value, text in scale.ticks(6 if wide else 4).items()}
    if has_none:
        ticks[NONE_AT] = "none"
    if not wide:
        span = 1.1 - lowest
        kept = layout.spaced(figure, {at / span: text for at, text in ticks.items()}, POINTS[size], 3.2)
        ticks = {at * span: text for at, text in kept.items()}
    look: dict[str, Any] = {"color": QUIET, "linewidth": 1.0, "zorder": 3}
    white: dict[str, Any] = {"facecolor": "white", "alpha": 0.8, "pad": 0.6, "linewidth": 0}
    text: dict[str, Any] = {
        "fontsize": POINTS[size],
        "color": INK,
        "bbox": white,
        "zorder": 5,
        "annotation_clip": False,
    }
    shift: dict[str, Any] = {"textcoords": "offset points"}
    for at in ticks:
        axes.plot(*([place], [at]) if wide else ([at], [place]), "_" if wide else "|", markersize=6, **look)
    none = [NONE_AT - NONE_WIDTH / 2, NONE_AT + NONE_WIDTH / 2]
    if wide:
        axes.plot([place, place], [0, 1], **look)
        if has_none:
            axes.plot([place, place], none, **look)
        axes.annotate(label, (place, 1), (0, 8), ha="center", va="bottom", **shift, **text)
        for at, tick in ticks.items():
            axes.annotate(tick, (place, at), (-6, 0), ha="right", va="center", **shift, **text)
    else:
        axes.plot([0, 1], [place, place], **look)
        if has_none:
            axes.plot(none, [place, place], **look)
        axes.annotate(label, (lowest, place), (0, 6), ha="left", va="bottom", **shift, **text)
        for at, tick in ticks.items():
            axes.annotate(tick, (at, place), (0, -5), ha="center", va="top", **shift, **text)
