"""Figures that answer to the pointer, as plotly.js draws them.

Each takes the very data that the static figure of the same name takes, so that both show the same numbers. A chart is data, ready
for JSON: plotly's traces, and what `analysis/report/page.js` needs to lay them out for the width and the colours of the page.
Hover texts are plotly's own small HTML, so names from outside are escaped in them.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from analysis.figures import layout, parallel
from analysis.figures.accuracy import Band, Spent, places
from analysis.figures.comparisons import MARGIN_COLOUR, Confirmed, Difference, Score, in_words, signed
from analysis.figures.diagnostics import Trajectory, extent
from analysis.figures.scales import short
from analysis.figures.search import Searched, Tried, scale_of, settings_and_valued, without_value
from analysis.figures.style import INK, colours, markers
from analysis.figures.traces import (
    Chart,
    Seeds,
    area,
    axis,
    chart,
    intervals,
    line,
    points,
    rows_panel,
    setting_axis,
    trace,
)

SYMBOLS: Final = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
    "<": "triangle-left",
    ">": "triangle-right",
    "p": "pentagon",
    "h": "hexagon",
    "*": "star",
}
"""plotly's names of matplotlib's markers."""

DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdashdot", "longdash")
"""plotly's names of `style.LINE_STYLES`."""

TASK: Final = "task (index in order of training)"


def accuracy_by_task(bands: Sequence[Band]) -> Chart:
    """Mean test accuracy per task, with bands and seeds."""
    return _over_tasks(bands, "test accuracy (share)")


def difference_by_task(bands: Sequence[Band], baseline: str) -> Chart:
    """Accuracy minus a baseline's per task, with bands."""
    return _over_tasks(bands, f"test accuracy minus that of {baseline} (share)", lowest=-1.0)


def accuracy_by_gradient_evaluations(curves: Sequence[Spent]) -> Chart:
    """Mean test accuracy against gradient evaluations spent."""
    counts = [count for curve in curves for count in curve.gradient_evaluations]
    x = axis("gradient evaluations (per seed)", 0.0, max(counts), may_be_log=True, log_low=0.9 * min(counts))
    spent = [list(curve.gradient_evaluations) for curve in curves]
    return _curves(curves, spent, "%{x:,} gradient evaluations", x, "test accuracy (share)", 0.0)


def settings_scatter(tried: Sequence[Tried], value_label: str, searched: Searched = MappingProxyType({})) -> Chart:
    """The value of every trial, a panel for each setting.

    The arguments are those of `search.settings_scatter`.
    """
    names, valued = settings_and_valued(tried)
    methods = list(dict.fromkeys(trial.method for trial in tried))
    colour, marker = colours(methods), markers(methods)
    texts = {id(trial): _described(trial, value_label) for trial in valued}
    traces, panels = [], []
    low, high = layout.limits([trial.value for trial in valued])
    of_shares = all(0 <= trial.value <= 1 for trial in valued)
    for place, name in enumerate(names):
        panels.append(
            {
                "x": setting_axis(name, scale_of(name, tried, searched)),
                "y": axis(value_label, low, high, may_be_log=low > 0, is_share=of_shares),
            }
        )
        for group, method in enumerate(methods):
            chosen = [
                trial
                for trial in valued
                if trial.method == method and math.isfinite(trial.settings.get(name, math.nan))
            ]
            if not chosen:
                continue
            symbols = [SYMBOLS[marker[method]] + ("" if trial.finished else "-open") for trial in chosen]
            traces.append(
                trace(group, "trial", place, [trial.settings[name] for trial in chosen], [t.value for t in chosen])
                | {
                    "mode": "markers",
                    "marker": {"color": colour[method], "symbol": symbols, "size": 8},
                    "text": [texts[id(trial)] for trial in chosen],
                    "customdata": [valued.index(trial) for trial in chosen],
                    "hovertemplate": "%{text}<extra></extra>",
                }
            )
            if finished := [trial for trial in chosen if trial.finished]:
                best = max(finished, key=lambda trial: trial.score)
                ring = {"color": INK, "symbol": "circle-open", "size": 16, "line": {"width": 2}}
                traces.append(
                    trace(group, "ring", place, [best.settings[name]], [best.value])
                    | {"mode": "markers", "marker": ring, "hoverinfo": "skip"}
                )
    series = [{"label": m, "colour": colour[m], "dash": "", "symbol": SYMBOLS[marker[m]]} for m in methods]
    note = "Ring: the best finished trial of its method."
    if any(not trial.finished for trial in valued):
        note += " Hollow: stopped early."
    return chart(traces, series, panels, note=f"{note} {without_value(tried, valued)}".strip())


