"""Figures: numbers in, PNG out. Here is what they share: colours, markers, line styles, the two sizes, and saving.

A figure never relies on colour alone: a method has a marker beside its colour, and several settings of one method differ in
line style. Nothing here is global state, for figures are drawn from threads: no pyplot, no rcParams.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

METHOD_COLOURS = {"sgd": "#000000", "sam": "#0072B2", "gnp": "#D55E00"}
"""From Okabe and Ito's palette, told apart in the common colour-blindnesses."""

OTHER_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
METHOD_MARKERS = {"sgd": "o", "sam": "s", "gnp": "^"}
OTHER_MARKERS = ("D", "v", "P", "X", "<", ">", "p", "h")

LineStyle = str | tuple[int, tuple[float, ...]]
LINE_STYLES: tuple[LineStyle, ...] = ("-", "--", ":", "-.", (0, (7, 1.5, 1, 1.5, 1, 1.5)), (0, (3, 3)))

INK, QUIET, FAINT = "#222222", "#6b6b6b", "#e3e3e3"
"""Of text and axes; of what stands back, still readable on white; of grid lines."""

Size = Literal["wide", "narrow"]
"""wide: a page of 1100 css px. narrow: a phone of 360 css px, with panels one above the other and legends below."""

INCHES: dict[Size, float] = {"wide": 9.5, "narrow": 3.6}
DPI: dict[Size, int] = {"wide": 150, "narrow": 200}
POINTS: dict[Size, float] = {"wide": 8.5, "narrow": 8.0}
"""Height of the letters. Where the PNG fills its page, they are 13 css px on the wide and 11 on the narrow one."""

SMALLEST_POINTS = 6.5
"""No letter is smaller: 9 css px on the narrow page."""


def colours(methods: Iterable[str]) -> dict[str, str]:
    """The colour of each method, as hexadecimal RGB.

    Known methods keep their own. The others get the next free one in alphabetical order, so that the same methods get the same
    colours in whatever order they are given; beyond four they repeat, and the markers tell them apart.
    """
    return _assigned(methods, METHOD_COLOURS, OTHER_COLOURS)


def markers(methods: Iterable[str]) -> dict[str, str]:
    """The marker of each method, in the way of `colours`."""
    return _assigned(methods, METHOD_MARKERS, OTHER_MARKERS)


def new_figure(size: Size) -> Figure:
    """An empty figure of the width of `size` and of a generous height, which `layout.fit_height` settles."""
    figure = Figure(figsize=(INCHES[size], 12.0), dpi=DPI[size], layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if engine := figure.get_layout_engine():
        engine.set(w_pad=0.1, h_pad=0.07)  # type: ignore[call-arg]
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG. The same figure gives the same bytes: no date and no version stand in it."""
    figure.savefig(path, format="png", metadata={"Software": None})


def _assigned(methods: Iterable[str], known: dict[str, str], others: tuple[str, ...]) -> dict[str, str]:
    names = list(dict.fromkeys(methods))
    places = {name: place for place, name in enumerate(sorted(name for name in names if name not in known))}
    return {name: known[name] if name in known else others[places[name] % len(others)] for name in names}
