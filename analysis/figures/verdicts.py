"""Verdicts on several claims under several assumptions, as a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.figures import layout
from analysis.figures.style import INK, POINTS, QUIET, Size, new_figure, save

LOOKS: Final[Mapping[str, tuple[str, str]]] = {
    "reproduced": ("#BFE3D6", "yes"),
    "contradicted": ("#F3C3A6", "no"),
    "undecided": ("#F4F4F4", "open"),
}
"""Colour and word of each verdict; the word says the same as the colour."""


@dataclass(frozen=True)
class Row:
    """One assumption.

    Attributes:
        label: of the row.
        verdicts: by claim.
        dependent: the claims that depend on it; their cells are framed.
    """

    label: str
    verdicts: Mapping[str, str]
    dependent: Sequence[str] = ()


def verdicts(path: Path, title: str, rows: Sequence[Row], size: Size) -> None:
    """Draws a cell for each claim (column) and assumption (row).

    The first row is the main experiment. A cell says `yes` (reproduced), `no` (contradicted) or `open` (undecided), and is framed
    where the claim depends on the assumption.

    Args:
        path: of the PNG to write.
        title: of the figure.
        rows: at least one.
        size: wide or narrow.

    Raises:
        ValueError: there is no row.
    """
    save(_draw(title, rows, size), path)


def _draw(title: str, rows: Sequence[Row], size: Size) -> Figure:
    if not rows:
        raise ValueError("There is no assumption to draw.")
    figure = new_figure(size)
    layout.title(figure, title, size)
    axes = figure.add_subplot()
    points = POINTS[size]
    claims = list(rows[0].verdicts)
    room = 2.6 if size == "wide" else 1.05
    labels = [layout.wrapped(figure, row.label, points, room) for row in rows]
    tops, total = [], 0.0
    for place, label in enumerate(labels):
        height = max(0.3, 0.155 * (label.count("\n") + 1) + 0.1)
        tops.append((total, height))
        total += height + (0.08 if place == 0 else 0.0)
    for row, (top, height) in zip(rows, tops, strict=True):
        for column, claim in enumerate(claims):
            colour, word = LOOKS[row.verdicts[claim]]
            axes.add_patch(Rectangle((column + 0.03, top + 0.015), 0.94, height - 0.03, facecolor=colour, linewidth=0))
            is_framed = claim in row.dependent
            if is_framed:
                frame: dict[str, Any] = {"fill": False, "edgecolor": INK, "linewidth": 1.6, "zorder": 3}
                axes.add_patch(Rectangle((column + 0.05, top + 0.025), 0.9, height - 0.05, **frame))
            text: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": points}
            quiet = QUIET if word == "open" else INK
            axes.text(
                column + 0.5, top + height / 2, word, color=quiet, weight="bold" if is_framed else "normal", **text
            )
    axes.set_xlim(0, len(claims))
    axes.set_ylim(total, 0)
    axes.set_xticks([column + 0.5 for column in range(len(claims))], claims)
    axes.set_yticks([top + height / 2 for top, height in tops], labels)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=points, labelcolor=INK)
    axes.spines[:].set_visible(False)
    found = {verdict for row in rows for verdict in row.verdicts.values()}
    handles: list[Any] = [Rectangle((0, 0), 1, 1, facecolor=LOOKS[name][0]) for name in LOOKS if name in found]
    names = [f"{LOOKS[name][1]}: {name}" for name in LOOKS if name in found]
    if any(row.dependent for row in rows):
        handles.append(Rectangle((0, 0), 1, 1, fill=False, edgecolor=INK, linewidth=1.6))
        names.append("framed: the claim depends on this assumption")
    layout.legend(figure, handles, names, size)
    layout.fit_height(figure, [axes], total)
    return figure
