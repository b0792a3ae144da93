"""What a race spent: configurations and their seeds."""

from __future__ import annotations

from typing import Final

import pandas as pd

from analysis import batches
from analysis.load import Sweep
from analysis.report.page import Column, Table
from study.decision import halving

COLUMNS: Final = (
    Column("scenario", "scenario"),
    Column("method", "method"),
    Column("seeds", "seeds", "count"),
    Column("configurations", "configurations that have them", "count"),
    Column("due", "of", "count"),
    Column("best", "best objective over these seeds", "number"),
    Column("diverged", "with diverged seeds", "count"),
    Column("run_id", "run of the sweep", "run"),
)


def blocks(whole: Sweep) -> list[Table]:
    """The rungs of a race; nothing for other sweeps."""
    if not whole.rungs:
        return []
    caption = (
        "The race: how many configurations got how many seeds. The better half of those with the seeds of a row got the seeds of "
        "the next; one with a diverged seed came after all that have none."
    )
    return [Table("race", caption, rungs(whole), COLUMNS)]


def sentence(whole: Sweep) -> str:
    """What a race spent and saved; "" for other sweeps."""
    if not whole.rungs:
        return ""
    trained = whole.recorded[whole.recorded["outcome"] == "finished"]
    spent = int(trained["seeds"].map(len).sum())
    configurations = sum(group["trials"] for group in whole.plan["groups"])
    most = configurations * whole.rungs[-1]
    return (
        f"It was a race: configurations got {', '.join(map(str, whole.rungs))} seeds, the better half of each rung the next "
        f"number. {spent} seeds were trained, {most - spent} fewer than all {whole.rungs[-1]} of all {configurations} "
        "configurations. Only configurations with all seeds can be selected; the others are shown with the mean over the seeds "
        "that they have."
    )


def rungs(whole: Sweep) -> pd.DataFrame:
    """One row per method and rung."""
    goal, due = whole.objectives[0], batches.due_on_rungs(whole)
    rows = []
    for (scenario, method), sizes in due.items():
        known = batches.entrants(whole, scenario, method)
        for rung, seeds in enumerate(whole.rungs):
            reached = [each.results[rung] for each in known if len(each.results) > rung]
            scores = [best.results[rung].score for best in halving.ranked(known, rung)[:1]]
            rows.append(
                {
                    "scenario": scenario,
                    "method": method,
                    "seeds": seeds,
                    "configurations": len(reached),
                    "due": sizes[rung],
                    "best": goal.score(scores[0]) if scores and scores[0] is not None else None,
                    "diverged": sum(result.diverged > 0 for result in reached),
                    "run_id": whole.run_id,
                }
            )
    return pd.DataFrame(rows)
