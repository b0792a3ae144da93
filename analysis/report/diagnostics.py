"""Diagnostics of the networks, and their relation to plasticity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pandas as pd

from analysis import diagnostics, load, tables
from analysis.figures import diagnostics as figures
from analysis.load import Sweep
from analysis.report.page import Column, Draw, Picture, Section, Table
from study import schema

SHARPNESS: Final = (schema.HESSIAN_EIGENVALUE, schema.HESSIAN_TRACE, schema.SAM_SHARPNESS)

COLUMNS: Final = (
    Column("scenario", "scenario"),
    Column("name", "setting"),
    Column("diagnostic", "diagnostic"),
    Column("alone", "correlation with accuracy on the next task", "number"),
    Column("given", "given weight norm and rank", "number"),
    Column("in_time", "given these and the task's index", "number"),
    Column("lanes", "seeds", "count"),
    Column("pairs", "pairs of tasks", "count"),
    Column("run_id", "run", "run"),
)


def section_diagnostics(compared: Mapping[str, tuple[Sweep, pd.DataFrame]], *, is_other: bool = False) -> Section:
    """Diagnostics over the tasks, and their correlation with accuracy.

    The paper is not mentioned if the sweep is about another experiment.
    """
    beginning = "The" if is_other else "The paper asks about sharpness but does not measure it. Here the"
    words: list[str | tuple[str, ...]] = [
        f"{beginning} networks were measured after some of the tasks, on "
        "a fixed sample of the task's training images: curvature and sharpness of the loss, idle units, rank of the last "
        "hidden layer, size of the weights. Do these diagnostics after a task correlate with how well the *next* task is "
        "learnt?"
    ]
    blocks: list[Table | Picture] = []
    associations = []
    for key, (sweep, runs) in compared.items():
        measured = runs[runs["run_id"].isin(set(sweep.diagnostics["run_id"]))]
        if not len(measured):
            continue
        table = tables.associations(sweep, measured)
        associations.append(table)
        for scenario in dict.fromkeys(measured["scenario"]):
            chosen = measured[measured["scenario"] == scenario]
            blocks += _pictures(f"{key}-{scenario}", scenario, sweep, chosen, table[table["scenario"] == scenario])
    rows = pd.concat(associations, ignore_index=True) if associations else pd.DataFrame()
    if not len(rows):
        words = ["No diagnostics were measured, or not often enough: see the settings `diagnostics/...`."]
        return Section("diagnostics", "Inside the networks", tuple(words))
    words += [_answer(rows), _limits()]
    caption = (
        "Correlation, within seeds, of each diagnostic after a task with test accuracy on the next task, with 95 % intervals "
        "over seeds; then the partial correlation given weight norm and effective rank, and given the task's index as well."
    )
    blocks.append(Table("associations", caption, rows, COLUMNS, folded=True))
    return Section("diagnostics", "Inside the networks", tuple(words), tuple(blocks))


def _answer(rows: pd.DataFrame) -> str:
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
    return (
        f"Correlations of {', '.join(f'`{name}`' for name in SHARPNESS)} with accuracy on the next task, one per setting, "
        f"counted *by their whole interval*: {'; '.join(words)}. Below 0 means: the sharper the loss, the worse the next task "
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


def _pictures(key: str, scenario: str, sweep: Sweep, runs: pd.DataFrame, table: pd.DataFrame) -> list[Picture]:
    rows = load.rows(runs)
    ids = tuple(run["run_id"] for run in rows)
    by_run = {run["run_id"]: tables.networks(sweep, run["run_id"]) for run in rows}
    panels = {}
    for name in diagnostics.PROPERTIES:
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
        caption = f"{scenario}: diagnostics of the networks after the tasks, means over seeds."
        pictures.append(
            Picture(f"diagnostics-{key}", caption, _trajectories(f"{scenario}: inside the networks", panels), ids)
        )
    if any(one.values for one in settings):
        caption = (
            f"{scenario}: correlation of each diagnostic after a task with test accuracy on the next, within seeds. Left of 0: "
            "the larger the diagnostic, the worse the next task is learnt."
        )
        title = f"{scenario}: what correlates with learning the next task"
        pictures.append(Picture(f"associations-{key}", caption, _associations(title, settings), ids))
    return pictures


def _trajectories(title: str, panels: Mapping[str, list[figures.Trajectory]]) -> Draw:
    return lambda path, size: figures.trajectories(path, title, panels, size)


def _associations(title: str, settings: list[figures.Association]) -> Draw:
    return lambda path, size: figures.associations(path, title, settings, size)
