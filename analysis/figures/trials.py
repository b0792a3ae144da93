"""Trials of a sweep, as the figures of `search` and `parallel` take them, and the legend that both share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from analysis.figures import INK, QUIET, colours, markers


@dataclass(frozen=True)
class Tried:
    """One trial.

    Attributes:
        method: decides colour and marker.
        settings: what was tried, by name, with or without its group: `lr` or `optimizer/lr`.
        value: of the objective, share; NaN if it has none, and then it is counted and not drawn.
        finished: whether it saw all tasks. Only finished trials are best ones.
    """

    method: str
    settings: Mapping[str, float]
    value: float
    finished: bool


def settings_and_valued(tried: Sequence[Tried]) -> tuple[list[str], list[Tried]]:
    """The names of all settings in order of appearance, and the trials that have a value."""
    names = list(dict.fromkeys(name for trial in tried for name in trial.settings))
    if not names:
        raise ValueError("There is no trial with a setting to draw.")
    return names, [trial for trial in tried if math.isfinite(trial.value)]


def without_value(tried: Sequence[Tried], valued: Sequence[Tried]) -> str:
    """A sentence on the trials that cannot be drawn; empty where there are none."""
    count = len(tried) - len(valued)
    return f"{count} {'trial has' if count == 1 else 'trials have'} no value and cannot be shown." if count else ""


def key(tried: Sequence[Tried], valued: Sequence[Tried], ringed: bool) -> tuple[list[Artist], list[str]]:
    """Handles and labels: the methods, and where `ringed` what hollow markers and rings mean."""
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
