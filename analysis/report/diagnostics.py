"""What was seen inside the networks, and whether it goes with the loss of plasticity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pandas as pd

from analysis import diagnostics, load, tables
from analysis.figures import diagnosed
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
    Column("in_time", "given these and the task's number", "number"),
    Column("lanes", "seeds", "count"),
    Column("pairs", "pairs of tasks", "count"),
    Column("run_id", "run", "run"),
)


def section_diagnostics(compared: Mapping[str, tuple[Sweep, pd.DataFrame]]) -> Section:
    """Each diagnostic over the tasks and its correlation with what came next, for the runs that are compared."""
    words: list[str | tuple[str, ...]] = [
        "The paper asks about sharpness but measures none. Here the networks were looked into after some of the tasks, on "
        "a fixed sample of the task's training images: curvature and sharpness of the loss, idle units, rank of the last "
        "hidden layer, size of the weights. Does what is seen after a task go with how well the *next* task is learnt?"
    ]
    blocks: list[Table | Picture] = []
    found = []
    for key, (sweep, runs) in compared.items():
        looked = runs[runs["run_id"].isin(set(sweep.diagnostics["run_id"]))]
        if not len(looked):
            continue
        table = tables.associations(sweep, looked)
        found.append(table)
        for scenario in dict.fromkeys(looked["scenario"]):
            here = looked[looked["scenario"] == scenario]
            blocks += _pictures(f"{key}-{scenario}", scenario, sweep, here, table[table["scenario"] == scenario])
    rows = pd.concat(found, ignore_index=True) if found else pd.DataFrame()
    if not len(rows):
        words = ["The networks were not looked into, or not often enough: see the settings `diagnostics/...`."]
        return Section("diagnostics", "Inside the networks", tuple(words))
    words += [_answer(rows), _limits()]
    caption = (
        "Correlation, within seeds, of each diagnostic after a task with test accuracy on the next task, with 95 % intervals "
        "over seeds; then the partial correlation given weight norm and effective rank, and given the task's number as well."
    )
    blocks.append(Table("associations", caption, rows, COLUMNS, folded=True))
    return Section("diagnostics", "Inside the networks", tuple(words), tuple(blocks))


def _answer(rows: pd.DataFrame) -> str:
    """How often sharpness goes with worse learning, before and after what it may merely go along with is taken out."""
    sharp = rows[rows["diagnostic"].isin(SHARPNESS)]
    words = []
    for kind, said in (
        ("alone", "by itself"),
        ("given", "given weight norm and rank"),
        ("in_time", "given the task's number as well"),
    ):
        known = sharp[sharp[f"{kind}_low"].notna()]
        worse, better = int((known[f"{kind}_high"] < 0).sum()), int((known[f"{kind}_low"] > 0).sum())
        words.append(f"{said} {worse} lie below 0, {better} above, {len(known) - worse - better} on neither side")
    return (
        f"Of the correlations of {', '.join(f'`{name}`' for name in SHARPNESS)} with accuracy on the next task, one for "
        f"each setting, *with their whole interval*: {'; '.join(words)}. Below 0 means: the sharper, the worse the next task is "
        "learnt."
    )


def _limits() -> str:
    return (
        "This is correlation within a seed, from task to task, and no cause: sharpness, weights and ranks drift together over "
        "a sequence, and so does accuracy. Taking out the weight norm, the rank and the task's number shows what is left beyond "
        "a common, linear drift; it cannot rule out a third thing that moves all of them. Tasks differ in difficulty in the "
        "same way for all seeds, which no interval over seeds contains; and many correlations are shown, uncorrected, so that "
        "a single one that excludes 0 means little."
    )


def _pictures(key: str, scenario: str, sweep: Sweep, runs: pd.DataFrame, table: pd.DataFrame) -> list[Picture]:
    rows = load.rows(runs)
    ids = tuple(run["run_id"] for run in rows)
    seen = {run["run_id"]: tables.networks(sweep, run["run_id"]) for run in rows}
    panels = {}
    for name in diagnostics.PROPERTIES:
        lines = []
        for run in rows:
            known = seen[run["run_id"]].get(["task", name]) if name in seen[run["run_id"]] else None
            known = known.dropna() if known is not None else pd.DataFrame({"task": [], name: []})
            lines.append(diagnosed.Trajectory(run["name"], run["method"], list(known["task"]), list(known[name])))
        if any(len(line.values) for line in lines):
            panels[f"{name} ({schema.QUANTITIES[name].unit})"] = lines
    settings = [
        diagnosed.Association(
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
        caption = f"{scenario}: what was seen inside the networks after the tasks, means over seeds."
        pictures.append(
            Picture(f"diagnostics-{key}", caption, _trajectories(f"{scenario}: inside the networks", panels), ids)
        )
    if any(one.values for one in settings):
        caption = (
            f"{scenario}: how each diagnostic after a task goes with test accuracy on the next, within seeds. Left of 0: the "
            "more of it, the worse the next task is learnt."
        )
        title = f"{scenario}: what goes with learning the next task"
        pictures.append(Picture(f"associations-{key}", caption, _associations(title, settings), ids))
    return pictures


def _trajectories(title: str, panels: Mapping[str, list[diagnosed.Trajectory]]) -> Draw:
    return lambda path, size: diagnosed.trajectories(path, title, panels, size)


def _associations(title: str, settings: list[diagnosed.Association]) -> Draw:
    return lambda path, size: diagnosed.associations(path, title, settings, size)
