"""The best of each method: tuned, confirmed, at equal compute."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pandas as pd

from analysis import load, sample, statistics, tables
from analysis import overtuning as over
from analysis import tuned as tuned_methods
from analysis.figures import accuracy, charts, comparisons
from analysis.figures.style import Size
from analysis.load import Sweep
from analysis.paper.claims import ALPHA, MARGIN
from analysis.report import decided, overtuning
from analysis.report.page import Column, Draw, Picture, Section, Table, is_missing, joined
from analysis.report.paper import SETTINGS_COLUMNS, accuracy_pictures, difference_blocks
from analysis.settings import BASELINE
from study import schema
from study.config import TrialConfig

MOST_LINES: Final = 12
"""The most settings in one figure of accuracies."""

CONFIRMED_COLUMNS: Final = (
    Column("scenario", "scenario"),
    Column("name", "setting"),
    Column("why", "included as"),
    Column("objective_tuned", "objective tuned", "share"),
    Column("objective_confirmed", "objective confirmed", "share"),
    Column("objective_tuned_minus_confirmed", "objective, tuned minus confirmed", "signed"),
    Column("accuracy_tuned", "test accuracy tuned", "share"),
    Column("accuracy_confirmed", "test accuracy confirmed", "share"),
    Column("accuracy_tuned_minus_confirmed", "test accuracy, tuned minus confirmed", "signed"),
    Column("run_ids", "runs: tuned, confirmed", "run"),
)

LATE_COLUMNS: Final = (
    Column("scenario", "scenario"),
    Column("data", "data"),
    Column("first", "method"),
    Column("late_first", "late accuracy", "share"),
    Column("late_second", f"late accuracy of {BASELINE}", "share"),
    Column("difference", "difference", "signed"),
    Column("decline_first", "decline after warm-up", "signed"),
    Column("answer", f"better by more than {MARGIN:g}"),
    Column("run_ids", "runs", "run"),
)

COMPUTE_COLUMNS: Final = (
    Column("sweep", "sweep"),
    Column("scenario", "scenario"),
    Column("name", "setting"),
    Column("gradient_evaluations", "gradient evaluations per seed", "count"),
    Column("times_the_cheapest", "times the cheapest", "number"),
    Column("accuracy", "mean test accuracy, all tasks", "share"),
    Column("tasks_within_budget", "tasks within the cheapest's budget", "count"),
    Column("accuracy_within_budget", "mean test accuracy of these", "share"),
    Column("run_id", "run", "run"),
)


def section_winners(tuned: Sweep, confirmations: Sequence[Sweep], *, leads: bool = False) -> Section:
    """The best of each method, as tuned and as confirmed.

    Args:
        tuned: the sweep.
        confirmations: of its winners.
        leads: whether a sweep that nobody has confirmed is compared in full too.
    """
    best = tables.best(tuned)
    title = "The best of each method"
    if leads and not len(best) and len(tuned.finished):
        return _all_settings(tuned)
    if not len(best):
        return Section(
            "best",
            title,
            (
                "No images were held out for validation, so nothing was selected: choosing by test accuracy would be "
                "selecting on the test set.",
            )
            if tuned.objectives[0].declared.needs_validation and _lacks_objective(tuned)
            else ("Nothing was selected.",),
        )
    words: list[str | tuple[str, ...]] = [
        f"For each method in each scenario, the trial of `{tuned.name}` with {_selected_by(tuned)}. A winner was chosen by its "
        "result on these seeds and images, so that number is biased upwards; its honest number comes from fresh seeds, which no "
        "tuning has used."
    ]
    blocks: list[Table | Picture] = []
    if not confirmations:
        words.append(
            "*Not confirmed yet.* The numbers below are those of the tuning, and biased upwards; `study confirm "
            f"{tuned.name}` gets honest ones."
        )
        if leads:
            blocks += accuracy_pictures("best", tuned, best)
        blocks.append(
            Table(
                "best_settings",
                "The best by the objective, on the seeds they were chosen by.",
                tables.settings(tuned, best),
                SETTINGS_COLUMNS,
            )
        )
        if leads:
            what = f"the best of each method in `{tuned.name}`, on the seeds they were chosen by"
            blocks += difference_blocks("best_differences", what, tables.best_differences(tuned))
    for confirmation in confirmations:
        blocks += _confirmation(tuned, confirmation)
    blocks += _late_accuracy(confirmations)
    words += overtuning.how_to(tuned, confirmations)
    return Section("best", title, tuple(words), tuple(blocks))


def _late_accuracy(confirmations: Sequence[Sweep]) -> list[Table | Picture]:
    """What each confirmed winner can still learn in the end."""
    found = tuned_methods.against_baseline(confirmations)
    if not found:
        return []
    by_method: dict[str, list[tuned_methods.Contrast]] = {}
    for contrast in found:
        by_method.setdefault(contrast.first, []).append(contrast)
    answers = "; ".join(tuned_methods.conclusion(contrasts) for contrasts in by_method.values())
    caption = (
        f"Does any method keep plasticity better than {BASELINE}? Late accuracy is test accuracy over the last "
        f"tenth of the tasks, on fresh seeds; a method is better if it is higher by more than {MARGIN:g}, seed by "
        f"seed. Intervals are simultaneous, and fewer than {statistics.least_lanes(ALPHA)} seeds leave a question "
        f"open. {answers[0].upper()}{answers[1:]}."
    )
    drawn = [
        comparisons.Difference(
            f"{each.first} minus {each.second}, {each.scenario} of {each.data}",
            each.difference.mean,
            each.difference.low,
            each.difference.high,
            math.nan,
        )
        for each in found
    ]

    note = "The intervals are simultaneous: all of them together hold at 95 %."

    def draw(path: Path, size: Size) -> None:
        title = "Tuned methods on fresh seeds: accuracy over the last tenth of the tasks"
        comparisons.differences(path, title, drawn, "share of test images", MARGIN, size, note)

    figure = (
        f"Late accuracy of each confirmed winner minus that of {BASELINE}, seed by seed, with simultaneous intervals. The band "
        f"marks differences below the margin of {MARGIN:g}: a method is better if its interval lies to the right of it."
    )
    runs = tuple(dict.fromkeys(run for each in found for run in each.run_ids))
    return [
        Picture("late_accuracy", figure, draw, runs, charts.differences(drawn, "share of test images", MARGIN, note)),
        Table("late_accuracy", caption, tuned_methods.frame(found), LATE_COLUMNS),
    ]


def _lacks_objective(tuned: Sweep) -> bool:
    column = tuned.objectives[0].column
    return column not in tuned.finished or bool(tuned.finished[column].isna().all())


def _selected_by(tuned: Sweep) -> str:
    """What the winners were selected by, in words."""
    first, *others = tuned.objectives
    if first.is_default:
        words = "the highest objective is selected: accuracy on images held out of the training set"
    else:
        words = f"{first.best_words} is selected; no test image was read for it"
    return words + "".join(f". The search also optimised the {other.words}" for other in others)


def _all_settings(tuned: Sweep) -> Section:
    """The settings of a sweep that selects nothing."""
    runs = tables.shown(tuned)
    words = (
        f"The settings of `{tuned.name}`. No images were held out, so none of them was selected: choosing by test accuracy "
        "would be selecting on the test set." + sample.words(len(runs), len(tuned.finished))
    )
    blocks: list[Table | Picture] = []
    for scenario in dict.fromkeys(runs["scenario"]):
        chosen = runs[runs["scenario"] == scenario]
        if len(chosen) <= MOST_LINES:
            blocks += accuracy_pictures("settings", tuned, chosen)
    caption = "All settings, over all tasks, with 95 % intervals."
    blocks.append(Table("all_settings", caption, tables.settings(tuned, runs), SETTINGS_COLUMNS))
    return Section("best", "The methods' settings", (words,), tuple(blocks))


def _confirmation(tuned: Sweep, confirmation: Sweep) -> list[Table | Picture]:
    seeds = confirmation.plan["seeds"]
    data = (
        ", ".join(dict.fromkeys(confirmation.runs["data/name"])) if "data/name" in confirmation.runs else "no data yet"
    )
    few = f"{len(seeds)} fresh seeds {seeds[0]} to {seeds[-1]}"
    if confirmation.rule:
        few = f"at most {few}, until decided, with intervals that hold whatever was decided when"
    where = f"`{confirmation.name}` ({data}, {few})"
    both = tables.tuned_and_confirmed(tuned, confirmation)
    changed = _changed(tuned, confirmation, both) if len(both) else []
    blocks = [
        *decided.blocks(confirmation),
        *_promised_and_kept(tuned, confirmation, where, both, changed),
        *overtuning.blocks(tuned, confirmation, where, changed),
    ]
    winners = confirmation.finished[confirmation.finished["selected_rank"] == 1]
    if len(winners):
        blocks += accuracy_pictures(f"winners-{confirmation.name}", confirmation, winners)
        blocks.append(
            Table(
                f"winners-{confirmation.name}",
                f"The confirmed winners, {where}: test accuracy with 95 % intervals over the fresh seeds.",
                tables.settings(confirmation, winners),
                SETTINGS_COLUMNS,
            )
        )
        blocks += difference_blocks(
            f"winners_differences-{confirmation.name}",
            f"the winners, {where}",
            tables.winners_differences(confirmation),
        )
    return blocks


def _promised_and_kept(
    tuned: Sweep, confirmation: Sweep, where: str, both: pd.DataFrame, changed: Sequence[str]
) -> list[Table | Picture]:
    """Tuned against confirmed: figures of selected trials, one table.

    One figure per scenario; the table has every trial that both sweeps have. `changed` are the settings that they differ in.
    """
    if not len(both):
        return []
    once_best = {run["run_id"] for run in load.rows(confirmation.finished) if over.was_incumbent(confirmation, run)}
    both["why"] = [
        (
            f"selected, rank {int(rank)}"
            if not is_missing(rank)
            else "best so far"
            if run_id in once_best
            else "the paper's setting"
        )
        + f" (trial {before.rpartition('-')[2]}, here {after.rpartition('-')[2]})"
        for rank, before, after, run_id in zip(
            both["selected_rank"], both["trial_tuned"], both["trial_confirmed"], both["run_id_confirmed"], strict=True
        )
    ]
    both["run_ids"] = both["run_id_tuned"] + " " + both["run_id_confirmed"]
    meaning = (
        f"Tuning and confirmation differ in {joined(changed)}, so the differences reflect that too, not selection luck alone."
        if changed
        else "A positive difference of a selected trial is the luck it was selected for, up to chance."
    )
    blocks: list[Table | Picture] = []
    for scenario in dict.fromkeys(both["scenario"]):
        rows = load.rows(both[(both["scenario"] == scenario) & both["selected_rank"].notna()])
        if rows:
            drawn = _confirmed(rows)
            blocks.append(
                Picture(
                    f"tuned_confirmed-{confirmation.name}-{scenario}",
                    f"{scenario}: mean test accuracy of the selected trials on the seeds of the tuning and on fresh seeds, "
                    f"with 95 % t intervals, {where}. {meaning}",
                    _dumbbells(f"{scenario}: tuned and confirmed", drawn),
                    tuple(dict.fromkeys(row[key] for row in rows for key in ("run_id_tuned", "run_id_confirmed"))),
                    charts.tuned_and_confirmed(drawn),
                )
            )
    goal = tuned.objectives[0]
    own = "" if goal.is_default else f" The objective is the {goal.words}."
    caption = f"Tuned against confirmed, {where}.{own} {meaning} A confirmation numbers its trials anew."
    return [*blocks, Table(f"tuned_confirmed-{confirmation.name}", caption, both, CONFIRMED_COLUMNS)]


def _changed(tuned: Sweep, confirmation: Sweep, both: pd.DataFrame) -> list[str]:
    """The settings that tuning and confirmation differ in, as code.

    The device does not count.
    """
    before = tuned.runs.set_index("run_id").loc[both["run_id_tuned"]]
    after = confirmation.runs.set_index("run_id").loc[both["run_id_confirmed"]]
    names = [
        name
        for name in map(str, after)
        if "/" in name and name.split("/")[0] in TrialConfig.model_fields and name != "training/device"
    ]
    return [
        f"`{name}`"
        for name in names
        if name not in before
        or any(
            old != new and not (is_missing(old) and is_missing(new))
            for old, new in zip(before[name], after[name], strict=True)
        )
    ]


def _confirmed(rows: Sequence[dict[str, object]]) -> list[comparisons.Confirmed]:
    return [
        comparisons.Confirmed(
            str(row["name"]),
            str(row["method"]),
            *(
                float(str(row[key]))
                for key in ("accuracy_tuned", "accuracy_confirmed", "accuracy_confirmed_low", "accuracy_confirmed_high")
            ),
        )
        for row in rows
    ]


def _dumbbells(title: str, drawn: Sequence[comparisons.Confirmed]) -> Draw:
    return lambda path, size: comparisons.tuned_and_confirmed(path, title, drawn, size)


def section_compute(compared: Mapping[str, tuple[Sweep, pd.DataFrame]]) -> Section:
    """Accuracy against compute, for several named selections of runs."""
    blocks: list[Table | Picture] = []
    for name, (sweep, runs) in compared.items():
        for scenario in dict.fromkeys(runs["scenario"]):
            chosen = load.rows(runs[runs["scenario"] == scenario])
            drawn = _spent(sweep, chosen)
            blocks.append(
                Picture(
                    f"compute-{name}-{scenario}",
                    f"{scenario}: test accuracy on each task against the gradient evaluations that one seed had spent "
                    f"by its end, sweep `{sweep.name}`; bands are 95 % t intervals.",
                    _drawn(f"{scenario}: accuracy against compute", drawn),
                    tuple(run["run_id"] for run in chosen),
                    charts.accuracy_by_gradient_evaluations(drawn),
                )
            )
    frames = [tables.compute(sweep, runs) for sweep, runs in compared.values() if len(runs)]
    if frames:
        caption = (
            "Accuracy at equal compute, with 95 % t intervals. The budget is what the cheapest setting of the scenario "
            "spends on all tasks. The others complete fewer tasks within it, and their mean is over those."
        )
        blocks.append(
            Table("compute", caption, pd.concat(frames, ignore_index=True).drop_duplicates("run_id"), COMPUTE_COLUMNS)
        )
    words = (
        "Equal passes over the images are not equal compute: SGD takes one gradient per minibatch, SAM and GNP take "
        "two. Here the same results are plotted against the number of minibatch gradients (a Hessian-vector product "
        "counts as one).",
        "To give SGD as many gradients on the same tasks, let it pass over each task's images twice: `study run SPACE "
        "--method sgd --set training/passes=2 --name sgd-two-passes`.",
    )
    return Section(
        "compute", "At equal compute", words if blocks else ("No run to compare has finished.",), tuple(blocks)
    )


def _spent(sweep: Sweep, chosen: Sequence[dict[str, object]]) -> list[accuracy.Spent]:
    drawn = []
    for run in chosen:
        run_id = str(run["run_id"])
        table = tables.per_task(sweep, run_id)
        evaluations = sweep.lanes[sweep.lanes["run_id"] == run_id].groupby("task")[schema.GRADIENT_EVALUATIONS].first()
        columns = (table[column].tolist() for column in ("accuracy", "accuracy_low", "accuracy_high"))
        drawn.append(accuracy.Spent(str(run["name"]), str(run["method"]), evaluations.tolist(), *columns))
    return drawn


def _drawn(title: str, drawn: Sequence[accuracy.Spent]) -> Draw:
    return lambda path, size: accuracy.accuracy_by_gradient_evaluations(path, title, drawn, size)
