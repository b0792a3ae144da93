"""Trials over their settings, and how much each setting mattered."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter

from analysis.figures import layout
from analysis.figures.scales import ZERO_AT, Scale
from analysis.figures.style import INCHES, INK, POINTS, QUIET, Size, colours, markers, new_figure, save

PANELS_A_ROW = 4


@dataclass(frozen=True)
class Tried:
    """One trial.

    Attributes:
        method: decides colour and marker.
        settings: what was tried, by the label of its axis.
        value: of the objective, share; NaN if there is none, and then the trial is counted but not drawn.
        finished: whether it completed all tasks; only finished trials can be the best.
        falling: whether the lowest value is the best.
        name: of the trial, for charts.
    """

    method: str
    settings: Mapping[str, float]
    value: float
    finished: bool
    falling: bool = False
    name: str = ""

    @property
    def score(self) -> float:
        """The value as a number of which more is better."""
        return -self.value if self.falling else self.value


Searched = Mapping[str, Collection[float]]
"""Values to which each setting's axis extends, by its label: the ends of ranges, and points."""


def settings_scatter(
    path: Path,
    title: str,
    tried: Sequence[Tried],
    value_label: str,
    size: Size,
    searched: Searched = MappingProxyType({}),
) -> None:
    """The value of every trial over each setting.

    One panel per setting; the best finished trial of each method is ringed. An axis spans what was searched, so that a trial at
    the edge of its range is seen to be there. It is logarithmic if the setting spans more than a factor of 20; 0 then has a tick
    of its own.

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
    save(_draw_settings_scatter(title, tried, value_label, size, searched), path)


def importance(path: Path, title: str, shares: Mapping[str, Mapping[str, float]], size: Size) -> None:
    """How much of the objective's variance each setting explains.

    One group of bars per method, the largest first.

    Args:
        path: of the PNG to write.
        title: of the figure.
        shares: by method and the setting's short name, 0 to 1; NaN where unknown.
        size: wide or narrow.

    Raises:
        ValueError: there is no method with a setting.
    """
    save(_draw_importance(title, shares, size), path)


def scale_of(name: str, tried: Sequence[Tried], searched: Searched) -> Scale:
    """A setting's scale: its trials and what was searched."""
    values = (trial.settings[name] for trial in tried if name in trial.settings)
    return Scale.of([*values, *searched.get(name, ())])


