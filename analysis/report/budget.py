"""Budget, failures, versions, and where every number comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from analysis import sample, tables
from analysis.load import Sweep
from analysis.report.page import Column, Section, Table, count, joined
from study import schema

BUDGET_COLUMNS: Final = (
    Column("sweep", "sweep"),
    Column("scenario", "scenario"),
    Column("method", "method"),
    Column("planned", "trials planned", "count"),
    Column("not_needed", "not needed: decided before", "count"),
    Column("finished", "finished", "count"),
    Column("stopped", "stopped early", "count"),
    Column("failed", "failed", "count"),
    Column("other", "not completed", "count"),
    Column("lanes", "seeds per trial", "count"),
    Column("tasks_trained", "tasks trained", "count"),
    Column("gradient_evaluations", "gradient evaluations, all seeds", "count"),
    Column("trial_hours", "trial time", "hours"),
    Column("trials_with_diverged_lanes", "trials with diverged seeds", "count"),
    Column("run_id", "run of the sweep", "run"),
)


DIVERGED_COLUMNS: Final = (
    Column("sweep", "sweep"),
    Column("scenario", "scenario"),
    Column("name", "setting"),
    Column("outcome", "outcome"),
    Column("lanes_diverged", "diverged seeds", "count"),
    Column("lanes", "seeds", "count"),
    Column("run_id", "run", "run"),
)

VERSION_COLUMNS: Final = (
    Column("sweep", "sweep"),
    Column("what", "what"),
    Column("version", "version"),
    Column("run_id", "run of the sweep", "run"),
)

TRIAL_COLUMNS: Final = (
    Column("sweep", "sweep"),
    Column("trial", "trial"),
    Column("name", "setting"),
    Column("outcome", "outcome"),
    Column("tasks", "tasks", "count"),
    Column(schema.OBJECTIVE, "objective so far: validation accuracy", "share"),
    Column(schema.CHOSEN_OBJECTIVE, "objective of the search", "number"),
    Column(schema.SECOND_OBJECTIVE, "its second objective", "number"),
    Column("summary/accuracy_test", "mean test accuracy", "share"),
    Column("summary/decline_test", "decline", "signed"),
    Column("reason", "reason of failure"),
    Column("run_id", "run", "run"),
)


def section_budget(sweeps: Sequence[Sweep]) -> Section:
    """What was spent, what diverged, and the versions used."""
    blocks = [Table("budget", "What each method was given and what it spent.", tables.budget(sweeps), BUDGET_COLUMNS)]
    diverged = tables.diverged(sweeps)
    words = "No seed of any trial diverged. "
    if len(diverged):
        words = f"{count(len(diverged), 'trial')} had seeds whose loss or weights became non-finite. "
        caption = "Trials with diverged seeds." + _first(len(diverged))
        blocks.append(Table("diverged", caption, diverged, DIVERGED_COLUMNS, rows=diverged.iloc[: sample.MOST]))
    words += "A diverged seed is frozen and counted at chance accuracy from then on; it stays in every mean."
    blocks.append(
        Table("versions", "Versions, commit and devices.", tables.versions(sweeps), VERSION_COLUMNS, folded=True)
    )
    return Section("budget", "Budget, failures, versions", (words,), tuple(blocks))


def _first(total: int) -> str:
    """A sentence if only the first of so many rows are shown."""
    return f" The first {sample.MOST} of {total:,} are shown; the file has all." if total > sample.MOST else ""


def section_sources(sweeps: Sequence[Sweep]) -> Section:
    """Where every number comes from."""
    words = (
        "Every number above comes from MLflow: the experiments "
        + joined([f"`{sweep.name}` (id {sweep.experiment_id})" for sweep in sweeps])
        + ". Each row names its runs by the first 8 digits of their ids; the CSV files have ids and numbers in full. "
        "`mlflow.search_runs` finds the same numbers: mean test accuracy is the metric `summary/accuracy_test`; the "
        "accuracy of seed number i on each task is the history of `accuracy/test/lane_i`, and also in the run's "
        "`tables/lanes.csv`.",
    )
    trials = tables.trials(sweeps)
    goal_of = {sweep.name: sweep.objectives[0] for sweep in sweeps}
    of_each = [sample.best_and_sample(own, goal_of[str(name)]) for name, own in trials.groupby("sweep", sort=False)]
    shown = trials.loc[[place for own in of_each for place in own.index]]
    caption = "All trials and their runs." + sample.words(len(shown), len(trials))
    table = Table("all_trials", caption, trials, TRIAL_COLUMNS, folded=True, rows=shown)
    return Section("sources", "Where the numbers come from", words, (table,))