def parallel_coordinates(tried: Sequence[Tried], value_label: str, searched: Searched = MappingProxyType({})) -> Chart:
    """Every trial as a line through its settings.

    The arguments are those of `parallel.parallel_coordinates`. Traces have places on the scales, from 0 to 1; texts have values.
    """
    names, valued = settings_and_valued(tried)
    scales = parallel.scales_of(names, valued, searched)
    methods = list(dict.fromkeys(trial.method for trial in tried))
    colour = colours(methods)
    traces = []
    for trial in sorted(valued, key=lambda trial: trial.score):
        along, strength = parallel.places(trial, names, scales)
        text = _described(trial, value_label)
        traces.append(
            trace(methods.index(trial.method), "trial", 0, list(range(len(scales))), along)
            | {
                "mode": "lines+markers",
                "line": {"color": colour[trial.method], "width": 1.5},
                "marker": {"color": colour[trial.method], "size": 4},
                "opacity": strength,
                "text": [text] * len(scales),
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    columns = []
    for place, (scale, title) in enumerate(zip(scales, [*names, value_label], strict=True)):
        ticks = [[scale.place(value), text] for value, text in scale.ticks(5).items()]
        if place < len(names) and parallel.is_absent(names[place], valued):
            ticks.append([parallel.NONE_AT, "none"])
        columns.append({"title": title, "ticks": ticks})
    low = parallel.lowest_place(names, valued, scales) - 0.04
    panel = {"x": axis("", -0.3, len(scales) - 0.7), "y": axis("", low, 1.04)}
    word = "lower" if any(trial.falling for trial in valued) else "higher"
    note = f"One line per trial: the {word} its value, the stronger. {without_value(tried, valued)}".strip()
    series = [{"label": m, "colour": colour[m], "dash": "solid", "symbol": "circle"} for m in methods]
    return chart(traces, series, [panel], columns=columns, note=note)


def trajectories(panels: Mapping[str, Sequence[Trajectory]]) -> Chart:
    """A panel per diagnostic with a line per setting.

    The argument is that of `diagnostics.trajectories`.
    """
    first = next(iter(panels.values()))
    colour, marker = colours(one.method for one in first), markers(one.method for one in first)
    traces, drawn = [], []
    most = max((task + 1 for lines in panels.values() for one in lines for task in one.tasks), default=1)
    for number, (name, lines) in enumerate(panels.items()):
        values = _finite([float(value) for one in lines for value in one.values])
        low, high, is_log = extent(values, is_share=name.endswith("(share)"))
        y = axis(name, low, high, may_be_log=min(values, default=0) > 0) | {"is_log": is_log}
        rim = 0.02 * most
        drawn.append({"x": axis("task", 1 - rim, most + rim) | {"is_integer": True}, "y": y, "own_y": True})
        for group, (one, place) in enumerate(zip(lines, places(lines), strict=True)):
            look, label = colour[one.method], html.escape(one.label)
            traces.append(
                trace(group, "value", number, [task + 1 for task in one.tasks], one.values)
                | {
                    "mode": "lines+markers",
                    "line": {"color": look, "width": 1.5, "dash": DASHES[place % len(DASHES)]},
                    "marker": {"color": look, "symbol": SYMBOLS[marker[one.method]], "size": 5, "maxdisplayed": 7},
                    "hovertemplate": f"<b>{label}</b><br>task %{{x}}: %{{y:.4g}}<extra></extra>",
                }
            )
    series = [
        {
            "label": o.label,
            "colour": colour[o.method],
            "dash": DASHES[n % len(DASHES)],
            "symbol": SYMBOLS[marker[o.method]],
        }
        for o, n in zip(first, places(first), strict=True)
    ]
    return chart(traces, series, drawn, note="Means over seeds.")


def differences(rows: Sequence[Difference], unit: str, margin: float | None, note: str = "") -> Chart:
    """Paired differences with their intervals, one row each.

    The arguments are those of `comparisons.differences`.
    """
    means, lows, highs = ([getattr(row, name) for row in rows] for name in ("mean", "low", "high"))
    texts = [f"<b>{html.escape(row.label)}</b><br>{html.escape(in_words(row))}" for row in rows]
    series = {"label": "mean with its 95 % interval", "colour": INK, "dash": "solid", "symbol": "square"}
    traces = [
        intervals(0, lows, highs, INK),
        points(0, means, list(range(len(rows))), texts, {"color": INK, "symbol": "square", "size": 9}),
    ]
    marks = [{"low": 0.0, "high": 0.0, "colour": INK}]
    extent = [0.0, *_finite([*means, *lows, *highs])]
    if margin is not None:
        extent += [-margin, margin]
        marks.insert(0, {"low": -margin, "high": margin, "colour": MARGIN_COLOUR})
        note = f"Shaded: the equivalence margin ±{margin:g} ({unit}). {note}".strip()
    rim = 0.06 * (max(extent) - min(extent)) or 0.01
    x = axis(f"difference ({unit})", min(extent) - rim, max(extent) + rim)
    labels = [[row.label, in_words(row)] for row in rows]
    return chart(traces, [series], [rows_panel(x, len(rows))], rows=labels, marks=marks, note=note)


def scores(rows: Sequence[Score], unit: str) -> Chart:
    """A score with its interval and seeds, one row each.

    The arguments are those of `comparisons.scores`.
    """
    colour, marker = colours(row.method for row in rows), markers(row.method for row in rows)
    methods = list(dict.fromkeys(row.method for row in rows))
    traces = []
    for place, row in enumerate(rows):
        group, look = methods.index(row.method), colour[row.method]
        text = f"<b>{html.escape(row.label)}</b><br>{row.mean:.4f}{_bounds(row.low, row.high)}"
        seeds = [f"{html.escape(row.label)}<br>seed {seed}: {value:.4f}" for seed, value in row.seeds.items()]
        below = [place + 0.2] * len(seeds)
        dots = {"color": look, "size": 5, "opacity": 0.6}
        traces += [
            intervals(group, [row.low], [row.high], look, place),
            points(
                group, [row.mean], [place], [text], {"color": look, "symbol": SYMBOLS[marker[row.method]], "size": 10}
            ),
            points(group, list(row.seeds.values()), below, seeds, dots) | {"meta": {"role": "seed"}},
        ]
    series = [{"label": m, "colour": colour[m], "dash": "", "symbol": SYMBOLS[marker[m]]} for m in methods]
    low, high = layout.share_limits([v for row in rows for v in (row.mean, row.low, row.high, *row.seeds.values())])
    panel = rows_panel(axis(unit, low, high, may_be_log=low > 0, is_share=True), len(rows))
    labels = [[row.label, f"{row.mean:.4f}{_bounds(row.low, row.high)}"] for row in rows]
    note = "Large: the mean, with its 95 % interval. Small: single seeds."
    return chart(traces, series, [panel], rows=labels, seeds="shown", note=note)


def tuned_and_confirmed(rows: Sequence[Confirmed]) -> Chart:
    """One row per setting: tuned, confirmed, and the gap."""
    colour, marker = colours(row.method for row in rows), markers(row.method for row in rows)
    methods = list(dict.fromkeys(row.method for row in rows))
    traces = []
    for place, row in enumerate(rows):
        group, look = methods.index(row.method), colour[row.method]
        name, symbol = html.escape(row.label), SYMBOLS[marker[row.method]]
        gap = line(group, [row.tuned, row.confirmed], [place, place], look, 5) | {"opacity": 0.3}
        words = f"<b>{name}</b><br>confirmed: {row.confirmed:.4f}{_bounds(row.low, row.high)}"
        filled, hollow = ({"color": look, "symbol": symbol + end, "size": 10} for end in ("", "-open"))
        traces += [
            gap,
            intervals(group, [row.low], [row.high], look, place),
            points(group, [row.confirmed], [place], [words], filled),
            points(group, [row.tuned], [place], [f"<b>{name}</b><br>tuned: {row.tuned:.4f}"], hollow),
        ]
    series = [{"label": m, "colour": colour[m], "dash": "", "symbol": SYMBOLS[marker[m]]} for m in methods]
    low, high = layout.share_limits([v for row in rows for v in (row.tuned, row.confirmed, row.low, row.high)])
    panel = rows_panel(axis("accuracy (share)", low, high, may_be_log=low > 0, is_share=True), len(rows))
    labels = [[row.label, f"gap {signed(row.tuned - row.confirmed)}"] for row in rows]
    note = "Hollow: tuned, on the seeds of the search. Filled: confirmed on fresh seeds, with its 95 % interval."
    return chart(traces, series, [panel], rows=labels, note=note)


def importance(shares: Mapping[str, Mapping[str, float]]) -> Chart:
    """How much of the objective's variance each setting explains.

    The argument is that of `search.importance`.
    """
    colour, methods = colours(shares), list(shares)
    items = [
        (method, name, share)
        for method, group in shares.items()
        for name, share in sorted(group.items(), key=lambda item: -item[1] if math.isfinite(item[1]) else math.inf)
    ]
    traces = [
        trace(methods.index(method), "value", 0, [share], [place])
        | {
            "type": "bar",
            "orientation": "h",
            "width": 0.35,
            "marker": {"color": colour[method]},
            "text": [f"{html.escape(f'{method}: {name}')}<br>{_share(share)}"],
            "textposition": "none",
            "hovertemplate": "%{text}<extra></extra>",
        }
        for place, (method, name, share) in enumerate(items)
    ]
    series = [{"label": method, "colour": colour[method], "dash": "", "symbol": "square"} for method in methods]
    panel = rows_panel(axis("importance (share of the objective's variance explained)", 0.0, 1.0), len(items))
    return chart(traces, series, [panel], rows=[[f"{method}: {name}", _share(share)] for method, name, share in items])


def _over_tasks(bands: Sequence[Band], y: str, lowest: float = 0.0) -> Chart:
    tasks = [list(range(1, len(band.mean) + 1)) for band in bands]
    most = max(len(own) for own in tasks)
    rim = 0.02 * (most - 1) or 0.5
    x = axis(TASK, 1 - rim, most + rim, may_be_log=True, log_low=0.95) | {"is_integer": True}
    return _curves(bands, tasks, "task %{x}", x, y, lowest)


def _curves(
    bands: Sequence[Band | Spent],
    positions: Sequence[Sequence[float]],
    where: str,
    x: dict[str, Any],
    y: str,
    lowest: float,
) -> Chart:
    """Means with bands and, where there are any, lanes."""
    colour, marker = colours(band.method for band in bands), markers(band.method for band in bands)
    traces, series = [], []
    seeds: Seeds = "none"
    for group, (band, along, place) in enumerate(zip(bands, positions, places(bands), strict=True)):
        look, name = colour[band.method], html.escape(band.label)
        dash = DASHES[place % len(DASHES)]
        symbol = SYMBOLS[marker[band.method]] + ("" if place < len(DASHES) else "-open")
        series.append({"label": band.label, "colour": look, "dash": dash, "symbol": symbol})
        traces.append(area(group, along, band.low, band.high, look, min(0.18, 1.2 / len(bands))))
        for seed, lane in (band.lanes if isinstance(band, Band) else {}).items():
            seeds = "hidden"
            traces.append(
                trace(group, "seed", 0, along, lane)
                | {
                    "mode": "lines",
                    "line": {"color": look, "width": 1},
                    "opacity": 0.5,
                    "hovertemplate": f"{name}<br>seed {seed}, {where}: %{{y:.4f}}<extra></extra>",
                }
            )
        traces.append(
            trace(group, "value", 0, along, band.mean)
            | {
                "mode": "lines+markers",
                "line": {"color": look, "width": 2, "dash": dash},
                "marker": {"color": look, "symbol": symbol, "size": 7, "maxdisplayed": 9},
                "text": [_bounds(low, high) for low, high in zip(band.low, band.high, strict=True)],
                "hovertemplate": f"<b>{name}</b><br>{where}: %{{y:.4f}}%{{text}}<extra></extra>",
            }
        )
    drawn = np.concatenate([np.asarray(row, dtype=float) for band in bands for row in (band.mean, band.low, band.high)])
    low, high = layout.share_limits(drawn, least=0.02, lowest=lowest)
    panel = {"x": x, "y": axis(y, low, high, may_be_log=low > 0, is_share=lowest == 0)}
    marks = [] if lowest == 0 else [{"across": 0.0, "colour": INK}]
    return chart(
        traces, series, [panel], seeds=seeds, marks=marks, note="Lines: means over seeds. Bands: 95 % intervals."
    )


def _described(trial: Tried, value_label: str) -> str:
    """A trial in full, for its hover text."""
    lines = [f"<b>{html.escape(trial.name or trial.method)}</b>", f"{html.escape(value_label)}: {trial.value:.4f}"]
    settings = {name: value for name, value in trial.settings.items() if math.isfinite(value)}
    lines += [f"{html.escape(name)}: {short(value)}" for name, value in settings.items()]
    return "<br>".join([*lines, *([] if trial.finished else ["stopped early"])])


def _bounds(low: float, high: float) -> str:
    return f" [{low:.4f}, {high:.4f}]" if math.isfinite(low) and math.isfinite(high) else ", interval unknown"


def _share(share: float) -> str:
    return f"{share:.2f}" if math.isfinite(share) else "unknown"


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]
