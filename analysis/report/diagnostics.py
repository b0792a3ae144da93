"""Diagnostics of the networks, and their relation to plasticity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pandas as pd

from analysis import load, tables
from analysis.diagnostics import AFTER, ONSET, Moment
from analysis.figures import charts
from analysis.figures import diagnostics as figures
from analysis.load import Sweep
from analysis.report.page import Column, Draw, Picture, Section, Table
from study import schema

_SHARP: Final = (schema.HESSIAN_EIGENVALUE, schema.HESSIAN_TRACE, schema.SAM_SHARPNESS)
SHARPNESS: Final = (*_SHARP, *map(schema.onset_name, (*_SHARP, schema.ADAPTIVE_SHARPNESS)))


def section_diagnostics(compared: Mapping[str, tuple[Sweep, pd.DataFrame]], *, is_other: bool = False) -> Section:
    """Diagnostics over the tasks, and their correlation with accuracy.

    Those after a task with accuracy on the next, then those at the onset of a task with accuracy on that task. The paper is not
    mentioned if the sweep is about another experiment.
    """
    words: list[str] = []
    blocks: list[Table | Picture] = []
    for moment, name, question in (
        (AFTER, "", _question(is_other)),
        (ONSET, "onset_", _QUESTION_AT_ONSETS),
    ):
        pictures, rows = _measured(compared, moment, name)
        if not len(rows):
            continue
        words += [question, _answer(rows, moment)]
        blocks += [*pictures, _table(rows, moment, name)]
    if not blocks:
        words = ["No diagnostics were measured, or not often enough: see the settings `diagnostics/...`."]
        return Section("diagnostics", "Inside the networks", tuple(words))
    return Section("diagnostics", "Inside the networks", (*words, _limits()), tuple(blocks))


def _question(is_other: bool) -> str:
    beginning = "The" if is_other else "The paper asks about sharpness but does not measure it. Here the"
    return (
        f"{beginning} networks were measured after some of the tasks, on "
        "a fixed sample of the task's training images: curvature and sharpness of the loss, idle units, rank of the last "
        "hidden layer, size of the weights. Do these diagnostics after a task correlate with how well the *next* task is "
        "learnt?"
    )


_QUESTION_AT_ONSETS: Final = (
    "Networks were also measured at the *onset* of some tasks, before the first step, on images of the task that was about to "
    "begin; these diagnostics are named `onset/...`. Do they correlate with how well *that* task is learnt?"
)


def _measured(
    compared: Mapping[str, tuple[Sweep, pd.DataFrame]], moment: Moment, prefix: str
) -> tuple[list[Picture], pd.DataFrame]:
    """Pictures and correlations of what was measured at one moment."""
    pictures: list[Picture] = []
    associations = []
    for key, (sweep, runs) in compared.items():
        measured = runs[runs["run_id"].isin(set(sweep.diagnostics["run_id"]))]
        if not len(measured):
            continue
        table = tables.associations(sweep, measured, moment)
        associations.append(table)
        for scenario in dict.fromkeys(measured["scenario"]):
            chosen = measured[measured["scenario"] == scenario]
            own = table[table["scenario"] == scenario]
            pictures += _pictures(f"{key}-{scenario}", scenario, sweep, chosen, own, moment, prefix)
    return pictures, pd.concat(associations, ignore_index=True) if associations else pd.DataFrame()


def _table(rows: pd.DataFrame, moment: Moment, prefix: str) -> Table:
    columns = (
        Column("scenario", "scenario"),
        Column("name", "setting"),
        Column("diagnostic", "diagnostic"),
        Column("alone", f"correlation with accuracy on {moment.follows}", "number"),
        Column("given", "given weight norm and rank", "number"),
        Column("in_time", "given these and the task's index", "number"),
        Column("lanes", "seeds", "count"),
        Column("pairs", "pairs of tasks" if moment.ahead else "tasks of all seeds", "count"),
        Column("run_id", "run", "run"),
    )
    caption = (
        f"Correlation, within seeds, of each diagnostic {moment.words} with test accuracy on {moment.follows}, with 95 % "
        "intervals over seeds; then the partial correlation given weight norm and effective rank, and given the task's index as "
        "well."
    )
    return Table(f"{prefix}associations", caption, rows, columns, folded=True)


def _answer(rows: pd.DataFrame, moment: Moment) -> str:
    """How often sharpness correlates with worse learning.

    Alone, and after controlling for what may explain it.
    """
    sharp = rows[rows["diagnostic"].isin(SHARPNESS)]
    words = []
    for kind, condition in (
        ("alone", "alone"),
        ("given", "given weight norm and rank"),
        ("in_time", "given the task's index as well"),
    ):
        bounded = sharp[sharp[f"{kind}_low"].notna()]
        worse, better = int((bounded[f"{kind}_high"] < 0).sum()), int((bounded[f"{kind}_low"] > 0).sum())
        words.append(f"{condition}, {worse} lie below 0, {better} above, {len(bounded) - worse - better} contain 0")
    names = [name for name in SHARPNESS if name in moment.properties]
    return (
        f"Correlations of {', '.join(f'`{name}`' for name in names)} with accuracy on {moment.follows}, one per setting, "
        f"counted *by their whole interval*: {'; '.join(words)}. Below 0 means: the sharper the loss, the worse {moment.follows} "
        "is learnt."
    )


def _limits() -> str:
    return (
        "This is correlation within a seed, from task to task, not causation: sharpness, weights and ranks drift together over "
        "a sequence, and so does accuracy. Controlling for weight norm, rank and the task's index shows what remains beyond a "
        "common linear drift; it cannot rule out a third factor that moves all of them. Tasks differ in difficulty in the same "
        "way for all seeds, which no interval over seeds reflects. And many correlations are shown, uncorrected, so a single "
        "one that excludes 0 means little."
    )


def _pictures(
    key: str, scenario: str, sweep: Sweep, runs: pd.DataFrame, table: pd.DataFrame, moment: Moment, prefix: str
) -> list[Picture]:
    rows = load.rows(runs)
    ids = tuple(run["run_id"] for run in rows)
    by_run = {run["run_id"]: tables.networks(sweep, run["run_id"], moment) for run in rows}
    panels = {}
    for name in moment.properties:
        lines = []
        for run in rows:
            # a run that lacks this diagnostic keeps its place with an empty line
            values = by_run[run["run_id"]].reindex(columns=["task", name]).dropna()
            lines.append(figures.Trajectory(run["name"], run["method"], list(values["task"]), list(values[name])))
        if any(len(line.values) for line in lines):
            panels[f"{name} ({schema.QUANTITIES[name].unit})"] = lines
    settings = [
        figures.Association(
            run["name"],
            run["method"],
            {
                row["diagnostic"]: (row["alone"], row["alone_low"], row["alone_high"])
                for row in load.rows(table[table["run_id"] == run["run_id"]])
            },
        )
        for run in rows
    ]
    pictures = []
    if panels:
        when = "after the tasks" if moment.ahead else "before the first step on each task, on that task's images"
        caption = f"{scenario}: diagnostics of the networks {when}, means over seeds."
        title = f"{scenario}: inside the networks{'' if moment.ahead else ', at the onset of tasks'}"
        pictures.append(
            Picture(
                f"{prefix}diagnostics-{key}", caption, _trajectories(title, panels), ids, charts.trajectories(panels)
            )
        )
    if any(one.values for one in settings):
        caption = (
            f"{scenario}: correlation of each diagnostic {moment.words} with test accuracy on {moment.follows}, within seeds. "
            f"Left of 0: the larger the diagnostic, the worse {moment.follows} is learnt."
        )
        title = (
            f"{scenario}: what correlates with learning {moment.follows if moment.ahead else 'a task, at its onset'}"
        )
        draw = _associations(title, settings, moment.follows)
        pictures.append(Picture(f"{prefix}associations-{key}", caption, draw, ids))
    return pictures


def _trajectories(title: str, panels: Mapping[str, list[figures.Trajectory]]) -> Draw:
    return lambda path, size: figures.trajectories(path, title, panels, size)


def _associations(title: str, settings: list[figures.Association], follows: str) -> Draw:
    return lambda path, size: figures.associations(path, title, settings, size, follows)
