"""Incumbents of a search against trials spent: tuned and confirmed."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from analysis.figures import layout
from analysis.figures.charts import SYMBOLS
from analysis.figures.style import INCHES, Size, colours, markers, new_figure, save
from analysis.figures.traces import Chart, area, axis, chart, trace

CONFIRMED: Final = "confirmed: test accuracy on fresh seeds (share)"
SPENT: Final = "trials spent"
PANEL_INCHES: Final[dict[Size, float]] = {"wide": 2.9, "narrow": 2.0}
NOTE: Final = "Each mark: the trial that became the best so far. Bands: 95 % intervals over seeds."
CUT: Final = " The axes span what held in the second half of the search; what lies beyond them is cut off."


@dataclass(frozen=True)
class Steps:
    """The incumbents of one method.

    Attributes:
        method: its name; decides colour and marker.
        spent: number of trials when each became the incumbent, rising.
        trials: number of trials at the end.
        names: the settings of each, in words.
        tuned: the objective of each; finite.
        mean, low, high: test accuracy of each on fresh seeds with its interval, share; NaN where unknown.
    """

    method: str
    spent: Sequence[int]
    trials: int
    names: Sequence[str]
    tuned: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def steps(path: Path, title: str, methods: Sequence[Steps], objective: str, size: Size) -> None:
    """Two panels over trials spent: tuned and confirmed.

    Args:
        path: of the file to write.
        title: of the figure.
        methods: a line each, in both panels.
        objective: what was tuned, with its unit.
        size: wide or narrow.

    Raises:
        ValueError: there is no method, or one without an incumbent.
    """
    save(_draw_steps(title, methods, objective, size), path)


def steps_chart(methods: Sequence[Steps], objective: str) -> Chart:
    """The same as a chart, of the same arguments."""
    colour, marker = colours(one.method for one in methods), markers(one.method for one in methods)
    x = axis(SPENT, *_span(methods), may_be_log=True, log_low=0.95) | {"is_integer": True}
    panels = [
        {"x": x, "y": axis(panel.label, *panel.limits, is_share=panel.is_share), "own_y": True}
        for panel in _panels(methods, objective)
    ]
    traces = []
    for group, one in enumerate(methods):
        look, name = colour[one.method], html.escape(one.method)
        for place, values in enumerate((one.tuned, one.mean)):
            if place:
                along, low, high = _stairs(one, one.low, one.high)
                band = area(group, along, low, high, look, min(0.18, 1.2 / len(methods)))
                traces.append(band | {"xaxis": "x2", "yaxis": "y2"})
            bounds = [_bounds(*ends) if place else "" for ends in zip(one.low, one.high, strict=True)]
            texts = [
                f"<b>{name}</b> {html.escape(words)}<br>after {spent} of {one.trials} trials: {value:.4f}{bound}"
                for words, spent, value, bound in zip(one.names, one.spent, values, bounds, strict=True)
            ]
            line = trace(group, "interval", place, *_stairs(one, values)) | {
                "mode": "lines",
                "line": {"color": look, "width": 2},
                "hoverinfo": "skip",
            }
            marks = trace(group, "value", place, one.spent, values) | {
                "mode": "markers",
                "marker": {"color": look, "symbol": SYMBOLS[marker[one.method]], "size": 8},
                "text": texts,
                "customdata": [f"{group} {number}" for number in range(len(one.spent))],
                "hovertemplate": "%{text}<extra></extra>",
            }
            traces += [line, marks]
    series = [
        {"label": m, "colour": colour[m], "dash": "solid", "symbol": SYMBOLS[marker[m]]}
        for m in (one.method for one in methods)
    ]
    return chart(traces, series, panels, note=_note(methods, objective))


def _draw_steps(title: str, methods: Sequence[Steps], objective: str, size: Size) -> Figure:
    if not methods or not all(one.spent for one in methods):
        raise ValueError("There is no incumbent to draw.")
    colour, marker = colours(one.method for one in methods), markers(one.method for one in methods)
    figure = new_figure(size)
    layout.title(figure, title, size)
    rows, columns = (1, 2) if size == "wide" else (2, 1)
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    room = (INCHES[size] - 0.6) / columns - 0.2
    for place, (axes, panel) in enumerate(zip(panels, _panels(methods, objective), strict=True)):
        layout.plain(axes, size, grid="y")
        layout.name_axes(figure, axes, SPENT, panel.label, room, size)
        low, high = panel.limits
        for one in methods:
            own, look = one.mean if place else one.tuned, colour[one.method]
            axes.plot(*_stairs(one, own), color=look, linewidth=1.4, zorder=3)
            inside = [(spent, value) for spent, value in zip(one.spent, own, strict=True) if low <= value <= high]
            mark: dict[str, Any] = {"marker": marker[one.method], "markersize": 5, "zorder": 4, "clip_on": False}
            if inside:  # an unclipped line without points would be given all the room
                axes.plot([x for x, _ in inside], [y for _, y in inside], color=look, linestyle="none", **mark)
            if place:
                alpha = min(0.15, 1 / len(methods))
                x, *ends = _stairs(one, one.low, one.high)
                axes.fill_between(x, ends[0], ends[1], color=look, alpha=alpha, linewidth=0)
        axes.set_ylim(low, high)
        axes.set_xlim(*_span(methods))
        axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    handles: list[Artist] = [
        Line2D([], [], color=colour[one.method], marker=marker[one.method], markersize=5) for one in methods
    ]
    layout.legend(figure, handles, [one.method for one in methods], size, _note(methods, objective))
    layout.fit_height(figure, panels[::columns], PANEL_INCHES[size] * rows)
    return figure


@dataclass(frozen=True)
class _Panel:
    """A panel: its name, its values, and those its axis spans."""

    label: str
    values: Sequence[float]
    late: Sequence[float]

    @property
    def limits(self) -> tuple[float, float]:
        """The ends of its axis."""
        return layout.limits(self.late) if self.late else (0.0, 1.0)

    @property
    def is_share(self) -> bool:
        """Whether all values are shares."""
        return all(0 <= value <= 1 for value in self.values)

    @property
    def is_cut(self) -> bool:
        """Whether values lie beyond its axis."""
        low, high = self.limits
        return not all(low <= value <= high for value in self.values)


def _panels(methods: Sequence[Steps], objective: str) -> tuple[_Panel, _Panel]:
    """The panels of what was tuned and what was confirmed.

    A first incumbent is often far below the others, and what is lost later could not be seen beside it. So the axes span what
    held in the second half of the search.
    """
    tuned: tuple[list[float], list[float]] = [], []
    confirmed: tuple[list[float], list[float]] = [], []
    for one in methods:
        ends = [*one.spent[1:], one.trials]
        for end, value, *known in zip(ends, one.tuned, one.mean, one.low, one.high, strict=True):
            shares = [min(1.0, max(0.0, share)) for share in known if math.isfinite(share)]
            for values, more in ((tuned, [value]), (confirmed, shares)):
                values[0].extend(more)
                if 2 * end > one.trials:
                    values[1].extend(more)
    return _Panel(f"tuned: {objective}", *tuned), _Panel(CONFIRMED, *confirmed)


def _note(methods: Sequence[Steps], objective: str) -> str:
    """The sentences below the figure."""
    return NOTE + (CUT if any(panel.is_cut for panel in _panels(methods, objective)) else "")


def _span(methods: Sequence[Steps]) -> tuple[float, float]:
    """The ends of the axes of trials."""
    most = max(one.trials for one in methods)
    rim = 0.02 * (most - 1) or 0.5
    return 1 - rim, most + rim


def _stairs(one: Steps, *rows: Sequence[float]) -> list[list[float]]:
    """The corners of each row's stairs: x, then the rows.

    A value holds until the next incumbent, the last to the end.
    """
    ends = [*one.spent[1:], one.trials]
    x = [float(end) for pair in zip(one.spent, ends, strict=True) for end in pair]
    return [x, *([value for value in row for _ in range(2)] for row in rows)]


def _bounds(low: float, high: float) -> str:
    return f" [{low:.4f}, {high:.4f}]" if math.isfinite(low) and math.isfinite(high) else ", interval unknown"
