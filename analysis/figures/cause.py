"""Change of the outcome against change of sharpness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.figures import layout
from analysis.figures.comparisons import MARGIN_COLOUR
from analysis.figures.style import INCHES, INK, POINTS, QUIET, SMALLEST_POINTS, Size, colours, markers, new_figure, save

PANEL_INCHES: dict[Size, float] = {"wide": 4.4, "narrow": 3.2}
MARKER_SIZE: dict[Size, float] = {"wide": 42.0, "narrow": 26.0}


@dataclass(frozen=True)
class Way:
    """One way to change sharpness.

    Attributes:
        kind: decides colour and marker; ways of one kind are joined.
        label: of the kind, for the legend.
        value: written beside the point; "" for nothing.
        sharpening: doublings of sharpness against the baseline: mean and both ends of the interval.
        outcome: accuracy minus the baseline's, a share: mean and both ends of the interval.
        is_hollow: drawn hollow: a control, or another change than of sharpness.
    """

    kind: str
    label: str
    value: str
    sharpening: tuple[float, float, float]
    outcome: tuple[float, float, float]
    is_hollow: bool = False


def ways(
    path: Path,
    title: str,
    points: Sequence[Way],
    slope: tuple[float, float, float] | None,
    baseline: str,
    outcome: str,
    margin: float,
    size: Size,
) -> None:
    """A point with two intervals for each way.

    Args:
        path: of the PNG to write.
        title: of the figure.
        points: ways of one kind in the order in which they are joined.
        slope: of the line through 0, accuracy per doubling, and both ends of its interval, NaN if unknown; None: no line.
        baseline: what changes are against.
        outcome: what is measured, with its unit.
        margin: changes from -margin to margin do not matter, a share.
        size: wide or narrow.

    Raises:
        ValueError: there is no point.
    """
    save(_draw(title, points, slope, baseline, outcome, margin, size), path)


FAR = 3.0
"""Other changes more than so many times as far out as all that is judged are named instead of drawn."""


def _near(points: Sequence[Way]) -> tuple[list[Way], list[Way]]:
    """What is drawn, and what is too far out to be drawn with the rest."""
    judged = [point for point in points if not point.is_hollow]
    reach = [FAR * max((abs(end) for p in judged for end in (of(p)[0],)), default=math.inf) for of in (_x, _y)]
    far = [
        point
        for point in points
        if point.is_hollow and any(abs(of(point)[0]) > most > 0 for of, most in zip((_x, _y), reach, strict=True))
    ]
    return [point for point in points if point not in far], far


def _signed(value: float) -> str:
    """A change with its sign."""
    return f"{value:+.3g}".replace("-", "−") if value else "0"


def _draw(
    title: str,
    points: Sequence[Way],
    slope: tuple[float, float, float] | None,
    baseline: str,
    outcome: str,
    margin: float,
    size: Size,
) -> Figure:
    if not points:
        raise ValueError("There is no way to draw.")
    points, far = _near(points)
    figure = new_figure(size)
    layout.title(figure, title, size)
    axes = figure.add_subplot()
    layout.plain(axes, size)
    kinds = list(dict.fromkeys(point.kind for point in points))
    every = {point.kind for point in [*points, *far]}  # so that a kind looks the same where another one is too far out
    colour, marker = colours(every), markers(every)
    xs, ys = ([0.0, *(end for point in points for end in ends(point) if math.isfinite(end))] for ends in (_x, _y))
    reach = _limits(xs), _limits([*ys, -margin, margin])
    axes.set_xlim(*reach[0])
    axes.set_ylim(*reach[1])
    axes.axhspan(-margin, margin, color=MARGIN_COLOUR, alpha=0.6, linewidth=0, zorder=0)
    axes.axhline(0, color=INK, linewidth=0.8, zorder=1)
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    if slope is not None:
        _line(axes, reach[0], slope)
    for kind in kinds:
        own = [point for point in points if point.kind == kind]
        look = colour[kind]
        if len(own) > 1:
            axes.plot([p.sharpening[0] for p in own], [p.outcome[0] for p in own], color=look, linewidth=0.9, alpha=0.5)
        for point in own:
            (x, *across), (y, *up) = point.sharpening, point.outcome
            axes.plot(across, [y, y], color=look, linewidth=1.1, zorder=3)
            axes.plot([x, x], up, color=look, linewidth=1.1, zorder=3)
            face = "white" if point.is_hollow else look
            axes.scatter([x], [y], MARKER_SIZE[size], marker=marker[kind], facecolors=face, edgecolors=look, zorder=4)
    layout.name_axes(
        figure,
        axes,
        f"sharpness at the onset against {baseline} (factor of the largest eigenvalue)",
        f"{outcome}, minus {baseline}",
        INCHES[size] - 0.6,
        size,
    )
    count, is_broad = 7 if size == "wide" else 4, reach[0][1] - reach[0][0] > 2
    axes.xaxis.set_major_locator(MaxNLocator(count, integer=is_broad, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(_factor))
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _signed(value)))
    handles: list[Artist] = [
        Line2D(
            [],
            [],
            color=colour[kind],
            marker=marker[kind],
            linestyle="none",
            markersize=6,
            markerfacecolor=_face(kind, points, colour[kind]),
        )
        for kind in kinds
    ]
    labels = list({point.kind: point.label for point in points}.values())
    if slope is not None:
        handles.append(Line2D([], [], color=QUIET, linestyle="--"))
        labels.append("line through 0, with its interval" if math.isfinite(slope[1]) else "line through 0")
    handles.append(Patch(facecolor=MARGIN_COLOUR))
    labels.append(f"changes that do not matter (±{margin:g})")
    hollow = any(point.is_hollow for point in points)
    note = "Bars: 95 % intervals over seeds, in both directions." + (
        " Hollow: controls and other changes." if hollow else ""
    )
    if far:
        where = "; ".join(f"{p.label} at {_factor(p.sharpening[0], 0)}, {_signed(p.outcome[0])}" for p in far)
        note += f" Outside the picture: {where}."
    layout.legend(figure, handles, labels, size, note)
    layout.fit_height(figure, [axes], PANEL_INCHES[size])
    _values(figure, axes, points, colour, size)
    return figure


def _x(point: Way) -> tuple[float, float, float]:
    return point.sharpening


def _y(point: Way) -> tuple[float, float, float]:
    return point.outcome


def _face(kind: str, points: Sequence[Way], colour: str) -> str:
    """The colour in the legend: white if all points of the kind are hollow."""
    return "white" if all(point.is_hollow for point in points if point.kind == kind) else colour


def _limits(values: Sequence[float]) -> tuple[float, float]:
    rim = 0.08 * (max(values) - min(values)) or 0.1
    return min(values) - rim, max(values) + rim


def _line(axes: Axes, reach: tuple[float, float], slope: tuple[float, float, float]) -> None:
    x = np.array([reach[0], 0.0, reach[1]])
    axes.plot(x, slope[0] * x, color=QUIET, linestyle="--", linewidth=1.2, zorder=2)
    if math.isfinite(slope[1]) and math.isfinite(slope[2]):
        axes.fill_between(x, slope[1] * x, slope[2] * x, color=QUIET, alpha=0.15, linewidth=0, zorder=1)


Box = tuple[float, float, float, float]
"""Left, bottom, right and top, inches."""


def _values(figure: Figure, axes: Axes, points: Sequence[Way], colour: dict[str, str], size: Size) -> None:
    """Writes values beside their points, unless there is no room.

    The figure has its final height.
    """
    letters = POINTS[size] - 1 if size == "wide" else SMALLEST_POINTS
    half, gap, high = MARKER_SIZE[size] ** 0.5 / 2 / 72, 0.03, 1.25 * letters / 72
    frame = axes.get_window_extent()
    inside: Box = tuple(float(edge) / figure.dpi for edge in frame.extents)  # type: ignore[assignment]
    marks = axes.transData.transform([(point.sharpening[0], point.outcome[0]) for point in points]) / figure.dpi
    taken: list[Box] = [(x - half, y - half, x + half, y + half) for x, y in marks]
    for point, (x, y) in zip(points, marks, strict=True):
        if not point.value:
            continue
        wide = layout.text_width(figure, point.value, letters)
        right, left, above, below = x + half + gap, x - half - gap - wide, y + half + gap, y - half - gap - high
        places = [
            (right, above),
            (left, above),
            (right, below),
            (left, below),
            (right, y - high / 2),
            (left, y - high / 2),
        ]
        boxes = [(across, up, across + wide, up + high) for across, up in places]
        free = [box for box in boxes if _holds(inside, box) and not any(_overlap(box, other) for other in taken)]
        if free:
            taken.append(free[0])
            axes.annotate(
                point.value,
                (free[0][0] * figure.dpi, free[0][1] * figure.dpi),
                xycoords="figure pixels",
                fontsize=letters,
                color=colour[point.kind],
                va="bottom",
                bbox={"facecolor": "white", "alpha": 0.7, "pad": 0.3, "linewidth": 0},
                in_layout=False,
                zorder=5,
            )


def _holds(outer: Box, inner: Box) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


def _overlap(one: Box, other: Box) -> bool:
    return min(one[2], other[2]) > max(one[0], other[0]) and min(one[3], other[3]) > max(one[1], other[1])


def _factor(doublings: float, _: object) -> str:
    """Doublings as a factor: ×2, ×1/4, ×1.41."""
    power = round(doublings)
    if abs(doublings - power) > 1e-6:
        return f"×{2**doublings:.3g}"
    if abs(power) > 10:
        return f"×2^{power}".replace("-", "−")
    return f"×{2**power}" if power >= 0 else f"×1/{2**-power}"
