"""Confirmations that ended as soon as they were decided."""

from __future__ import annotations

from typing import Final

import pandas as pd

from analysis import batches, load
from analysis.load import Sweep
from analysis.report.page import Column, Table
from study.decision.rule import Course, Rule

DECISION_COLUMNS: Final = (
    Column("scenario", "scenario"),
    Column("first", "method"),
    Column("second", "against"),
    Column("answer", "its test accuracy is"),
    Column("difference", "difference", "signed"),
    Column("seeds", "after seeds", "count"),
    Column("run_ids", "runs", "run"),
)

SEED_COLUMNS: Final = (
    Column("scenario", "scenario"),
    Column("method", "method"),
    Column("spent", "seeds spent", "count"),
    Column("most", "of", "count"),
    Column("saved", "saved", "count"),
    Column("ended", "ended"),
    Column("run_ids", "runs", "run"),
)


def blocks(whole: Sweep) -> list[Table]:
    """What was decided, and the seeds that it saved.

    Empty if the confirmation ran all its seeds anyway; `whole` has its batches joined.
    """
    rule, course = whole.rule, batches.course(whole)
    if rule is None or course is None:
        return []
    spent, most, not_needed = sum(course.spent.values()), rule.most * len(course.spent), sum(course.saved.values())
    decided = (
        f"`{whole.name}`: what was decided, and after how many seeds. After each batch of {rule.batch} seeds the paired "
        "differences in mean test accuracy were judged: higher or lower if the interval lies on one side of 0, alike if it "
        f"lies within {rule.margin:g} on both sides. A method ended once all its differences were decided. These intervals "
        f"hold together at {100 * rule.level:g} %, over all pairs and all {rule.looks} looks. Every other interval of this "
        f"confirmation has the level {whole.level:.4g}, and every p-value is multiplied by {rule.looks}, so that they hold "
        "whatever the looks decided."
    )
    saved = (
        f"`{whole.name}`: {spent} of {most} seeds spent, {not_needed} saved. Seeds of a method whose differences are all "
        "decided are not missing: they were not needed."
    )
    return [
        Table(f"decided-{whole.name}", decided, decisions(whole, rule, course), DECISION_COLUMNS),
        Table(f"seeds-{whole.name}", saved, seeds(whole, rule, course), SEED_COLUMNS),
    ]


def sentence(whole: Sweep) -> str:
    """What was decided, in a sentence; "" without a rule."""
    rule, course = whole.rule, batches.course(whole)
    if rule is None or course is None:
        return ""
    answers = [
        f"{each.scenario}: {each.first} against {each.second} {rule.words[each.verdict]}"
        + (f" after {each.interval.lanes} seeds" if each.interval else "")
        for each in course.differences
    ]
    spent, most, not_needed = sum(course.spent.values()), rule.most * len(course.spent), sum(course.saved.values())
    return (
        f"`{whole.name}` ended each method as soon as it was decided: {spent} of {most} seeds were spent, {not_needed} saved; "
        f"{'; '.join(answers)}."
    )


def decisions(whole: Sweep, rule: Rule, course: Course) -> pd.DataFrame:
    """One row per pair of winners."""
    runs = _runs(whole)
    rows = [
        {
            "scenario": each.scenario,
            "first": each.first,
            "second": each.second,
            "answer": rule.words[each.verdict],
            "difference": each.interval.mean if each.interval else None,
            "difference_low": each.interval.low if each.interval else None,
            "difference_high": each.interval.high if each.interval else None,
            "level": each.interval.level if each.interval else None,
            "seeds": each.interval.lanes if each.interval else 0,
            "run_ids": " ".join(runs.get((each.scenario, method), "") for method in (each.first, each.second)),
        }
        for each in course.differences
    ]
    return pd.DataFrame(rows)


def seeds(whole: Sweep, rule: Rule, course: Course) -> pd.DataFrame:
    """One row per winner: seeds spent and saved."""
    runs = _runs(whole)
    rows = [
        {
            "scenario": scenario,
            "method": method,
            "spent": spent,
            "most": rule.most,
            "saved": course.saved[scenario, method],
            "ended": course.ending(scenario, method),
            "run_ids": runs.get((scenario, method), ""),
        }
        for (scenario, method), spent in course.spent.items()
    ]
    return pd.DataFrame(rows)


def _runs(whole: Sweep) -> dict[tuple[str, str], str]:
    """The run ids of each winner, by scenario and method."""
    winners = whole.finished[whole.finished["selected_rank"] == 1]
    return {(run["scenario"], run["method"]): run["run_id"] for run in load.rows(winners)}
