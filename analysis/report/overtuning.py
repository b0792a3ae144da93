"""Over-tuning: confirmed accuracy of the incumbent against trials spent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from analysis import overtuning
from analysis.figures import incumbents
from analysis.load import Sweep
from analysis.overtuning import Trajectory
from analysis.report.page import Column, Draw, Picture, Table, joined

INCUMBENT_COLUMNS: Final = (
    Column("scenario", "scenario"),
    Column("method", "method"),
    Column("trials", "trials spent", "count"),
    Column("name", "incumbent"),
    Column("objective", "objective tuned", "number"),
    Column("accuracy", "test accuracy on fresh seeds", "share", absent="not confirmed"),
    Column("run_ids", "runs: tuned, confirmed", "run"),
)

OVERTUNING_COLUMNS: Final = (
    Column("scenario", "scenario"),
    Column("method", "method"),
    Column("trials", "trials", "count"),
    Column("incumbents", "incumbents", "count"),
    Column("first", "first incumbent", "share", absent="not confirmed"),
    Column("best", "best incumbent", "share"),
    Column("best_trials", "after trials", "count"),
    Column("final", "final incumbent", "share", absent="not confirmed"),
    Column("overtuning", "over-tuning", "share"),
    Column("relative_overtuning", "relative to the gain", "number", absent="none gained"),
    Column("run_ids", "runs", "run"),
)


def how_to(tuned: Sweep, confirmations: Sequence[Sweep]) -> list[str]:
    """How to see over-tuning, where nothing shows it.

    None for a search of one trial of each method, nor for a race, whose incumbents nobody can follow.
    """
    if tuned.rungs or any(map(overtuning.has_incumbents, confirmations)) or not (tuned.finished["number"] > 0).any():
        return []
    name = "" if not confirmations else f" --name {tuned.name}-incumbents"
    return [
        "Whether a longer search was worth it, or over-tuned, takes all trials that were the best so far on fresh seeds: "
        f"`study confirm {tuned.name} --incumbents{name}`."
    ]


def blocks(tuned: Sweep, confirmation: Sweep, where: str, changed: Sequence[str]) -> list[Table | Picture]:
    """A figure for each scenario, and two tables.

    Args:
        tuned: the search.
        confirmation: with its batches joined; without incumbents there is nothing to show.
        where: what the confirmation is, in words.
        changed: the settings in which it differs from the search.
    """
    if not overtuning.has_incumbents(confirmation):
        return []
    found = overtuning.trajectories(tuned, confirmation)
    if not found:
        return []
    goal = tuned.objectives[0]
    objective = (
        "objective, validation accuracy (share)" if goal.is_default else f"objective, {goal.words} ({goal.unit})"
    )
    pictures = []
    for scenario in dict.fromkeys(each.scenario for each in found):
        own = [each for each in found if each.scenario == scenario]
        drawn = [_steps(each) for each in own]
        caption = (
            f"{scenario}: the incumbent, the best trial so far, against trials spent: what the search believed, and its test "
            f"accuracy on fresh seeds, {where}. {' '.join(map(sentence, own))}"
        )
        pictures.append(
            Picture(
                f"incumbents-{confirmation.name}-{scenario}",
                caption,
                _drawn(f"{scenario}: the incumbent against trials spent", drawn, objective),
                tuple(run_id for each in own for one in each.incumbents for run_id in one.run_ids),
                incumbents.steps_chart(drawn, objective),
            )
        )
    meaning = (
        "Over-tuning is the highest test accuracy of any incumbent on fresh seeds minus that of the final one, at least 0 "
        "(Schneider et al. 2025); relative to the gain, it is divided by what the best incumbent has over the first, and above 1 "
        "the search ended worse than it began. As the best incumbent is found by these very seeds, the number is biased upwards. "
        "Its interval is not: it holds whichever incumbent is the best (Bonferroni over paired differences to the final one). "
        "Over-tuning is shown if it lies above 0."
    )
    if not goal.is_default:
        meaning += f" The search optimised another quantity ({goal.words}), so lost test accuracy may be its price."
    if changed:
        meaning += f" The search had other settings of {joined(changed)}, so a loss may be due to these."
    return [
        *pictures,
        Table(
            f"overtuning-{confirmation.name}",
            f"Over-tuning, {where}. {meaning}",
            overtuning.frame(found),
            OVERTUNING_COLUMNS,
        ),
        Table(
            f"incumbents-{confirmation.name}",
            f"All incumbents, {where}: each was the best so far from so many trials on.",
            overtuning.incumbents_frame(found),
            INCUMBENT_COLUMNS,
            folded=True,
        ),
    ]


def sentence(each: Trajectory) -> str:
    """What a method's trajectory says about over-tuning."""
    if each.unconfirmed:
        return f"{each.method}: unknown, for {joined(each.unconfirmed)} has no result on fresh seeds."
    result, first = each.overtuning, each.incumbents[0]
    if result is None:
        return f"{each.method}: unknown, for no seed is common to all incumbents."
    if len(each.incumbents) == 1:
        return f"{each.method}: none, for the incumbent of trial {first.trials} stayed the best of {each.trials}."
    amount, final = result.amount, each.incumbents[-1]
    bounds = f" [{amount.low:.4f}, {amount.high:.4f}]" if math.isfinite(amount.low) else ", interval unknown"
    if amount.mean == 0:
        return (
            f"{each.method}: over-tuning 0{bounds}; on fresh seeds no earlier incumbent does better than the final one."
        )
    relative = (
        f"{100 * result.relative:.2g} % of what was gained over the first"
        if math.isfinite(result.relative)
        else "and nothing was gained over the first"
    )
    return (
        f"{each.method}: over-tuning {amount.mean:.4f}{bounds}, {relative}: on fresh seeds the incumbent after "
        f"{result.best.trials} of {each.trials} trials does better than the final one, found after {final.trials}"
        + ("." if result.is_shown else ", which may be chance.")
    )


def _steps(each: Trajectory) -> incumbents.Steps:
    known = [one.accuracy for one in each.incumbents]
    return incumbents.Steps(
        method=each.method,
        spent=[one.trials for one in each.incumbents],
        trials=each.trials,
        names=[one.name for one in each.incumbents],
        tuned=[one.objective for one in each.incumbents],
        mean=[one.mean if one else math.nan for one in known],
        low=[one.low if one else math.nan for one in known],
        high=[one.high if one else math.nan for one in known],
    )


def _drawn(title: str, drawn: Sequence[incumbents.Steps], objective: str) -> Draw:
    return lambda path, size: incumbents.steps(path, title, drawn, objective, size)
