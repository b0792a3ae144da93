"""Heat maps over two settings, with numbers in the cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from analysis.figures import layout
from analysis.figures.scales import short
from analysis.figures.style import INCHES, INK, POINTS, QUIET, SMALLEST_POINTS, Size, new_figure, save

SEQUENTIAL, DIVERGING = "cividis", "PuOr_r"
ROW_INCHES, BAR_INCHES = 0.27, 0.11
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class HeatMap:
    """Values over a grid.

    Attributes:
        title: of the panel.
        rows: values of the setting on the vertical axis, [row].
        columns: values of the setting on the horizontal axis, [column].
        row_label: the vertical setting with its unit.
        column_label: the horizontal setting with its unit.
        values: [row, column]; NaN where nothing was measured.
        unit: of the values, for the colour bar.
        diverging: whether the colours centre on 0: for differences and declines.
    """

    title: str
    rows: Sequence[float]
    columns: Sequence[float]
    row_label: str
    column_label: str
    values: Sequence[Sequence[float]] | Floats
    unit: str
    diverging: bool

    def turned(self) -> HeatMap:
        """The map with rows and columns exchanged."""
        values = np.asarray(self.values, dtype=float).T
        return HeatMap(
            self.title,
            self.columns,
            self.rows,
            self.column_label,
            self.row_label,
            values,
            self.unit,
            self.diverging,
        )


def heat_maps(path: Path, title: str, maps: Sequence[HeatMap], size: Size) -> None:
    """One panel per map; equal units share a colour scale.

    On the narrow page a map may be turned so that its longer side is vertical, because the numbers need width.

    Args:
        path: of the PNG to write.
        title: of the figure.
        maps: one panel each.
        size: wide or narrow.

    Raises:
        ValueError: there is no map, or a map has no cells or values that are not [row, column].
    """
    save(_draw_heat_maps(title, maps, size), path)


def _draw_heat_maps(title: str, maps: Sequence[HeatMap], size: Size) -> Figure:
    if not maps:
        raise ValueError("There is no heat map to draw.")
    for one in maps:
        shape = (len(one.rows), len(one.columns))
        if 0 in shape or np.asarray(one.values, dtype=float).shape != shape:
            raise ValueError(f"The values of the heat map {one.title!r} are not rows x columns, or it has none.")
    if size == "narrow":
        maps = [one.turned() if len(one.columns) > max(5, len(one.rows)) else one for one in maps]
    figure = new_figure(size)
    layout.title(figure, title, size)
    broadest = max(len(one.columns) for one in maps)
    beside = 1 if size == "narrow" else max(1, min(3, len(maps), int((INCHES[size] - 1) / (broadest * 0.42 + 0.8))))
    lines = [maps[first : first + beside] for first in range(0, len(maps), beside)]
    kinds = list(dict.fromkeys((one.unit, one.diverging) for one in maps))
    norms = {kind: _norm([one for one in maps if (one.unit, one.diverging) == kind]) for kind in kinds}
    shared = len(kinds) == 1
    heights: list[float] = []
    for line in lines:
        heights += [ROW_INCHES * max(len(one.rows) for one in line), *([] if shared else [BAR_INCHES])]
    heights += [BAR_INCHES] if shared else []
    grid = figure.add_gridspec(len(heights), beside, height_ratios=heights)
    room = (INCHES[size] - 0.8) / beside - 0.6
    panels: list[Axes] = []
    stacked: list[Axes] = []
    for number, line in enumerate(lines):
        for place, one in enumerate(line):
            axes = figure.add_subplot(grid[number if shared else 2 * number, place])
            _draw_map(figure, axes, one, norms[one.unit, one.diverging], room, size)
            panels.append(axes)
            below = grid[-1, 0] if shared else grid[2 * number + 1, place]
            if not shared or len(panels) == 1:
                bar = figure.add_subplot(below)
                _draw_colour_bar(figure, bar, norms[one.unit, one.diverging], one, room, size)
                stacked += [bar] if place == 0 else []
            stacked += [axes] if place == 0 else []
    layout.fit_height(figure, stacked, sum(heights))
    written = [
        _write_numbers(figure, axes, one, norms[one.unit, one.diverging], size)
        for axes, one in zip(panels, maps, strict=True)
    ]
    layout.fit_height(figure, stacked, sum(heights) * (1.0 if all(written) else 1.9))
    return figure


def _norm(maps: Sequence[HeatMap]) -> Normalize:
    """The colour limits these maps share; symmetric if diverging."""
    values = np.concatenate([np.asarray(one.values, dtype=float).ravel() for one in maps])
    finite = values[np.isfinite(values)]
    if maps[0].diverging:
        most = float(np.abs(finite).max(initial=0.0)) or 1.0
        return Normalize(-most, most)
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    return Normalize(low, high) if low < high else Normalize(low - 0.005, high + 0.005)


def _colour_map(one: HeatMap) -> Colormap:
    return mpl.colormaps[DIVERGING if one.diverging else SEQUENTIAL]


def _draw_map(figure: Figure, axes: Axes, one: HeatMap, norm: Normalize, room: float, size: Size) -> None:
    """Draws coloured cells and axes; empty cells are hatched."""
    points = POINTS[size]
    values = np.asarray(one.values, dtype=float)
    shown = np.ma.masked_invalid(values)
    axes.imshow(shown, cmap=_colour_map(one), norm=norm, origin="lower", aspect="auto", interpolation="nearest")
    for row, column in np.argwhere(~np.isfinite(values)):
        corner = (float(column) - 0.5, float(row) - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, facecolor="white", edgecolor="#c4c4c4", hatch="////", linewidth=0))
    layout.plain(axes, size, grid="none")
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(values.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(values.shape[0] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0)
    axes.set_yticks(range(len(one.rows)), [short(value) for value in one.rows])
    axes.set_xticks(range(len(one.columns)), [short(value) for value in one.columns])
    above = f"{one.title}\n{one.row_label}" if one.title else one.row_label
    text = "\n".join(layout.wrapped(figure, line, points, room) for line in above.split("\n"))
    axes.set_title(text, loc="left", fontsize=points, color=INK)
    axes.set_xlabel(layout.wrapped(figure, one.column_label, points, room), fontsize=points, color=INK)


def _draw_colour_bar(figure: Figure, bar: Axes, norm: Normalize, one: HeatMap, room: float, size: Size) -> None:
    drawn = figure.colorbar(ScalarMappable(norm, _colour_map(one)), cax=bar, orientation="horizontal")
    drawn.outline.set_visible(False)
    bar.tick_params(labelsize=POINTS[size], colors=QUIET, labelcolor=INK, length=3)
    bar.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    bar.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    bar.set_xlabel(layout.wrapped(figure, one.unit, POINTS[size], room), fontsize=POINTS[size], color=INK)


def _write_numbers(figure: Figure, axes: Axes, one: HeatMap, norm: Normalize, size: Size) -> bool:
    """Writes the values into the cells; returns whether horizontally.

    They are as large as the cell's width allows, and vertical if too small otherwise.
    """
    values = np.asarray(one.values, dtype=float)
    cell = float(axes.get_position().width) * INCHES[size] / values.shape[1]
    if max(layout.text_width(figure, short(value), POINTS[size]) for value in one.columns) > 0.92 * cell:
        axes.tick_params(axis="x", labelrotation=90)
    points, decimals, lying = POINTS[size], 3, False
    for decimals in (3, 2):
        widest = max(layout.text_width(figure, _number(v, decimals, one.diverging), POINTS[size]) for v in values.flat)
        points = POINTS[size] * min(1.0, 0.88 * cell / widest)
        if lying := points >= SMALLEST_POINTS:
            break
    for (row, column), value in np.ndenumerate(values):
        measured = bool(np.isfinite(value))
        axes.text(
            column,
            row,
            _number(value, decimals if lying else 3, one.diverging),
            fontsize=points if lying else SMALLEST_POINTS,
            rotation=0 if lying else 90,
            ha="center",
            va="center",
            color=readable_on(_colour_map(one)(float(norm(value)))) if measured else INK,
            bbox=None if measured else {"facecolor": "white", "linewidth": 0, "pad": 1},
        )
    return lying


def _number(value: float, decimals: int, signed: bool) -> str:
    """A cell's text: 0.912, +0.012, 35.1, 1280, or a dash."""
    if not np.isfinite(value):
        return "–"
    fitting = decimals if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:{'+' if signed and value else ''}.{fitting}f}".replace("-", "−")


def readable_on(colour: Sequence[float]) -> str:
    """Black or white, whichever contrasts more with this colour.

    Contrast is WCAG 2's, by relative luminance; the colour is RGB from 0 to 1.
    """
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3])
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#ffffff"
