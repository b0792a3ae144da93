"""Accuracy over the task sequence of single trials; means with their intervals are drawn by `bands`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures import LINE_STYLES, METHOD_COLOURS, OTHER_COLOURS, colours, save
from analysis.figures.bands import Band, Spent, accuracy_by_gradient_evaluations, accuracy_by_task, places

__all__ = [
    "Band",
    "Curve",
    "Spent",
    "accuracy_by_gradient_evaluations",
    "accuracy_by_task",
    "comparison",
    "learning_curve",
]


@dataclass(frozen=True)
class Curve:
    """Accuracy over tasks of one trial.

    Attributes:
        label: for the legend.
        method: decides the colour.
        accuracy: share, [task, lane].
    """

    label: str
    method: str
    accuracy: Sequence[Sequence[float]]


def learning_curve(path: Path, title: str, measures: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Accuracy at the end of each task of one trial: the mean over lanes as a line, each lane as a thin one.

    Args:
        path: of the PNG to write.
        title: stands above.
        measures: accuracy as a share [task, lane], by what it was measured on.
    """
    figure, axes = _axes(title)
    for (label, values), colour in zip(
        measures.items(), (METHOD_COLOURS["sam"], METHOD_COLOURS["gnp"], *OTHER_COLOURS), strict=False
    ):
        table = np.asarray(values, dtype=float)
        tasks = np.arange(1, len(table) + 1)
        if table.shape[1] > 1:
            axes.plot(tasks, table, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(tasks, table.mean(axis=1), color=colour, linewidth=1.8, marker="o", markersize=3, label=label)
    _finish(figure, axes, path)


def comparison(path: Path, title: str, curves: Sequence[Curve]) -> None:
    """Accuracy at the end of each task of several trials, means over lanes.

    Args:
        path: of the PNG to write.
        title: stands above.
        curves: one line each; trials of one method share a colour and differ in line style.
    """
    figure, axes = _axes(title)
    colour = colours(curve.method for curve in curves)
    for curve, place in zip(curves, places(curves), strict=True):
        means = np.asarray(curve.accuracy, dtype=float).mean(axis=1)
        tasks = np.arange(1, len(means) + 1)
        style = LINE_STYLES[place % len(LINE_STYLES)]
        axes.plot(tasks, means, linestyle=style, color=colour[curve.method], linewidth=1.6, label=curve.label)
    _finish(figure, axes, path)


def _axes(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)  # no global state: figures are drawn from threads
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("task (in order of training)")
    axes.set_ylabel("accuracy at the end of the task (share)")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _finish(figure: Figure, axes: Axes, path: Path) -> None:
    low = min((float(np.nanmin(line.get_ydata())) for line in axes.get_lines()), default=0.0)
    axes.set_ylim(max(0.0, np.floor(low * 10) / 10), 1.005)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 6:
        axes.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False)
    else:
        axes.legend(handles, labels, fontsize=8, frameon=False)
    save(figure, path)