def _draw_settings_scatter(
    title: str, tried: Sequence[Tried], value_label: str, size: Size, searched: Searched = MappingProxyType({})
) -> Figure:
    names, valued = settings_and_valued(tried)
    columns = min(PANELS_A_ROW, len(names)) if size == "wide" else 1
    rows = -(-len(names) // columns)
    figure = new_figure(size)
    layout.title(figure, title, size)
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat[len(names) :]:
        panel.remove()
    room = (INCHES[size] - 0.6) / columns - 0.2
    for place, (axes, name) in enumerate(zip(panels.flat, names, strict=False)):
        layout.plain(axes, size)
        label = value_label if size == "narrow" or place % columns == 0 else ""
        layout.name_axes(figure, axes, name, label, room, size)
        axes.set_ylim(*layout.limits([trial.value for trial in valued]))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
        if place % columns:
            axes.tick_params(labelleft=False)
        scale = scale_of(name, tried, searched)
        _scale_axis(figure, axes, scale, room, size)
        _scatter(axes, name, tried, scale)
    layout.legend(figure, *key(tried, valued, ringed=True), size, without_value(tried, valued))
    layout.fit_height(figure, panels[:, 0].tolist(), rows * (2.7 if size == "wide" else 1.7))
    return figure


def _scale_axis(figure: Figure, axes: Axes, scale: Scale, inches: float, size: Size) -> None:
    """Gives the x axis, about `inches` long, a setting's scale."""
    rim = 0.06
    if scale.low < scale.high:
        if scale.log:
            axes.set_xscale("log")
        axes.set_xlim(scale.coordinate((ZERO_AT if scale.zero else 0.0) - rim), scale.coordinate(1 + rim))
    if scale.zero:
        axes.axvline(scale.coordinate(ZERO_AT / 2), color=QUIET, linewidth=0.8, linestyle=":")
    values = {scale.place(value): value for value in scale.ticks(4)}
    places = {place: scale.ticks(4)[value] for place, value in values.items()}
    ticks = {values[place]: text for place, text in layout.spaced(figure, places, POINTS[size], 0.8 * inches).items()}
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.set_xticklabels(list(ticks.values()))


def _scatter(axes: Axes, name: str, tried: Sequence[Tried], scale: Scale) -> None:
    """Draws the trials with this setting, hollow unless finished."""
    having = [trial for trial in tried if name in trial.settings and math.isfinite(trial.settings[name])]
    valued = [trial for trial in having if math.isfinite(trial.value)]
    colour, marker = colours(trial.method for trial in tried), markers(trial.method for trial in tried)
    for method in colour:
        for finished in (False, True):
            chosen = [trial for trial in valued if trial.method == method and trial.finished == finished]
            x = [scale.shown(trial.settings[name]) for trial in chosen]
            y = [trial.value for trial in chosen]
            if not chosen:
                continue
            if finished:
                axes.scatter(
                    x,
                    y,
                    s=28,
                    c=colour[method],
                    marker=marker[method],
                    edgecolors="white",
                    linewidths=0.5,
                    clip_on=False,
                )
                scores = [trial.score for trial in chosen]
                best = scores.index(max(scores))
                ring: dict[str, Any] = {
                    "s": 100,
                    "facecolors": "none",
                    "edgecolors": INK,
                    "linewidths": 1.3,
                    "clip_on": False,
                    "zorder": 4,
                }
                axes.scatter(x[best : best + 1], y[best : best + 1], **ring)
            else:
                hollow: dict[str, Any] = {"facecolors": "none", "edgecolors": colour[method], "clip_on": False}
                axes.scatter(x, y, s=24, marker=marker[method], alpha=0.8, **hollow)


def _draw_importance(title: str, shares: Mapping[str, Mapping[str, float]], size: Size) -> Figure:
    if not any(shares.values()):
        raise ValueError("There is no setting whose importance could be drawn.")
    figure = new_figure(size)
    layout.title(figure, title, size)
    axes = figure.add_subplot()
    layout.plain(axes, size, grid="x")
    points, colour = POINTS[size], colours(shares)
    room = 2.4 if size == "wide" else 1.1
    at: list[float] = []
    labels: list[str] = []
    y = 0.0
    for method, settings in shares.items():
        falling = sorted(settings.items(), key=lambda item: -item[1] if math.isfinite(item[1]) else math.inf)
        rows: list[tuple[str, float | None]] = [(method, None), *falling]
        for name, share in rows:
            text = layout.wrapped(figure, name, points, room)
            height = 0.09 + 0.155 * (text.count("\n") + 1)
            at.append(y + height / 2)
            labels.append(text)
            if share is not None:
                finite = math.isfinite(share)
                axes.barh(at[-1], share if finite else 0.0, height=0.16, color=colour[method])
                words = f"{share:.2f}" if finite else "unknown"
                spot: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": points, "color": INK}
                axes.annotate(words, (share if finite else 0.0, at[-1]), (4, 0), **spot)
            y += height
        y += 0.12
    axes.set_ylim(y - 0.06, -0.06)
    axes.set_xlim(0, 1.14)
    axes.xaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1] if size == "wide" else [0, 0.5, 1]))
    axes.set_yticks(at, labels)
    axes.tick_params(axis="y", length=0)
    headers = [label for method, group in shares.items() for label in (method, *("" for _ in group))]
    for tick, header in zip(axes.get_yticklabels(), headers, strict=True):
        if header:
            tick.set_fontweight("bold")
    layout.name_axes(
        figure,
        axes,
        "importance (share of the objective's variance explained)",
        "",
        5.0 if size == "wide" else 2.3,
        size,
    )
    layout.fit_height(figure, [axes], y)
    return figure


def settings_and_valued(tried: Sequence[Tried]) -> tuple[list[str], list[Tried]]:
    """The names of all settings and trials with values.

    Raises ValueError if no trial has a setting.
    """
    names = list(dict.fromkeys(name for trial in tried for name in trial.settings))
    if not names:
        raise ValueError("There is no trial with a setting to draw.")
    return names, [trial for trial in tried if math.isfinite(trial.value)]


def without_value(tried: Sequence[Tried], valued: Sequence[Tried]) -> str:
    """A sentence about trials without a value, if any."""
    count = len(tried) - len(valued)
    return f"{count} {'trial has' if count == 1 else 'trials have'} no value and cannot be shown." if count else ""


def key(tried: Sequence[Tried], valued: Sequence[Tried], ringed: bool) -> tuple[list[Artist], list[str]]:
    """The legend's handles and labels.

    The methods and, if `ringed`, the meaning of hollow markers and rings.
    """
    colour, marker = colours(trial.method for trial in tried), markers(trial.method for trial in tried)
    handles: list[Artist] = [
        Line2D([], [], color=colour[method], marker=marker[method], linestyle="none" if ringed else "-", markersize=5)
        for method in colour
    ]
    labels = list(colour)
    if ringed and any(not trial.finished for trial in valued):
        handles.append(Line2D([], [], color=QUIET, marker="o", markerfacecolor="none", linestyle="none", markersize=5))
        labels.append("hollow: stopped early")
    if ringed and any(trial.finished for trial in valued):
        ring: dict[str, Any] = {"color": INK, "marker": "o", "markerfacecolor": "none", "linestyle": "none"}
        handles.append(Line2D([], [], markersize=9, markeredgewidth=1.3, **ring))
        labels.append("ring: best finished trial of its method")
    return handles, labels
