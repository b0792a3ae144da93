"""The best of many trials and a sample of others.

A sweep may have thousands of trials. The page of its report shows some of them and says so; its files have all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pandas as pd

from study.objective import DEFAULT, Objective

MOST: Final = 200
"""The most trials of a sweep in one figure or table of the page."""

MOST_SENTENCES: Final = 20
"""The most sentences of one kind in a list of the page."""


def measure_of(runs: pd.DataFrame, goal: Objective = DEFAULT[0]) -> str:
    """The column that ranks trials: objective or test accuracy.

    An objective that is known after each task is that of the trials stopped early, too.
    """
    column = goal.running or goal.column
    scored = column in runs and bool(runs[column].notna().any())
    return column if scored else "summary/accuracy_test"


def best_and_sample(runs: pd.DataFrame, goal: Objective = DEFAULT[0]) -> pd.DataFrame:
    """The runs, or `MOST` of them in their order.

    Half are the best of all by `measure_of`, at least one of each method in each scenario; the others are spread evenly over
    the rest. Which ones depends on the runs alone.
    """
    if len(runs) <= MOST:
        return runs
    measure = measure_of(runs, goal)
    is_ascending = measure != "summary/accuracy_test" and not goal.is_maximised
    ranked = runs.sort_values(measure, ascending=is_ascending, kind="stable") if measure in runs else runs
    first_of_each = ~ranked.duplicated(["scenario", "method"])
    best = ranked.loc[first_of_each.sort_values(ascending=False, kind="stable").index].index
    best = best[: min(MOST, max(MOST // 2, int(first_of_each.sum())))]
    others = runs.index.difference(best, sort=False)
    count = MOST - len(best)
    spread = [others[place * len(others) // count] for place in range(count)]
    return runs.loc[runs.index.isin([*best, *spread])]


def words(shown: int, total: int) -> str:
    """A sentence on which trials are shown, or ""."""
    if shown == total:
        return ""
    return f" Of {total:,} trials, {shown} are shown: the best, and a sample of the others; `tables/all_trials.csv` has all."


def few(items: Sequence[str], what: str) -> list[str]:
    """The first of many sentences, then how many more."""
    more = len(items) - MOST_SENTENCES
    return [*items[:MOST_SENTENCES], *([f"And {more:,} more {what}."] if more > 0 else [])]
