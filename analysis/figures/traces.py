"""Axes and traces of charts, as plotly.js reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from analysis.figures.scales import ZERO_AT, Scale

Chart = dict[str, Any]
"""Keys: traces, series, panels, rows, marks, columns, seeds and note.

traces: plotly's, each with `legendgroup`, the place of its series as text, and `meta.role`.
series: what can be hidden and shown: label, colour, dash and symbol.
panels: the axes of each panel, x and y, see `axis`.
rows: texts above the rows of a figure with one row per item; else None.
marks: vertical lines and areas behind the rows, as low, high and colour.
columns: of parallel coordinates, each with its title and its ticks as place and label; else None.
seeds: whether single seeds are there, and shown at first: none, hidden or shown.
note: a sentence below the figure.
"""

Seeds = Literal["none", "hidden", "shown"]


def chart(
    traces: list[dict[str, Any]],
    series: list[dict[str, str]],
    panels: list[dict[str, Any]],
    *,
    rows: list[list[str]] | None = None,
    marks: Sequence[Mapping[str, Any]] = (),
    columns: Sequence[Mapping[str, Any]] | None = None,
    seeds: Seeds = "none",
    note: str = "",
) -> Chart:
    """A chart of these parts, see `Chart`."""
    return {
        "traces": traces,
        "series": series,
        "panels": panels,
        "rows": rows,
        "marks": list(marks),
        "columns": columns,
        "seeds": seeds,
        "note": note,
    }


def axis(
    title: str,
    low: float,
    high: float,
    *,
    may_be_log: bool = False,
    log_low: float | None = None,
    is_share: bool = False,
) -> dict[str, Any]:
    """An axis of a panel.

    Args:
        title: its name with the unit.
        low, high: its ends.
        may_be_log: whether it can be made logarithmic.
        log_low: the lower end then, by default the same.
        is_share: whether it never leaves 0 to 1.
    """
    return {
        "title": title,
        "low": low,
        "high": high,
        "may_be_log": may_be_log,
        "log_low": low if log_low is None else log_low,
        "log_high": high,
        "is_log": False,
        "zero": None,
        "ticks": None,
        "is_integer": False,
        "is_share": is_share,
    }


def setting_axis(title: str, scale: Scale) -> dict[str, Any]:
    """The axis of a setting, which shows what was searched.

    Where it is logarithmic it has ticks, and the value 0 has a place of its own.
    """
    rim = 0.06
    if not scale.low < scale.high:
        half = abs(scale.low) / 2 or 0.5
        return axis(title, scale.low - half, scale.high + half)
    lowest = 0.0 if scale.zero else scale.low
    span = scale.high - lowest
    made = axis(title, lowest - rim * span, scale.high + rim * span, may_be_log=scale.log)
    if not scale.log:
        return made
    return made | {
        "is_log": True,
        "log_low": scale.coordinate((ZERO_AT if scale.zero else 0.0) - rim),
        "log_high": scale.coordinate(1 + rim),
        "zero": scale.coordinate(ZERO_AT) if scale.zero else None,
        "ticks": [[value, label] for value, label in scale.ticks(4).items()],
    }


def rows_panel(x: dict[str, Any], count: int) -> dict[str, Any]:
    """The panel of a chart with one row per item."""
    return {"x": x, "y": axis("", count - 1, 0)}


def trace(group: int, role: str, panel: int, x: Sequence[float], y: Sequence[float]) -> dict[str, Any]:
    """A trace of plotly with what all have.

    Numbers that are not finite are None.
    """
    number = "" if panel == 0 else str(panel + 1)
    return {
        "type": "scatter",
        "x": _known(x),
        "y": _known(y),
        "xaxis": f"x{number}",
        "yaxis": f"y{number}",
        "legendgroup": str(group),
        "meta": {"role": role},
    }


def points(
    group: int, x: Sequence[float], y: Sequence[float], texts: Sequence[str], marker: dict[str, Any]
) -> dict[str, Any]:
    """Points that are told by their texts, html."""
    look = {"mode": "markers", "marker": marker, "text": list(texts), "hovertemplate": "%{text}<extra></extra>"}
    return trace(group, "value", 0, x, y) | look


def line(group: int, x: Sequence[float], y: Sequence[float], colour: str, width: float) -> dict[str, Any]:
    """A line that cannot be pointed at."""
    look = {"mode": "lines", "line": {"color": colour, "width": width}, "hoverinfo": "skip"}
    return trace(group, "interval", 0, x, y) | look


def intervals(group: int, lows: Sequence[float], highs: Sequence[float], colour: str, first: int = 0) -> dict[str, Any]:
    """The known intervals of rows as one trace.

    They begin at the row `first`.
    """
    x: list[float] = []
    y: list[float] = []
    for place, (low, high) in enumerate(zip(lows, highs, strict=True), first):
        if math.isfinite(low) and math.isfinite(high):
            x += [low, high, math.nan]
            y += [place, place, math.nan]
    return line(group, x, y, colour, 2)


def area(
    group: int, x: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str, opacity: float
) -> dict[str, Any]:
    """The band of an interval.

    It has one outline for each stretch where the interval is known.
    """
    along: list[float] = []
    across: list[float] = []
    known = [math.isfinite(one) and math.isfinite(other) for one, other in zip(low, high, strict=True)]
    start = 0
    while start < len(known):
        if not known[start]:
            start += 1
            continue
        end = start
        while end < len(known) and known[end]:
            end += 1
        stretch = range(start, end)
        along += [*(x[at] for at in stretch), *(x[at] for at in reversed(stretch)), math.nan]
        across += [*(high[at] for at in stretch), *(low[at] for at in reversed(stretch)), math.nan]
        start = end
    return trace(group, "interval", 0, along[:-1], across[:-1]) | {
        "mode": "lines",
        "line": {"color": colour, "width": 0.5},
        "fill": "toself",
        "fillcolor": colour,
        "opacity": opacity,
        "hoverinfo": "skip",
    }


def _known(values: Sequence[float]) -> list[float | None]:
    """Plain numbers, None where not finite, as JSON has no NaN."""
    plain = np.asarray(values, dtype=float).tolist()
    return [(int(value) if value.is_integer() else value) if math.isfinite(value) else None for value in plain]
