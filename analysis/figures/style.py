"""What all figures share: colours, markers, sizes, saving.

A figure never relies on colour alone: each method has a marker too, and several settings of one method differ in line style.
There is no global state, no pyplot and no rcParams, because figures are drawn from threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

METHOD_COLOURS = {"sgd": "#000000", "sam": "#0072B2", "gnp": "#D55E00"}
"""Okabe and Ito's palette, distinguishable with common colour blindness."""

OTHER_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
METHOD_MARKERS = {"sgd": "o", "sam": "s", "gnp": "^"}
OTHER_MARKERS = ("D", "v", "P", "X", "<", ">", "p", "h", "*")
"""As 9 and 4 have no common factor, 36 methods differ in colour or marker."""

LineStyle = str | tuple[int, tuple[float, ...]]
LINE_STYLES: tuple[LineStyle, ...] = ("-", "--", ":", "-.", (0, (7, 1.5, 1, 1.5, 1, 1.5)), (0, (3, 3)))

INK, QUIET, FAINT = "#222222", "#6b6b6b", "#e3e3e3"
"""Text and axes; secondary text, still readable on white; grid lines."""

DARK = {
    "#000000": "#f2f2f2",
    "#0072B2": "#5ab2ee",
    "#D55E00": "#ff8b42",
    "#009E73": "#39cf9f",
    "#CC79A7": "#e6a4ca",
    "#E69F00": "#f2b632",
    "#56B4E9": "#93d0f5",
    INK: "#e4e4e4",
    QUIET: "#a6a6a6",
    FAINT: "#34383d",
    "#d5edfa": "#12384e",
    "#ffffff": "#16181b",
}
"""What becomes of each colour of a chart on a dark page."""

VECTOR_METADATA: dict[str, dict[str, None]] = {
    ".svg": {"Date": None},
    ".pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}
"""What is left out of a file, by its suffix."""

Size = Literal["wide", "narrow"]
"""wide: a page of 1100 css px. narrow: a phone of 360 css px, with panels stacked and legends below."""

INCHES: dict[Size, float] = {"wide": 9.5, "narrow": 3.6}
DPI: dict[Size, int] = {"wide": 150, "narrow": 200}
POINTS: dict[Size, float] = {"wide": 8.5, "narrow": 8.0}
"""Font size: 13 css px on the wide page, 11 on the narrow one, where the PNG fills its page."""

SMALLEST_POINTS = 6.5
"""Smallest font size used: 9 css px on the narrow page."""


def colours(methods: Iterable[str]) -> dict[str, str]:
    """The colour of each method, as hexadecimal RGB.

    Methods in `METHOD_COLOURS` keep their own. Others get the next free one in alphabetical order, so the same methods get the
    same colours in any order; beyond four, colours repeat and the markers tell methods apart.
    """
    return _assigned(methods, METHOD_COLOURS, OTHER_COLOURS)


def markers(methods: Iterable[str]) -> dict[str, str]:
    """The marker of each method, assigned as in `colours`."""
    return _assigned(methods, METHOD_MARKERS, OTHER_MARKERS)


def new_figure(size: Size) -> Figure:
    """An empty figure; `layout.fit_height` sets its final height."""
    figure = Figure(figsize=(INCHES[size], 12.0), dpi=DPI[size], layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if engine := figure.get_layout_engine():
        engine.set(w_pad=0.1, h_pad=0.07)  # type: ignore[call-arg]
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG, SVG or PDF, by the name.

    Equal figures give equal bytes.
    """
    # without metadata, which would hold matplotlib's version and the time, and with the same ids in each SVG
    if path.suffix not in VECTOR_METADATA:
        figure.savefig(path, format="png", metadata={"Software": None})
        return
    with rc_context({"svg.hashsalt": "study", "pdf.fonttype": 42}):
        figure.savefig(path, format=path.suffix[1:], metadata=VECTOR_METADATA[path.suffix])


def _assigned(methods: Iterable[str], own: dict[str, str], others: tuple[str, ...]) -> dict[str, str]:
    names = list(dict.fromkeys(methods))
    unassigned = sorted(name for name in names if name not in own)
    return {name: own[name] if name in own else others[unassigned.index(name) % len(others)] for name in names}
